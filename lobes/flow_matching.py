"""Conditional flow matching: the objective and the sampler.

Lipman et al. (2210.02747), FlowMAC (2409.17635). With noise x_0, data x_1
and s = sigma_min,

    x_t = (1 - (1 - s) t) x_0 + t x_1
    u   = x_1 - (1 - s) x_0
    L   = sum(mask (v(x_t, t) - u)^2) / (sum(mask) M)
"""

import torch
from torch import nn

from speechbrain_flowmac.lobes.guidance import GuidedField, drop_condition


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


class FlowMatching(nn.Module):
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
    >>> from speechbrain_flowmac.lobes.solvers import Euler, Uniform
    >>> from speechbrain_flowmac.lobes.vector_field import ConvNeXtField
    >>> flow = FlowMatching(ConvNeXtField(4, ConvNeXt(8, 1, condition_dim=8)))
    >>> mel, mu = torch.randn(2, 5, 4), torch.randn(2, 5, 4)
    >>> flow.loss(mel, mu, None, torch.Generator().manual_seed(0)).shape
    torch.Size([])
    >>> flow.sample(torch.randn(2, 5, 4), mu, None, Euler(), Uniform()(2)).nfe
    2
    """

    def __init__(self, field, sigma_min=1e-4, time=None, condition_dropout=0.0):
        super().__init__()
        self.field = field
        self.sigma_min = sigma_min
        self.time = UniformTime() if time is None else time
        self.condition_dropout = condition_dropout

    def forward(self, mel, mu, mask, generator):
        """Same as `loss` (DDP wraps forward)."""
        return self.loss(mel, mu, mask, generator)

    def loss(self, mel, mu, mask, generator):
        """The conditional flow-matching loss of a batch.

        Arguments
        ---------
        mel : torch.Tensor
            Data x_1, normalised, shape [B, N, M].
        mu : torch.Tensor
            Condition, shape [B, N, M]; gradients flow into it.
        mask : torch.Tensor or None
            Shape [B, N], True where valid.
        generator : torch.Generator
            Source of noise, times and dropout, on the tensors' device; one
            per rank, so that ranks do not share noise.

        Returns
        -------
        torch.Tensor
            Scalar.
        """
        if mask is not None:
            # padding may hold anything, even what is not finite
            padding = ~mask.unsqueeze(-1)
            mel = mel.masked_fill(padding, 0.0)
            mu = mu.masked_fill(padding, 0.0)
        noise = torch.randn(mel.shape, generator=generator, device=mel.device)
        t = self.time(len(mel), generator)
        tt = t[:, None, None]
        shrink = 1 - self.sigma_min
        x_t = (1 - shrink * tt) * noise + tt * mel
        target = mel - shrink * noise
        mu = drop_condition(mu, self.condition_dropout, generator)
        error = self.field(x_t, t, mu, mask).float() - target
        return masked_mean(error.square(), mask)

    @torch.no_grad()
    def sample(self, noise, mu, mask, solver, grid, guidance=0.0, rescale=0.0):
        """Solves dx/dt = v(x, t) from noise to a mel.

        Arguments
        ---------
        noise : torch.Tensor
            x_0, shape [B, N, M].
        mu : torch.Tensor
            Condition, shape [B, N, M].
        mask : torch.Tensor or None
            Shape [B, N], True where valid.
        solver : callable
            From `lobes.solvers`.
        grid : torch.Tensor
            Times from 0 to 1, shape [steps + 1].
        guidance : float
            Scale w of classifier-free guidance; 0 for none.
        rescale : float
            Rescaling phi of the guided field, 0..1.

        Returns
        -------
        Solution
            With `x`, the normalised mel [B, N, M], and `nfe`.
        """
        if guidance and not self.condition_dropout:
            raise ValueError(
                "guidance needs a model trained with condition_dropout > 0; "
                "this one was trained without: use guidance=0"
            )
        field = self.field
        if guidance:
            field = GuidedField(field, guidance, rescale)
        return solver(lambda x, t: field(x, t, mu, mask), noise, grid)
