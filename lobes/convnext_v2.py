"""ConvNeXt v2: blocks whose channels compete.

Woo et al., "ConvNeXt V2: Co-designing and Scaling ConvNets with Masked
Autoencoders" (2301.00808), in one dimension, with adaptive normalisation.
"""

import torch
from torch import nn
from torch.nn import functional as F

from speechbrain_flowmac.lobes.adaptive_norm import AdaptiveNorm
from speechbrain_flowmac.lobes.convnext import DepthwiseConv


class GlobalResponseNorm(nn.Module):
    """Each channel times its share of the energy, equations 1 to 3.

        G_d = |x_d| over the valid frames,   R_d = G_d / mean_d G_d
        y = x + gamma R x + beta

    gamma and beta start at zero. As the energy is that of the whole signal,
    a frame depends on all others.

    Arguments
    ---------
    dim : int
        Channels D.

    Example
    -------
    >>> GlobalResponseNorm(8)(torch.randn(2, 5, 8)).shape
    torch.Size([2, 5, 8])
    """

    # under the root, where silence has no slope, and beside the mean
    eps = 1e-6

    def __init__(self, dim):
        super().__init__()
        self.gamma = nn.Parameter(torch.zeros(dim))
        self.beta = nn.Parameter(torch.zeros(dim))

    def forward(self, x, mask=None):
        """x [B, N, D], mask [B, N, 1] of 1 where valid, to [B, N, D]."""
        valid = x if mask is None else x * mask
        energy = valid.square().sum(1, keepdim=True)
        norm = (energy + self.eps**2).sqrt()
        share = norm / (norm.mean(-1, keepdim=True) + self.eps)
        return x + self.gamma * share * x + self.beta


class ConvNeXtV2Block(nn.Module):
    """Depthwise convolution, adaptive norm, MLP with global response norm.

    Arguments
    ---------
    dim : int
        Channels D.
    hidden_dim : int
        Width of the MLP.
    kernel_size : int
        Of the depthwise convolution, odd.
    condition_dim : int
        Width C of what the norm adapts to.

    Example
    -------
    >>> block = ConvNeXtV2Block(8, 16, 3, 4)
    >>> block(torch.randn(2, 5, 8), None, torch.randn(2, 1, 4)).shape
    torch.Size([2, 5, 8])
    """

    def __init__(self, dim, hidden_dim, kernel_size, condition_dim):
        super().__init__()
        self.conv = DepthwiseConv(dim, kernel_size)
        self.norm = AdaptiveNorm(dim, condition_dim)
        self.expand = nn.Linear(dim, hidden_dim)
        self.response = GlobalResponseNorm(hidden_dim)
        self.reduce = nn.Linear(hidden_dim, dim)

    def forward(self, x, mask, condition):
        """x [B, N, D], mask [B, N, 1] of 1 where valid, or None, condition
        [B, N or 1, C], to [B, N, D]."""
        h = self.conv(x if mask is None else x * mask)
        h = F.gelu(self.expand(self.norm(h, condition)))
        return x + self.reduce(self.response(h, mask))


class ConvNeXtV2(nn.Module):
    """A stack of blocks.

    Arguments
    ---------
    dim : int
        Channels D.
    num_layers : int
        Blocks.
    hidden_dim : int or None
        Width of the MLPs; None is 2 D.
    kernel_size : int
        Of the depthwise convolutions, odd.
    condition_dim : int or None
        Width C of the condition; None is D.

    Example
    -------
    >>> trunk = ConvNeXtV2(8, 2)
    >>> trunk(torch.randn(2, 5, 8), None, torch.randn(2, 5, 8)).shape
    torch.Size([2, 5, 8])
    """

    receptive_field = None

    def __init__(
        self,
        dim,
        num_layers,
        hidden_dim=None,
        kernel_size=7,
        condition_dim=None,
    ):
        super().__init__()
        hidden_dim = 2 * dim if hidden_dim is None else hidden_dim
        self.dim = dim
        self.condition_dim = dim if condition_dim is None else condition_dim
        self.blocks = nn.ModuleList(
            ConvNeXtV2Block(dim, hidden_dim, kernel_size, self.condition_dim)
            for _ in range(num_layers)
        )

    def forward(self, x, mask, condition):
        """x [B, N, D], mask [B, N] or None, condition [B, N, C]."""
        if mask is not None:
            mask = mask.unsqueeze(-1).to(x.dtype)
        for block in self.blocks:
            x = block(x, mask, condition)
        return x
