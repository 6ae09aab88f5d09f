"""Attention with a window, in chunks: cost grows with N, not with N^2.

Queries are cut into chunks as long as the window; the keys that a chunk can
see are its own and those of the chunks on either side.

    keys      [ chunk 0 ][ chunk 1 ][ chunk 2 ][ chunk 3 ]
    queries                         [ chunk 2 ]
    seen                 [. . . . . . . . . . . . . . . .]

The result is that of one large mask, as in Longformer (2004.05150).
"""

import torch
from torch.nn import functional as F


def chunk_mask(num_frames, mask, window, device):
    """Which frames of a chunk see which of the three chunks around it.

    Arguments
    ---------
    num_frames : int
        Number of frames N.
    mask : torch.Tensor or None
        Shape [B, N], True where valid.
    window : int
        How many frames w a frame sees on each side, 1 or more.
    device : torch.device
        Where to make it.

    Returns
    -------
    torch.Tensor
        Shape [B or 1, M, 1, w, 3 w] for M = ceil(N / w) chunks.

    Example
    -------
    >>> chunk_mask(3, None, 2, "cpu").int()[0, :, 0]
    tensor([[[0, 0, 1, 1, 1, 0],
             [0, 0, 1, 1, 1, 0]],
    <BLANKLINE>
            [[1, 1, 1, 0, 0, 0],
             [0, 1, 1, 1, 0, 0]]], dtype=torch.int32)
    """
    if mask is None:
        mask = torch.ones(1, num_frames, dtype=torch.bool, device=device)
    keys = _around(mask, window)
    query = torch.arange(window, device=device)[:, None]
    distance = torch.arange(3 * window, device=device) - window - query
    near, itself = distance.abs() <= window, distance == 0
    # a query with no key at all would make NaN: let it see itself
    return ((near & keys[:, :, None]) | itself).unsqueeze(2)


def chunked_attention(q, k, v, mask):
    """Scaled dot-product attention within chunks.

    Arguments
    ---------
    q, k, v : torch.Tensor
        Shape [B, heads, N, d].
    mask : torch.Tensor
        From `chunk_mask`.

    Returns
    -------
    torch.Tensor
        Shape [B, heads, N, d].
    """
    batch, _, frames, _ = q.shape
    chunks, window = mask.shape[1], mask.shape[3]
    q = F.pad(q, (0, 0, 0, chunks * window - frames))
    q = q.unflatten(2, (chunks, window)).transpose(1, 2)
    k, v = (_around(x.movedim(2, -1), window) for x in (k, v))
    k, v = (x.permute(0, 3, 1, 4, 2) for x in (k, v))
    y = F.scaled_dot_product_attention(
        q.flatten(0, 1),
        k.flatten(0, 1),
        v.flatten(0, 1),
        attn_mask=mask.expand(batch, -1, -1, -1, -1).flatten(0, 1),
    )
    y = y.unflatten(0, (batch, chunks)).transpose(1, 2)
    return y.flatten(2, 3)[:, :, :frames]


def _around(x, window):
    """[..., N] to [..., M, 3 w]: each chunk between its neighbours, 0 beyond."""
    missing = -x.shape[-1] % window
    return F.pad(x, (window, window + missing)).unfold(-1, 3 * window, window)
