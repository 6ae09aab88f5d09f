"""Fields that start from what is known of a Gaussian around the condition.

If x_1 were mu + tau r with white normal r, the flow of

    x_t = a x_0 + t x_1,   a = 1 - q t,   q = 1 - sigma_min

would be known: y = x_t - t mu has variance D(t) = a^2 + t^2 tau^2, and the
flow only scales it, y(r) = y(t) sqrt(D(r) / D(t)). The networks here learn
what this leaves, at unit scale, so an untrained one gives mu back in one step.

The idea is that of preconditioning (Karras et al., 2206.00364), around a
condition that is already close.
"""

import torch
from torch import nn


class ResidualField(nn.Module):
    """A velocity that starts from that of the Gaussian.

        E[u | x_t] = mu + (t tau^2 - q a) / D y,     Var[u | x_t] = tau^2 / D
        v = mu + (t tau^2 - q a) / D y + tau / sqrt(D) net(y / sqrt(D), t, mu)

    Arguments
    ---------
    field : torch.nn.Module
        The network, of one time.
    tau : float
        Standard deviation of x_1 - mu, in normalised units, above 0.
    sigma_min : float
        That of the flow.

    Example
    -------
    >>> net = lambda x, t, mu, mask: torch.zeros_like(x)
    >>> field = ResidualField(net, tau=0.25)
    >>> x, mu = torch.randn(1, 5, 4), torch.randn(1, 5, 4)
    >>> v = field(x, torch.zeros(1), mu)
    >>> (x + v).allclose(mu, atol=1e-3)
    True
    """

    def __init__(self, field, tau, sigma_min=1e-4):
        super().__init__()
        if tau <= 0:
            raise ValueError(f"tau must be above 0, found {tau}")
        self.field = field
        self.tau = tau
        self.sigma_min = sigma_min

    @property
    def receptive_field(self):
        """Frames seen on each side, or None if unbounded."""
        return self.field.receptive_field

    @property
    def alignment(self):
        """That of the network."""
        return self.field.alignment

    def forward(self, x, t, mu, mask=None):
        """The field at (x, t), given mu."""
        if t.ndim != 1:
            raise ValueError(
                f"expected one time per item, found shape {list(t.shape)}"
            )
        tt = _at_least_float32(t)[:, None, None]
        variance = self._variance(tt)
        a = 1 - (1 - self.sigma_min) * tt
        gain = (tt * self.tau**2 - (1 - self.sigma_min) * a) / variance
        return self._combine(x, t, tt, mu, mask, gain, variance)

    def _variance(self, t):
        """D."""
        a = 1 - (1 - self.sigma_min) * t
        return a.square() + (t * self.tau).square()

    def _combine(self, x, times, t, mu, mask, gain, variance):
        """mu, the known part of the rest, and the network's."""
        y = _at_least_float32(x) - t * _at_least_float32(mu)
        scale = variance.rsqrt()
        learned = self.field(y * scale, times, mu, mask)
        return mu + gain * y + self.tau * scale * learned


class MeanResidualField(ResidualField):
    """A mean velocity over [t, r] that starts from that of the Gaussian.

    Between t and r, y grows by sqrt(D(r) / D(t)) - 1, so the mean velocity is

        mu + (sqrt(D(r)) - sqrt(D(t))) / ((r - t) sqrt(D(t))) y.

    D is quadratic in t: (D(r) - D(t)) / (r - t) = (q^2 + tau^2)(t + r) - 2 q,
    which leaves nothing to divide by where r = t,

        u = mu + ((q^2 + tau^2)(t + r) - 2 q) / ((s_t + s_r) s_t) y
            + tau / s_t net(y / s_t, (t, r), mu),      s = sqrt(D).

    There it is `ResidualField`.

    Arguments
    ---------
    field : torch.nn.Module
        The network, of two times or more; the first two are t and r.
    tau, sigma_min
        As for `ResidualField`.

    Example
    -------
    >>> net = lambda x, t, mu, mask: torch.zeros_like(x)
    >>> field = MeanResidualField(net, tau=0.25, sigma_min=0.0)
    >>> x, mu = torch.randn(1, 5, 4), torch.randn(1, 5, 4)
    >>> u = field(x, torch.tensor([[0.0, 1.0]]), mu)
    >>> (x + u).allclose(mu + 0.25 * x, atol=1e-5)
    True
    """

    def forward(self, x, t, mu, mask=None):
        """The field over [t, r], given mu; t [B, 2 or more]."""
        if t.ndim != 2 or t.shape[1] < 2:
            raise ValueError(
                "expected two times or more per item, found shape "
                f"{list(t.shape)}"
            )
        start, end = _at_least_float32(t)[:, :2, None, None].unbind(1)
        q = 1 - self.sigma_min
        variance = self._variance(start)
        s_t, s_r = variance.sqrt(), self._variance(end).sqrt()
        slope = (q**2 + self.tau**2) * (start + end) - 2 * q
        gain = slope / ((s_t + s_r) * s_t)
        return self._combine(x, t, start, mu, mask, gain, variance)


def _at_least_float32(x):
    return x.to(torch.promote_types(x.dtype, torch.float32))
