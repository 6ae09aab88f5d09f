"""Mean flow: a field of mean velocities, which samples in one step.

Geng et al., "Mean Flows for One-step Generative Modeling" (2505.13447). Here
time runs from noise (0) to data (1), against the paper's; its (t, r, z_t, e)
are (1 - t, 1 - r, x_t, x_0) here, and velocities change sign. With v the
velocity of the flow and t <= r,

    u(x_t, t, r) = 1 / (r - t) int_t^r v(x_s, s) ds
    x_r          = x_t + (r - t) u(x_t, t, r)

Differentiating (r - t) u along the flow gives the mean-flow identity,

    u = v + (r - t) du/dt,      du/dt = v du/dx + d/dt u,

whose right side, with the conditional velocity for v and no gradient through
du/dt, is what u is trained to be. Where r = t this is flow matching.
"""

from itertools import pairwise

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel

from speechbrain_flowmac.lobes.flow import FlowLosses, clear_padding
from speechbrain_flowmac.lobes.flow_matching import FlowMatching
from speechbrain_flowmac.lobes.solvers import Euler


def value_and_slope(function, points, directions):
    """A function's value with its derivative along directions.

    Forward-mode differentiation, in float32 (or what the inputs are), without
    autocast, and with plain attention: fused kernels have no forward mode.

    Arguments
    ---------
    function : callable
        Of tensors.
    points, directions : tuple of torch.Tensor
        Inputs, and how they move.

    Returns
    -------
    tuple of torch.Tensor
        The value, through which gradients flow, and the derivative, through
        which they do not.

    Example
    -------
    >>> x, speed = torch.tensor(3.0), torch.tensor(2.0)
    >>> value_and_slope(torch.square, (x,), (speed,))
    (tensor(9.), tensor(12.))
    """
    kind = points[0].device.type
    with torch.autocast(kind, enabled=False), sdpa_kernel(SDPBackend.MATH):
        value, slope = torch.func.jvp(function, points, directions)
    return value, slope.detach()


def item_mean(values, mask=None):
    """Mean over the valid frames and all bands of each item.

    Arguments
    ---------
    values : torch.Tensor
        Shape [B, N, M].
    mask : torch.Tensor or None
        Shape [B, N], True where valid.

    Returns
    -------
    torch.Tensor
        Shape [B].

    Example
    -------
    >>> values = torch.tensor([[[1.0, 3.0], [9.0, 9.0]]])
    >>> item_mean(values, torch.tensor([[True, False]]))
    tensor([2.])
    """
    if mask is None:
        return values.mean((1, 2))
    kept = torch.where(mask.unsqueeze(-1), values, 0.0)
    return kept.sum((1, 2)) / (mask.sum(1).clamp(min=1) * values.shape[-1])


class MeanFlow(FlowMatching):
    """A field of mean velocities with its objective and its sampler.

    The loss of an item is e / (e + eps)^p, with the mean square error e over
    its frames and bands, and no gradient through the denominator: the paper's
    adaptive weighting, which is for training alone. At p = 1 its value says
    nothing; `FlowLosses.mse` is the mean of e.

    Arguments
    ---------
    field : torch.nn.Module
        `field(x [B, N, M], (t, r) [B, 2], mu [B, N, M], mask [B, N])`.
    sigma_min : float
        How much noise is left at t = 1.
    time : callable
        `time(batch_size, generator) -> [B]`; t and r are the smaller and the
        larger of two draws.
    equal_fraction : float
        Probability of r = t. The paper's best is 0.75.
    power : float
        p: 0 for the plain square error, 1 for the paper's.
    eps : float
        In the weighting.

    Example
    -------
    >>> from speechbrain_flowmac.lobes.convnext import ConvNeXt
    >>> from speechbrain_flowmac.lobes.sampling import Sampling
    >>> from speechbrain_flowmac.lobes.vector_field import ConvNeXtField
    >>> trunk = ConvNeXt(8, 1, condition_dim=8)
    >>> flow = MeanFlow(ConvNeXtField(4, trunk, num_times=2))
    >>> mel, mu = torch.randn(2, 5, 4), torch.randn(2, 5, 4)
    >>> losses = flow(mel, mu, None, torch.Generator().manual_seed(0))
    >>> bool(losses.total < 1 < losses.mse)
    True
    >>> flow.sample(torch.randn(2, 5, 4), mu, None, Sampling(n_steps=1)).shape
    torch.Size([2, 5, 4])
    """

    def __init__(
        self,
        field,
        sigma_min=1e-4,
        time=None,
        equal_fraction=0.75,
        power=1.0,
        eps=1e-3,
    ):
        super().__init__(field, sigma_min, time)
        if not 0 <= equal_fraction <= 1:
            raise ValueError(
                f"equal_fraction must be in 0..1, found {equal_fraction}"
            )
        self.equal_fraction = equal_fraction
        self.power = power
        self.eps = eps

    def times(self, batch_size, generator):
        """Draws t and r, both [B], t <= r."""
        pair = [self.time(batch_size, generator) for _ in range(2)]
        t, r = torch.minimum(*pair), torch.maximum(*pair)
        chance = torch.rand(
            batch_size, generator=generator, device=generator.device
        )
        return t, torch.where(chance < self.equal_fraction, t, r)

    def loss(self, mel, mu, mask, generator):
        """The mean-flow loss; see `Flow.loss`."""
        mel, mu = clear_padding(mask, mel, mu)
        noise = torch.randn(mel.shape, generator=generator, device=mel.device)
        t, r = self.times(len(mel), generator)
        x_t, velocity = self.path(noise, mel, t)
        implied = self.implied_velocity(x_t, t, r, velocity, mu, mask)
        mse = item_mean((implied - velocity).square(), mask)
        return FlowLosses(self.weighted(mse).mean(), mse.mean().detach())

    def implied_velocity(self, x, t, r, velocity, mu, mask, *conditions):
        """u - (r - t) du/dt, which the identity says is v.

        Its distance from v is that of u from v + (r - t) du/dt.

        Arguments
        ---------
        x : torch.Tensor
            Shape [B, N, M].
        t, r : torch.Tensor
            Shape [B].
        velocity : torch.Tensor
            Along which u is differentiated, shape [B, N, M].
        mu : torch.Tensor
            Shape [B, N, M].
        mask : torch.Tensor or None
            Shape [B, N].
        *conditions : torch.Tensor
            Further inputs beside t and r, each [B].

        Returns
        -------
        torch.Tensor
            Shape [B, N, M]; gradients flow through u alone.
        """
        mu = mu.to(x)

        def mean_velocity(x, t):
            times = torch.stack([t, r, *conditions], dim=1)
            return self.field(x, times, mu, mask)

        u, slope = value_and_slope(
            mean_velocity, (x, t), (velocity.to(x), torch.ones_like(t))
        )
        return u - (r - t)[:, None, None] * slope

    def weighted(self, mse):
        """Errors of items, in training divided by their own powers."""
        if not self.training:
            return mse
        return mse / (mse.detach() + self.eps) ** self.power

    @torch.no_grad()
    def sample(self, noise, mu, mask, sampling):
        """Steps of x_r = x_t + (r - t) u; see `Flow.sample`."""
        self.check(sampling)
        x = sampling.temperature * noise
        conditions = self.sampling_conditions(sampling)
        for t, r in pairwise(sampling.grid.tolist()):
            times = x.new_tensor([[t, r, *conditions]]).expand(len(x), -1)
            x = x + (r - t) * self.field(x, times, mu, mask)
        return x

    def check(self, sampling):
        """Refuses settings that mean nothing here."""
        if not isinstance(sampling.solver, Euler):
            name = type(sampling.solver).__name__.lower()
            raise ValueError(
                "a mean flow is no ODE to solve, its steps are its own: the "
                f"solver must be euler, found {name}"
            )
        if sampling.guidance or sampling.rescale:
            raise ValueError(
                "this mean flow was trained without guidance: use guidance=0"
            )

    def sampling_conditions(self, sampling):
        """Inputs of the field beside t and r: none."""
        return ()

    def evaluations(self, sampling):
        """One for each step."""
        return sampling.n_steps

    def receptive_field(self, sampling):
        """Every step reaches further; see `Flow.receptive_field`."""
        reach = self.field.receptive_field
        if sampling.n_steps == 0:
            return 0
        return None if reach is None else reach * sampling.n_steps

    def adopt(self, state):
        """A field that ignores r, which is right where r = t.

        The embeddings of the further times start at zero, and an `extra_field`
        as a copy. See `Flow.adopt`.
        """
        own, state = self.state_dict(), dict(state)
        if not any(name.startswith(f"{self.extra_field}.") for name in state):
            for name in list(state):
                copy = name.replace("field", str(self.extra_field), 1)
                if copy in own:
                    state[copy] = state[name]
        for name, value in own.items():
            if name.endswith("time.mlp.0.weight") and name in state:
                state[name] = _widen(state[name], value)
        return state


def _widen(weight, like):
    """With zero columns up to the width of another matrix."""
    missing = like.shape[1] - weight.shape[1]
    return torch.nn.functional.pad(weight, (0, max(missing, 0)))
