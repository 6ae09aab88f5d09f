"""ConvNeXt blocks over time: a trunk with a finite receptive field.

Source: Liu et al., "A ConvNet for the 2020s" (2201.03545), in one dimension
as in Vocos (2306.00814).
"""

import torch
from torch import nn
from torch.nn import functional as F


class DepthwiseConv(nn.Module):
    """Depthwise convolution of [B, N, D] with an odd kernel.

    A [B, N, D] tensor is a channels-last picture of height 1; as such it is
    several times faster on a CPU than a one-dimensional convolution, and
    needs no copy.

    Arguments
    ---------
    dim : int
        Channels D.
    kernel_size : int
        Odd number of frames.

    Example
    -------
    >>> DepthwiseConv(4, 7)(torch.randn(2, 9, 4)).shape
    torch.Size([2, 9, 4])
    """

    def __init__(self, dim, kernel_size):
        super().__init__()
        if kernel_size % 2 == 0:
            raise ValueError(f"kernel_size must be odd, found {kernel_size}")
        self.conv = nn.Conv2d(
            dim,
            dim,
            (1, kernel_size),
            padding=(0, kernel_size // 2),
            groups=dim,
        )

    def forward(self, x):
        """[B, N, D] to [B, N, D]."""
        return self.conv(x.transpose(1, 2).unsqueeze(2)).squeeze(2).mT


class ConvNeXtBlock(nn.Module):
    """Depthwise convolution, layer norm, two-layer MLP, layer scale.

    Arguments
    ---------
    dim : int
        Channels D.
    hidden_dim : int
        Width of the MLP.
    kernel_size : int
        Of the depthwise convolution, odd.
    layer_scale : float
        Start value of the scale of the residual branch.
    condition_dim : int or None
        Width of a conditioning vector that shifts and scales the normalised
        features (as adaptive layer norm does); None for no conditioning.

    Example
    -------
    >>> block = ConvNeXtBlock(8, 16)
    >>> block(torch.randn(2, 5, 8)).shape
    torch.Size([2, 5, 8])
    """

    def __init__(
        self,
        dim,
        hidden_dim,
        kernel_size=7,
        layer_scale=0.1,
        condition_dim=None,
    ):
        super().__init__()
        self.conv = DepthwiseConv(dim, kernel_size)
        self.norm = nn.LayerNorm(dim)
        self.expand = nn.Linear(dim, hidden_dim)
        self.reduce = nn.Linear(hidden_dim, dim)
        self.scale = nn.Parameter(torch.full((dim,), layer_scale))
        self.condition = None
        if condition_dim is not None:
            self.condition = nn.Linear(condition_dim, 2 * dim)
            nn.init.zeros_(self.condition.weight)
            nn.init.zeros_(self.condition.bias)

    def forward(self, x, mask=None, condition=None):
        """Applies the block.

        Arguments
        ---------
        x : torch.Tensor
            Shape [B, N, D].
        mask : torch.Tensor or None
            Shape [B, N, 1], 1 where valid. Frames are zeroed before the
            convolution, so that padding acts as the end of the signal.
        condition : torch.Tensor or None
            Shape [B, 1, condition_dim].

        Returns
        -------
        torch.Tensor
            Shape [B, N, D].
        """
        y = self.conv(x if mask is None else x * mask)
        y = self.norm(y)
        if self.condition is not None:
            shift, gain = self.condition(condition).chunk(2, dim=-1)
            y = y * (1 + gain) + shift
        y = self.reduce(F.gelu(self.expand(y)))
        return x + self.scale * y


class ConvNeXt(nn.Module):
    """A stack of ConvNeXt blocks.

    Arguments
    ---------
    dim : int
        Channels D.
    num_layers : int
        Number of blocks.
    hidden_dim : int or None
        Width of the MLPs; None is 3 D.
    kernel_size : int
        Of the depthwise convolutions, odd.
    condition_dim : int or None
        See `ConvNeXtBlock`.

    Example
    -------
    >>> trunk = ConvNeXt(8, num_layers=2)
    >>> trunk(torch.randn(2, 5, 8), torch.ones(2, 5, dtype=torch.bool)).shape
    torch.Size([2, 5, 8])
    >>> trunk.receptive_field
    6
    """

    def __init__(
        self,
        dim,
        num_layers,
        hidden_dim=None,
        kernel_size=7,
        condition_dim=None,
    ):
        super().__init__()
        hidden_dim = 3 * dim if hidden_dim is None else hidden_dim
        self.dim = dim
        self.blocks = nn.ModuleList(
            ConvNeXtBlock(
                dim, hidden_dim, kernel_size, 1 / num_layers, condition_dim
            )
            for _ in range(num_layers)
        )
        # frames that an output frame sees on each side
        self.receptive_field = num_layers * (kernel_size // 2)

    def forward(self, x, mask=None, condition=None):
        """Applies all blocks.

        Arguments
        ---------
        x : torch.Tensor
            Shape [B, N, D].
        mask : torch.Tensor or None
            Shape [B, N], True where valid.
        condition : torch.Tensor or None
            Shape [B, condition_dim].

        Returns
        -------
        torch.Tensor
            Shape [B, N, D]. Frames that the mask excludes mean nothing.
        """
        if mask is not None:
            mask = mask.unsqueeze(-1).to(x.dtype)
        if condition is not None:
            condition = condition.unsqueeze(1)
        for block in self.blocks:
            x = block(x, mask, condition)
        return x
