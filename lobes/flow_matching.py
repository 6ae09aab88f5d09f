"""Conditional flow matching: the objective and the sampler.

Lipman et al. (2210.02747), FlowMAC (2409.17635). With noise x_0, data x_1
and s = sigma_min,

    x_t = (1 - (1 - s) t) x_0 + t x_1
    u   = x_1 - (1 - s) x_0
    L   = sum(mask (v(x_t, t) - u)^2) / (sum(mask) M)
"""

import torch

from speechbrain_flowmac.lobes.flow import Flow, FlowLosses, clear_padding
from speechbrain_flowmac.lobes.guidance import drop_condition


class UniformTime:
    """Training times uniform in (0, 1).

    Example
    -------
    >>> UniformTime()(4, torch.Generator().manual_seed(0)).shape
    torch.Size([4])
    """

    def __call__(self, batch_size, generator):
        """Draws `batch_size` times on the generator's device."""
        return torch.rand(
            batch_size, generator=generator, device=generator.device
        )


class LogitNormalTime:
    """Training times sigmoid(mean + std n), n normal (Esser et al., 2403.03206).

    Arguments
    ---------
    mean : float
        Of the logit; below 0 draws more times near the noise.
    std : float
        Of the logit, above 0.

    Example
    -------
    >>> times = LogitNormalTime()(1000, torch.Generator().manual_seed(0))
    >>> bool(((times > 0) & (times < 1)).all())
    True
    """

    def __init__(self, mean=0.0, std=1.0):
        if std <= 0:
            raise ValueError(f"std must be above 0, found {std}")
        self.mean = mean
        self.std = std

    def __call__(self, batch_size, generator):
        """Draws `batch_size` times on the generator's device."""
        normal = torch.randn(
            batch_size, generator=generator, device=generator.device
        )
        return torch.sigmoid(self.mean + self.std * normal)


def masked_mean(values, mask=None):
    """Mean over valid frames and all bands.

    Arguments
    ---------
    values : torch.Tensor
        Shape [B, N, M].
    mask : torch.Tensor or None
        Shape [B, N], True where valid.

    Returns
    -------
    torch.Tensor
        Scalar.

    Example
    -------
    >>> values = torch.tensor([[[1.0, 3.0], [100.0, 100.0]]])
    >>> masked_mean(values, torch.tensor([[True, False]])).item()
    2.0
    """
    if mask is None:
        return values.mean()
    # where, not a product: what padding holds may not even be finite
    kept = torch.where(mask.unsqueeze(-1), values, 0.0)
    return kept.sum() / (mask.sum().clamp(min=1) * values.shape[-1])


class FlowMatching(Flow):
    """A vector field with its training objective and its sampler.

    Arguments
    ---------
    field : torch.nn.Module
        `field(x [B, N, M], t [B], mu [B, N, M], mask [B, N]) -> [B, N, M]`.
    sigma_min : float
        s above: how much noise is left at t = 1.
    time : callable
        `time(batch_size, generator) -> [B]`.
    condition_dropout : float
        Probability with which an item is trained without its condition, for
        classifier-free guidance; 0 rules guidance out.

    Example
    -------
    >>> from speechbrain_flowmac.lobes.convnext import ConvNeXt
    >>> from speechbrain_flowmac.lobes.sampling import Sampling
    >>> from speechbrain_flowmac.lobes.vector_field import ConvNeXtField
    >>> flow = FlowMatching(ConvNeXtField(4, ConvNeXt(8, 1, condition_dim=8)))
    >>> mel, mu = torch.randn(2, 5, 4), torch.randn(2, 5, 4)
    >>> losses = flow(mel, mu, None, torch.Generator().manual_seed(0))
    >>> losses.total.shape
    torch.Size([])
    >>> flow.sample(torch.randn(2, 5, 4), mu, None, Sampling(n_steps=2)).shape
    torch.Size([2, 5, 4])
    """

    def __init__(self, field, sigma_min=1e-4, time=None, condition_dropout=0.0):
        super().__init__()
        self.field = field
        self.sigma_min = sigma_min
        self.time = UniformTime() if time is None else time
        self.condition_dropout = condition_dropout

    @property
    def alignment(self):
        """That of the field."""
        return self.field.alignment

    def adopt(self, state):
        """A field of mean velocities as one of velocities, where r = t.

        See `Flow.adopt`.
        """
        state = dict(state)
        for name, value in self.state_dict().items():
            if name.endswith("time.mlp.0.weight") and name in state:
                weight = state[name]
                by_time = weight.reshape(len(weight), -1, value.shape[1])
                state[name] = by_time[:, :2].sum(1, dtype=value.dtype)
        return state

    def path(self, noise, mel, t):
        """x_t and its velocity u, both [B, N, M], at times t [B]."""
        shrink = 1 - self.sigma_min
        t = t[:, None, None]
        return (1 - shrink * t) * noise + t * mel, mel - shrink * noise

    def loss(self, mel, mu, mask, generator):
        """The conditional flow-matching loss; see `Flow.loss`."""
        mel, mu = clear_padding(mask, mel, mu)
        noise = torch.randn(mel.shape, generator=generator, device=mel.device)
        t = self.time(len(mel), generator)
        x_t, velocity = self.path(noise, mel, t)
        mu = drop_condition(mu, self.condition_dropout, generator)
        error = self.field(x_t, t, mu, mask).float() - velocity
        mse = masked_mean(error.square(), mask)
        return FlowLosses(mse, mse.detach())

    @torch.no_grad()
    def sample(self, noise, mu, mask, sampling):
        """Solves dx/dt = v(x, t); see `Flow.sample`."""
        if sampling.guidance and not self.condition_dropout:
            raise ValueError(
                "guidance needs a model trained with condition_dropout > 0; "
                "this one was trained without: use guidance=0"
            )
        field = sampling.guide(self.field)
        return sampling.solver(
            lambda x, t: field(x, t, mu, mask),
            sampling.temperature * noise,
            sampling.grid,
        ).x

    def evaluations(self, sampling):
        """Evaluations of the field; guidance makes each twice as large."""
        per_step = sampling.solver.evaluations_per_step
        if sampling.n_steps == 0:
            return 0
        return None if per_step is None else sampling.n_steps * per_step

    def receptive_field(self, sampling):
        """Every evaluation reaches further; see `Flow.receptive_field`."""
        evaluations = self.evaluations(sampling)
        if evaluations == 0:
            return 0
        reach = self.field.receptive_field
        # rescaling looks at all frames
        rescaled = sampling.guidance and sampling.rescale
        if reach is None or evaluations is None or rescaled:
            return None
        return reach * evaluations
