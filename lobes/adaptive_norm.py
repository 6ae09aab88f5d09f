"""Adaptive normalisation: what a network is told shifts and scales it.

Perez et al., FiLM (1709.07871); Peebles and Xie, DiT (2212.09748).
"""

import torch
from torch import nn
from torch.nn import functional as F

from speechbrain_flowmac.lobes.vector_field import TimeEmbedding, zero_init


class AdaptiveNorm(nn.Module):
    """Layer norm whose shift and gain are linear in a condition.

    Starts as a plain layer norm.

    Arguments
    ---------
    dim : int
        Channels D.
    condition_dim : int
        Width C of the condition.

    Example
    -------
    >>> norm = AdaptiveNorm(8, 4)
    >>> norm(torch.randn(2, 5, 8), torch.randn(2, 1, 4)).shape
    torch.Size([2, 5, 8])
    """

    def __init__(self, dim, condition_dim):
        super().__init__()
        self.norm = nn.LayerNorm(dim, elementwise_affine=False)
        self.condition = zero_init(nn.Linear(condition_dim, 2 * dim))

    def forward(self, x, condition):
        """x [B, N, D], condition [B, N or 1, C] to [B, N, D]."""
        shift, gain = self.condition(condition).chunk(2, dim=-1)
        return self.norm(x) * (1 + gain) + shift


class AdaptiveField(nn.Module):
    """A vector field that hears of t and mu by adaptive normalisation.

    `lobes.vector_field` says what fields take and give.

    Arguments
    ---------
    width : int
        Values of a token M.
    trunk : MLP, Mixer or ConvNeXtV2
        `trunk(h [B, N, D], mask [B, N], condition [B, N, C])`.
    num_times : int
        See `lobes.vector_field.TimeEmbedding`.
    num_tokens : int or None
        Tokens of all signals, to learn where each stands; None for signals
        of any length, whose tokens are alike.
    time_scale : float
        See `lobes.vector_field.TimeEmbedding`.

    Example
    -------
    >>> from speechbrain_flowmac.lobes.mlp import MLP
    >>> field = AdaptiveField(4, MLP(8, 2, condition_dim=6))
    >>> x = torch.randn(2, 5, 4)
    >>> field(x, torch.rand(2), x).shape
    torch.Size([2, 5, 4])
    """

    alignment = 1

    def __init__(
        self, width, trunk, num_times=1, num_tokens=None, time_scale=1000.0
    ):
        super().__init__()
        self.time = TimeEmbedding(trunk.condition_dim, num_times, time_scale)
        self.project_mu = nn.Linear(width, trunk.condition_dim)
        self.project_in = nn.Linear(width, trunk.dim)
        self.position = None
        if num_tokens is not None:
            self.position = nn.Parameter(
                0.02 * torch.randn(num_tokens, trunk.dim)
            )
        self.trunk = trunk
        self.norm = nn.LayerNorm(trunk.dim)
        self.project_out = zero_init(nn.Linear(trunk.dim, width))
        self.receptive_field = trunk.receptive_field

    def forward(self, x, t, mu, mask=None):
        """The field at (x, t), given mu."""
        dtype = self.project_in.weight.dtype
        h = self.project_in(x.to(dtype))
        if self.position is not None:
            h = h + self.position
        condition = self.time(t)[:, None] + self.project_mu(mu.to(dtype))
        h = self.trunk(h, mask, F.silu(condition))
        return self.project_out(self.norm(h))
