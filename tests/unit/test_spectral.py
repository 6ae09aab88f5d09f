"""STFT pair: reconstruction, framing and masks."""

import pytest
import torch

from speechbrain_flowmac.lobes.spectral import FramedSTFT

SIZES = [(64, 16), (64, 32), (96, 32), (128, 16)]


def noise(seed, *shape):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator, dtype=torch.float64)


@pytest.mark.parametrize("frames", [1, 2, 3, 20])
@pytest.mark.parametrize("n_fft, hop", SIZES)
def test_signals_are_reconstructed(n_fft, hop, frames):
    stft = FramedSTFT(n_fft, hop).double()
    signal = noise(0, 2, frames * hop)
    spectrum = stft(signal)
    assert spectrum.shape == (2, frames, n_fft // 2 + 1)
    torch.testing.assert_close(stft.inverse(spectrum), signal)


@pytest.mark.parametrize("n_fft, hop", SIZES)
def test_frames_are_centred_on_their_hops(n_fft, hop):
    """An impulse amid hop f is loudest in frame f."""
    stft = FramedSTFT(n_fft, hop)
    for frame in range(8):
        signal = torch.zeros(1, 8 * hop)
        signal[0, frame * hop + hop // 2] = 1.0
        assert stft(signal).abs().sum(-1)[0].argmax() == frame


@pytest.mark.parametrize("n_fft, hop", SIZES)
def test_items_of_a_batch_end_where_they_end(n_fft, hop):
    """Any spectrum, not only one that is that of a signal."""
    stft = FramedSTFT(n_fft, hop).double()
    lengths = [1, 5, 9]
    shape = (3, 9, n_fft // 2 + 1)
    spectrum = torch.complex(noise(0, *shape), noise(1, *shape))
    mask = torch.arange(9) < torch.tensor(lengths)[:, None]
    batch = stft.inverse(spectrum, mask)
    for i, frames in enumerate(lengths):
        single = stft.inverse(spectrum[i : i + 1, :frames])
        torch.testing.assert_close(batch[i : i + 1, : frames * hop], single)


@pytest.mark.parametrize("n_fft, hop", SIZES)
def test_items_of_a_batch_are_silent_past_their_end(n_fft, hop):
    stft = FramedSTFT(n_fft, hop).double()
    spectrum = torch.complex(*noise(0, 2, 1, 9, n_fft // 2 + 1))
    mask = torch.arange(9)[None] < 4
    assert not stft.inverse(spectrum, mask)[:, 4 * hop :].any()


def test_synthesis_is_linear_and_has_gradients():
    stft = FramedSTFT(64, 16).double()
    shape = (1, 6, 33)
    a = torch.complex(noise(0, *shape), noise(1, *shape))
    b = torch.complex(noise(2, *shape), noise(3, *shape))
    torch.testing.assert_close(
        stft.inverse(2 * a - b), 2 * stft.inverse(a) - stft.inverse(b)
    )
    a.requires_grad_()
    stft.inverse(a).square().sum().backward()
    assert a.grad.isfinite().all() and a.grad.abs().sum() > 0


@pytest.mark.parametrize("n_fft, hop", [(64, 24), (96, 64), (33, 22)])
def test_hops_that_do_not_fit_are_refused(n_fft, hop):
    with pytest.raises(ValueError, match=f"{n_fft} and {hop}"):
        FramedSTFT(n_fft, hop)


def test_odd_differences_are_refused():
    with pytest.raises(ValueError, match="even"):
        FramedSTFT(66, 33)
    assert FramedSTFT(99, 33).pad == 33


def test_nothing_is_saved():
    assert not FramedSTFT(64, 16).state_dict()
