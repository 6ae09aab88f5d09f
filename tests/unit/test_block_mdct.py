"""The MDCT of finite signals: as many frames as hops, nothing lost."""

import pytest
import torch

from speechbrain_flowmac.lobes.block_mdct import BlockMDCT
from speechbrain_flowmac.lobes.mdct import MDCT, kbd_window, sine_window

WINDOWS = {"sine": sine_window, "kbd": kbd_window}
TOLERANCES = {torch.float32: 1e-6, torch.float64: 1e-12}


def noise(seed, *shape, dtype=torch.float64):
    generator = torch.Generator().manual_seed(seed)
    return 2 * torch.rand(*shape, generator=generator, dtype=dtype) - 1


@pytest.fixture(params=WINDOWS)
def window(request):
    return WINDOWS[request.param]


@pytest.mark.parametrize("frames", [1, 2, 5])
@pytest.mark.parametrize("hop", [2, 8, 30])
def test_the_transform_is_an_orthogonal_matrix(hop, frames, window):
    mdct, size = BlockMDCT(hop, window), hop * frames
    identity = torch.eye(size, dtype=torch.float64)
    matrix = mdct.to_tokens(identity).flatten(1)
    assert matrix.shape == (size, size)
    torch.testing.assert_close(matrix @ matrix.T, identity, rtol=0, atol=1e-12)
    back = mdct.from_tokens(identity.unflatten(1, (frames, hop)))
    torch.testing.assert_close(back, matrix.T, rtol=0, atol=1e-12)


def test_frames_inside_are_those_of_the_mdct_half_a_hop_later(window):
    hop, signal = 8, noise(0, 2, 6 * 8)
    inside = BlockMDCT(hop, window).to_tokens(signal)[:, 1:-1]
    delayed = torch.nn.functional.pad(signal, (hop // 2, hop // 2))
    expected = MDCT(hop, window).to_tokens(delayed)[:, 2:-2]
    torch.testing.assert_close(inside, expected[:, :4], rtol=0, atol=1e-12)


@pytest.mark.parametrize("dtype", TOLERANCES)
@pytest.mark.parametrize("samples", [1, 511, 512, 513, 24000])
def test_signals_are_reconstructed(dtype, samples, window):
    mdct, signal = BlockMDCT(512, window), noise(1, 2, samples, dtype=dtype)
    tokens = mdct.to_tokens(signal)
    assert tokens.dtype == dtype
    assert tokens.shape == (2, mdct.num_tokens(samples), 512)
    assert mdct.num_tokens(samples) == -(-samples // 512)
    again = mdct.from_tokens(tokens, samples)
    assert again.shape == signal.shape and again.dtype == dtype
    assert (again - signal).abs().max() < TOLERANCES[dtype]


def test_items_end_where_each_ends(window):
    lengths = torch.tensor([40, 17, 8, 1])
    mdct, wav = BlockMDCT(8, window), noise(2, 4, 40)
    wav = wav * (torch.arange(40) < lengths[:, None])
    tokens, frames = mdct.to_tokens(wav, lengths), -(-lengths // 8)
    garbage = torch.arange(5) >= frames[:, None]
    spoilt = tokens.masked_fill(garbage.unsqueeze(-1), 7.0)
    again = mdct.from_tokens(spoilt, num_tokens=frames)
    torch.testing.assert_close(again, wav, rtol=0, atol=1e-12)
    for item, found, length in zip(wav, tokens, lengths, strict=True):
        alone = mdct.to_tokens(item[None, :length])[0]
        torch.testing.assert_close(found[: len(alone)], alone)


def test_gradients_are_those_of_the_inverse(window):
    """The transform is orthonormal, so its transpose is its inverse."""
    mdct = BlockMDCT(8, window)
    signal = noise(3, 1, 24).requires_grad_()
    weights = noise(4, 1, 3, 8)
    (mdct.to_tokens(signal) * weights).sum().backward()
    torch.testing.assert_close(signal.grad, mdct.from_tokens(weights))


def test_impossible_arguments_are_refused():
    with pytest.raises(ValueError, match="even, found 15"):
        BlockMDCT(15)
    mdct = BlockMDCT(8)
    with pytest.raises(ValueError, match=r"\[B, F >= 1, 8\].*\[1, 3, 7\]"):
        mdct.from_tokens(torch.zeros(1, 3, 7))
    with pytest.raises(ValueError, match="3 frames hold up to 24.*=25"):
        mdct.from_tokens(torch.zeros(1, 3, 8), 25)
