"""Chunked attention is attention with a large mask, at any length."""

import pytest
import torch
from torch.nn import functional as F

from speechbrain_flowmac.lobes.chunked_attention import (
    chunk_mask,
    chunked_attention,
)
from speechbrain_flowmac.lobes.transformer import Transformer, attention_mask


def noise(seed, *shape):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator).double()


def large_mask(frames, mask, window):
    """[B or 1, 1, N, N], from what a window and padding mean."""
    n = torch.arange(frames)
    allowed = ((n[:, None] - n).abs() <= window)[None]
    if mask is not None:
        allowed = allowed & mask[:, None]
    return (allowed | torch.eye(frames, dtype=torch.bool)).unsqueeze(1)


@pytest.mark.parametrize("window", [1, 3, 8])
@pytest.mark.parametrize("frames", [1, 7, 8, 9, 50])
@pytest.mark.parametrize("padded", [False, True])
def test_it_is_attention_with_one_large_mask(window, frames, padded):
    q, k, v = (noise(i, 3, 2, frames, 4).requires_grad_() for i in range(3))
    mask = None
    if padded:
        lengths = torch.tensor([frames, 1, 0])
        mask = torch.arange(frames) < lengths[:, None]
    found = chunked_attention(q, k, v, chunk_mask(frames, mask, window, "cpu"))
    expected = F.scaled_dot_product_attention(
        q, k, v, large_mask(frames, mask, window)
    )
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-12)
    weight = noise(9, *found.shape)
    for a, b in zip(
        torch.autograd.grad((found * weight).sum(), (q, k, v)),
        torch.autograd.grad((expected * weight).sum(), (q, k, v)),
        strict=True,
    ):
        torch.testing.assert_close(a, b, rtol=0, atol=1e-12)


def test_transformers_change_over_without_a_trace(monkeypatch):
    """Long signals, in chunks, come out as from one large mask."""
    torch.manual_seed(0)
    trunk = Transformer(8, 2, num_heads=2, window=3).double()
    x = noise(0, 2, 40, 8)
    mask = torch.arange(40) < torch.tensor([40, 21])[:, None]
    assert attention_mask(12, None, 3, "cpu").dim() == 4
    assert attention_mask(13, None, 3, "cpu").dim() == 5
    found = trunk(x, mask)
    monkeypatch.setattr(
        "speechbrain_flowmac.lobes.transformer.attention_mask",
        lambda frames, mask, window, device: large_mask(frames, mask, window),
    )
    torch.testing.assert_close(found, trunk(x, mask), rtol=0, atol=1e-12)


def test_hours_fit_into_memory_and_come_out_as_seconds_do():
    """One large mask would have 10^10 entries."""
    torch.manual_seed(0)
    trunk = Transformer(8, 2, num_heads=1, window=8).eval()
    x = noise(0, 1, 100_000, 8).float()
    with torch.no_grad():
        whole = trunk(x)
        first, reach = 99_000, trunk.receptive_field
        part = trunk(x[:, first - reach : first + 100 + reach])
    torch.testing.assert_close(
        whole[:, first : first + 100],
        part[:, reach:-reach],
        rtol=0,
        atol=1e-5,
    )
