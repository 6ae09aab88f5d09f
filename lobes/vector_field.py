"""Vector fields v(x, t | mu) of the flow, in one dimension.

`UNetField` is the paper's; `ConvNeXtField` has a finite receptive field and
runs fast on CPUs; `lobes.residual_field` wraps either, so that it starts from
the field of a Gaussian around mu.

All take `field(x [B, N, M], t, mu [B, N, M], mask [B, N]) -> v [B, N, M]`
where t is one time [B] or, for fields made with several, [B, num_times].
Attributes: `receptive_field` (frames seen on each side, or None if unbounded)
and `alignment` (parts of a signal must start at a multiple of so many frames).
"""

import math

import torch
from torch import nn
from torch.nn import functional as F

from speechbrain_flowmac.lobes.residual_field import (
    MeanResidualField,
    ResidualField,
)
from speechbrain_flowmac.lobes.transformer import (
    TransformerBlock,
    attention_mask,
    rotary_tables,
)

__all__ = [
    "ConvNeXtField",
    "MeanResidualField",
    "ResidualConv",
    "ResidualField",
    "TimeEmbedding",
    "UNetField",
    "zero_init",
]


class TimeEmbedding(nn.Module):
    """Sinusoids of t, then an MLP.

    Times are multiplied first: the sinusoids were made for step counts of
    diffusion models and would barely move over 0..1.

    Arguments
    ---------
    dim : int
        Width of the embedding, even.
    num_times : int
        1 for v(x, t); 2 for the mean velocity u(x, t, r); more where a field
        is told of its guidance, see `lobes.improved_mean_flow`.
    scale : float
        What times are multiplied by. Mean flows learn the slope along time,
        which grows with it: 10 can serve them better (`docs/mdct.md`).

    Example
    -------
    >>> TimeEmbedding(8)(torch.rand(3)).shape
    torch.Size([3, 8])
    >>> TimeEmbedding(8, num_times=2)(torch.rand(3, 2)).shape
    torch.Size([3, 8])
    """

    def __init__(self, dim, num_times=1, scale=1000.0):
        super().__init__()
        self.scale = scale
        self.dim = dim
        self.num_times = num_times
        self.mlp = nn.Sequential(
            nn.Linear(dim * num_times, dim), nn.SiLU(), nn.Linear(dim, dim)
        )

    def forward(self, t):
        """[B] or [B, num_times] to [B, dim]."""
        t = t.to(torch.promote_types(t.dtype, torch.float32))
        t = t.reshape(len(t), -1)
        if t.shape[1] != self.num_times:
            raise ValueError(
                f"expected {self.num_times} time(s) per item, found "
                f"{t.shape[1]}"
            )
        half = self.dim // 2
        steps = torch.arange(half, device=t.device, dtype=torch.float32)
        frequencies = torch.exp(-math.log(10000.0) * steps / half)
        angles = self.scale * t[..., None] * frequencies
        waves = torch.cat([angles.sin(), angles.cos()], dim=-1)
        return self.mlp(waves.flatten(1).to(self.mlp[0].weight.dtype))


def zero_init(layer):
    """Zeroes a layer, so that a network starts as if it were not there.

    Arguments
    ---------
    layer : torch.nn.Linear
        Changed in place.

    Returns
    -------
    torch.nn.Linear
        The same layer.
    """
    nn.init.zeros_(layer.weight)
    nn.init.zeros_(layer.bias)
    return layer


class ConvNeXtField(nn.Module):
    """A ConvNeXt trunk over the concatenation of x and mu.

    Arguments
    ---------
    n_mels : int
        Mel bands M.
    trunk : ConvNeXt
        With a `condition_dim`, to which time is embedded.
    num_times, time_scale
        See `TimeEmbedding`.

    Example
    -------
    >>> from speechbrain_flowmac.lobes.convnext import ConvNeXt
    >>> field = ConvNeXtField(4, ConvNeXt(8, 2, condition_dim=6))
    >>> x = torch.randn(2, 5, 4)
    >>> field(x, torch.rand(2), x).shape
    torch.Size([2, 5, 4])
    """

    def __init__(self, n_mels, trunk, num_times=1, time_scale=1000.0):
        super().__init__()
        width = trunk.blocks[0].condition.in_features
        self.time = TimeEmbedding(width, num_times, time_scale)
        self.project_in = nn.Linear(2 * n_mels, trunk.dim)
        self.trunk = trunk
        self.norm = nn.LayerNorm(trunk.dim)
        self.project_out = zero_init(nn.Linear(trunk.dim, n_mels))
        self.receptive_field = trunk.receptive_field
        self.alignment = 1

    def forward(self, x, t, mu, mask=None):
        """The field at (x, t), given mu."""
        h = torch.cat([x, mu], dim=-1).to(self.project_in.weight.dtype)
        h = self.project_in(h)
        h = self.trunk(h, mask, F.silu(self.time(t)))
        return self.project_out(self.norm(h))


class ResidualConv(nn.Module):
    """Two convolutions with time added between, and a shortcut.

    Norms act on each frame alone: a norm over time would let padding and
    distant frames in.

    Arguments
    ---------
    in_dim : int
        Input channels.
    dim : int
        Output channels.
    time_dim : int
        Width of the time embedding.

    Example
    -------
    >>> block = ResidualConv(4, 8, 6)
    >>> block(
    ...     torch.randn(2, 5, 4), torch.ones(2, 5, 1), torch.randn(2, 6)
    ... ).shape
    torch.Size([2, 5, 8])
    """

    def __init__(self, in_dim, dim, time_dim):
        super().__init__()
        self.norm_in = nn.LayerNorm(in_dim)
        self.conv_in = nn.Conv1d(in_dim, dim, 3, padding=1)
        self.time = nn.Linear(time_dim, dim)
        self.norm_out = nn.LayerNorm(dim)
        self.conv_out = nn.Conv1d(dim, dim, 3, padding=1)
        self.shortcut = nn.Linear(in_dim, dim)

    def forward(self, x, mask, time):
        """x [B, N, in_dim], mask [B, N, 1], time [B, time_dim]."""
        h = F.silu(self.norm_in(x)) * mask
        h = self.conv_in(h.mT).mT + self.time(time).unsqueeze(1)
        h = F.silu(self.norm_out(h)) * mask
        return self.shortcut(x) + self.conv_out(h.mT).mT


class UNetField(nn.Module):
    """1-D U-Net with transformer blocks, as in Matcha-TTS (2309.03199).

    Each level down halves the frame rate by a strided convolution and each
    level up doubles it; levels hold one `ResidualConv` and one transformer
    block. A coarse frame is valid if any of its fine frames is.

    Arguments
    ---------
    n_mels : int
        Mel bands M.
    dims : sequence of int
        Channels of the levels, fine to coarse.
    num_heads : int
        Attention heads.
    num_mid_blocks : int
        Blocks at the coarsest rate.
    dropout : float
        In the transformer blocks.
    window : int or None
        Frames (of its own rate) that an attention block sees on each side;
        None for all.
    num_times, time_scale
        See `TimeEmbedding`.

    Example
    -------
    >>> field = UNetField(4, dims=(8, 8), num_heads=2)
    >>> x = torch.randn(2, 5, 4)
    >>> field(x, torch.rand(2), x).shape
    torch.Size([2, 5, 4])
    """

    def __init__(
        self,
        n_mels,
        dims=(256, 256),
        num_heads=4,
        num_mid_blocks=2,
        dropout=0.0,
        window=None,
        num_times=1,
        time_scale=1000.0,
    ):
        super().__init__()
        self.window = window
        self.head_dim = dims[0] // num_heads
        if any(dim // num_heads != self.head_dim for dim in dims):
            raise ValueError(f"all levels must have one width, found {dims}")
        time_dim = 4 * dims[0]
        self.time = TimeEmbedding(time_dim, num_times, time_scale)

        def level(in_dim, dim):
            return nn.ModuleList(
                [
                    ResidualConv(in_dim, dim, time_dim),
                    TransformerBlock(dim, num_heads, 4 * dim, dropout),
                ]
            )

        ins = (2 * n_mels, *dims[:-1])
        self.down = nn.ModuleList(map(level, ins, dims))
        self.shrink = nn.ModuleList(
            nn.Conv1d(dim, dim, 3, stride=2, padding=1) for dim in dims[:-1]
        )
        self.mid = nn.ModuleList(
            level(dims[-1], dims[-1]) for _ in range(num_mid_blocks)
        )
        coarse_first = dims[::-1]
        self.up = nn.ModuleList(
            level(2 * dim, nxt)
            for dim, nxt in zip(
                coarse_first, (*coarse_first[1:], dims[0]), strict=True
            )
        )
        self.grow = nn.ModuleList(
            nn.ConvTranspose1d(dim, dim, 4, stride=2, padding=1)
            for dim in coarse_first[1:]
        )
        self.norm = nn.LayerNorm(dims[0])
        self.project_out = zero_init(nn.Linear(dims[0], n_mels))

    @property
    def receptive_field(self):
        """Frames seen on each side, or None if unbounded."""
        if self.window is None:
            return None
        levels = len(self.down)
        reach = 0
        for depth in range(levels):
            # down and up: 2 convolutions and one attention each, + resampling
            reach += 2 * (2 + self.window + 1) << depth
        coarsest = 1 << (levels - 1)
        return reach + len(self.mid) * (2 + self.window) * coarsest + coarsest

    @property
    def alignment(self):
        """Fine frames per coarsest frame."""
        return 1 << len(self.shrink)

    def _level(self, level, x, mask, time):
        conv, transformer = level
        x = conv(x, mask, time)
        frames = x.shape[1]
        tables = rotary_tables(frames, self.head_dim, x.device)
        valid = mask.squeeze(-1).bool()
        allowed = attention_mask(frames, valid, self.window, x.device)
        return transformer(x, tables, allowed)

    def forward(self, x, t, mu, mask=None):
        """The field at (x, t), given mu."""
        frames = x.shape[1]
        if mask is None:
            mask = torch.ones(x.shape[:2], dtype=torch.bool, device=x.device)
        missing = -frames % (1 << len(self.shrink))
        h = torch.cat([x, mu], dim=-1).to(self.project_out.weight.dtype)
        h = F.pad(h, (0, 0, 0, missing))
        mask = F.pad(mask, (0, missing)).unsqueeze(-1).to(h.dtype)
        time = F.silu(self.time(t))
        skips, masks = [], [mask]
        for depth, level in enumerate(self.down):
            h = self._level(level, h, masks[-1], time)
            skips.append(h)
            if depth < len(self.shrink):
                h = self.shrink[depth]((h * masks[-1]).mT).mT
                pairs = masks[-1].unflatten(1, (-1, 2))
                masks.append(pairs.amax(2))
        for level in self.mid:
            h = self._level(level, h, masks[-1], time)
        for depth, level in enumerate(self.up):
            h = torch.cat([h, skips.pop()], dim=-1)
            h = self._level(level, h, masks[-1], time)
            if depth < len(self.grow):
                h = self.grow[depth]((h * masks.pop()).mT).mT
        return self.project_out(self.norm(h))[:, :frames]
