"""Transformer blocks with rotary positions and an attention window.

Positions enter attention only as differences (rotary embedding, Su et al.,
2104.09864), and a window bounds how far a frame looks: what was learnt on
short crops holds for any length, and the receptive field is finite. Long
signals are attended to in chunks, so that there is no limit to their length.
"""

import torch
from torch import nn
from torch.nn import functional as F

from speechbrain_flowmac.lobes.chunked_attention import (
    chunk_mask,
    chunked_attention,
)


def rotary_tables(length, dim, device, base=10000.0):
    """Cosines and sines of the rotary embedding.

    Arguments
    ---------
    length : int
        Number of positions N.
    dim : int
        Width of a head, even.
    device : torch.device
        Where to make them.
    base : float
        Base of the geometric series of wavelengths.

    Returns
    -------
    tuple of torch.Tensor
        Two tensors of shape [N, dim / 2].

    Example
    -------
    >>> cos, sin = rotary_tables(5, 8, "cpu")
    >>> cos.shape, sin[0].tolist()
    (torch.Size([5, 4]), [0.0, 0.0, 0.0, 0.0])
    """
    # in float32 an angle far out would be wrong by more than small ones are
    steps = torch.arange(0, dim, 2, device=device, dtype=torch.float64)
    frequencies = base ** (-steps / dim)
    positions = torch.arange(length, device=device, dtype=torch.float64)
    angles = positions[:, None] * frequencies
    return angles.cos().float(), angles.sin().float()


def rotate(x, tables):
    """Rotates pairs of channels by their position's angle.

    Arguments
    ---------
    x : torch.Tensor
        Shape [..., N, dim].
    tables : tuple of torch.Tensor
        From `rotary_tables`.

    Returns
    -------
    torch.Tensor
        Same shape as `x`.

    Example
    -------
    >>> x = torch.randn(3, 5, 8)
    >>> rotate(x, rotary_tables(5, 8, "cpu")).norm().allclose(x.norm())
    True
    """
    cos, sin = (table.to(x.dtype) for table in tables)
    a, b = x.chunk(2, dim=-1)
    return torch.cat([a * cos - b * sin, a * sin + b * cos], dim=-1)


class KeyValueCache:
    """Keys and values of the positions that a block has seen.

    With it a block that looks only back is given what is new alone.

    Example
    -------
    >>> cache = KeyValueCache()
    >>> for frames in (3, 1):
    ...     k, v = cache.extend(*torch.randn(2, 1, 2, frames, 4))
    >>> k.shape
    torch.Size([1, 2, 4, 4])
    """

    def __init__(self):
        self.seen = None

    def extend(self, k, v):
        """Keys and values [B, heads, N, d], behind those of earlier calls."""
        if self.seen is not None:
            pairs = zip(self.seen, (k, v), strict=True)
            k, v = (torch.cat(pair, dim=2) for pair in pairs)
        self.seen = k, v
        return k, v


class TransformerBlock(nn.Module):
    """Pre-norm multi-head self-attention and feed-forward.

    Arguments
    ---------
    dim : int
        Width D.
    num_heads : int
        Attention heads; D / num_heads must be even.
    hidden_dim : int
        Width of the feed-forward layer.
    dropout : float
        Dropout probability after attention and after the feed-forward.

    Example
    -------
    >>> block = TransformerBlock(8, 2, 16)
    >>> block(torch.randn(2, 5, 8), rotary_tables(5, 4, "cpu")).shape
    torch.Size([2, 5, 8])
    """

    def __init__(self, dim, num_heads, hidden_dim, dropout=0.0):
        super().__init__()
        if dim % num_heads or (dim // num_heads) % 2:
            raise ValueError(
                f"dim / num_heads must be a whole even number, found "
                f"{dim} / {num_heads}"
            )
        self.num_heads = num_heads
        self.attention_norm = nn.LayerNorm(dim)
        self.qkv = nn.Linear(dim, 3 * dim)
        self.project = nn.Linear(dim, dim)
        self.feed_forward = nn.Sequential(
            nn.LayerNorm(dim),
            nn.Linear(dim, hidden_dim),
            nn.GELU(),
            nn.Linear(hidden_dim, dim),
            nn.Dropout(dropout),
        )
        self.dropout = nn.Dropout(dropout)

    def forward(self, x, tables, attention_mask=None, cache=None):
        """Applies the block.

        Arguments
        ---------
        x : torch.Tensor
            Shape [B, N, D].
        tables : tuple of torch.Tensor
            From `rotary_tables`, for the width of a head.
        attention_mask : torch.Tensor or None
            From `attention_mask`, or another of its shape.
        cache : KeyValueCache or None
            Of this block: `x` is what follows what it holds, and the columns
            of the mask are all positions.

        Returns
        -------
        torch.Tensor
            Shape [B, N, D].
        """
        heads = self.qkv(self.attention_norm(x)).unflatten(
            -1, (3, self.num_heads, -1)
        )
        q, k, v = heads.permute(2, 0, 3, 1, 4)
        q, k = rotate(q, tables), rotate(k, tables)
        if cache is not None:
            k, v = cache.extend(k, v)
        if attention_mask is not None and attention_mask.dim() == 5:
            y = chunked_attention(q, k, v, attention_mask)
        else:
            y = F.scaled_dot_product_attention(q, k, v, attention_mask)
        x = x + self.dropout(self.project(y.transpose(1, 2).flatten(2)))
        return x + self.feed_forward(x)


def attention_mask(num_frames, mask, window, device):
    """Which frames see which.

    Arguments
    ---------
    num_frames : int
        Number of frames N.
    mask : torch.Tensor or None
        Shape [B, N], True where valid.
    window : int or None
        How many frames a frame sees on each side; None for all.
    device : torch.device
        Where to make it.

    Returns
    -------
    torch.Tensor or None
        Shape [B or 1, 1, N, N], True where a query may look; for more than
        four windows of frames that of `chunk_mask`; None when every frame
        sees every other.

    Example
    -------
    >>> attention_mask(3, None, 1, "cpu").int().squeeze()
    tensor([[1, 1, 0],
            [1, 1, 1],
            [0, 1, 1]], dtype=torch.int32)
    """
    if window and num_frames > 4 * window:
        return chunk_mask(num_frames, mask, window, device)
    allowed = None
    if window is not None:
        position = torch.arange(num_frames, device=device)
        near = (position[:, None] - position[None]).abs() <= window
        allowed = near[None, None]
    if mask is not None:
        keys = mask[:, None, None, :]
        allowed = keys if allowed is None else allowed & keys
        # a padded query with no key at all would make NaN: let it see itself
        itself = torch.eye(num_frames, dtype=torch.bool, device=device)
        allowed = allowed | itself
    return allowed


class Transformer(nn.Module):
    """A stack of transformer blocks.

    Arguments
    ---------
    dim : int
        Width D.
    num_layers : int
        Number of blocks.
    num_heads : int
        Attention heads.
    hidden_dim : int or None
        Width of the feed-forward layers; None is 4 D.
    dropout : float
        Dropout probability.
    window : int or None
        Frames seen on each side by one block; None for all, which makes the
        receptive field infinite.
    identity : bool
        Start as the identity, where what comes in is already of use.

    Example
    -------
    >>> trunk = Transformer(8, num_layers=2, num_heads=2, window=4)
    >>> trunk(torch.randn(2, 5, 8), torch.ones(2, 5, dtype=torch.bool)).shape
    torch.Size([2, 5, 8])
    >>> trunk.receptive_field
    8
    """

    def __init__(
        self,
        dim,
        num_layers,
        num_heads,
        hidden_dim=None,
        dropout=0.0,
        window=None,
        identity=False,
    ):
        super().__init__()
        hidden_dim = 4 * dim if hidden_dim is None else hidden_dim
        self.dim = dim
        self.head_dim = dim // num_heads
        self.window = window
        self.blocks = nn.ModuleList(
            TransformerBlock(dim, num_heads, hidden_dim, dropout)
            for _ in range(num_layers)
        )
        self.receptive_field = None if window is None else num_layers * window
        for block in self.blocks if identity else ():
            for layer in (block.project, block.feed_forward[-2]):
                nn.init.zeros_(layer.weight)
                nn.init.zeros_(layer.bias)

    def forward(self, x, mask=None):
        """Applies all blocks.

        Arguments
        ---------
        x : torch.Tensor
            Shape [B, N, D].
        mask : torch.Tensor or None
            Shape [B, N], True where valid.

        Returns
        -------
        torch.Tensor
            Shape [B, N, D]. Frames that the mask excludes mean nothing.
        """
        tables = rotary_tables(x.shape[1], self.head_dim, x.device)
        allowed = attention_mask(x.shape[1], mask, self.window, x.device)
        for block in self.blocks:
            x = block(x, tables, allowed)
        return x
