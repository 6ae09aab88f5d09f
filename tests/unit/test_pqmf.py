"""Filter banks: reconstruction, separation, lengths, masks, gradients."""

import math

import pytest
import torch
from corpus import speech_like

from speechbrain_flowmac.lobes.pqmf import PQMF, LearnedSynthesis, SubBandSTFT
from speechbrain_flowmac.lobes.spectral import FramedSTFT

# orders of about 16 bands
BANKS = [(2, 30), (3, 46), (4, 62), (8, 126)]
JOINS = [PQMF, LearnedSynthesis]


def noise(seed, *shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def snr(signal, estimate):
    error = (signal - estimate).square().sum()
    return 10 * math.log10(signal.square().sum().item() / error.item())


def tone(frequency, samples=4800):
    """With `frequency` in cycles per sample, faded in and out."""
    wave = torch.cos(2 * math.pi * frequency * torch.arange(samples) + 0.4)
    return (wave * torch.hann_window(samples))[None]


def speech():
    wav = torch.as_tensor(speech_like(1.0, 0), dtype=torch.float32)
    return wav[None, :24000]


@pytest.mark.parametrize("num_bands, taps", BANKS)
@pytest.mark.parametrize("kind", ["noise", "speech"])
def test_signals_are_reconstructed_without_delay(kind, num_bands, taps):
    bank = PQMF(num_bands, taps)
    wav = {"noise": noise(0, 2, 24000), "speech": speech()}[kind]
    again = bank.synthesis(bank.analysis(wav))
    assert again.shape == wav.shape
    # at the ends of the signal some sub-band samples are missing
    inside = slice(taps, -taps)
    assert snr(wav[:, inside], again[:, inside]) > 62


@pytest.mark.parametrize("frequency", torch.linspace(0.005, 0.495, 30))
def test_aliases_of_tones_cancel(frequency):
    """At the edges of bands too, where each band alone folds them."""
    bank, wav = PQMF(), tone(frequency)
    again = bank.synthesis(bank.analysis(wav))
    assert snr(wav, again) > 57
    spectrum = torch.fft.rfft(again[0]).abs()
    peak = round(frequency.item() * wav.shape[1])
    spectrum[max(peak - 20, 0) : peak + 21] = 0.0
    assert spectrum.max() < 1e-3 * torch.fft.rfft(wav[0]).abs().max()


@pytest.mark.parametrize("num_bands, taps", BANKS)
def test_tones_come_out_of_their_band_alone(num_bands, taps):
    bank = PQMF(num_bands, taps)
    for k in range(num_bands):
        bands = bank.analysis(tone((k + 0.5) / (2 * num_bands), 4800))
        level = 10 * bands.square().mean(-1)[0].log10()
        others = [level[j] for j in range(num_bands) if j != k]
        assert max(others) - level[k] < -75


def test_tones_keep_their_amplitude_in_their_band():
    bands = PQMF().analysis(torch.cos(torch.arange(4800) * 0.4)[None])
    assert bands[0, 0, 50:-50].abs().max().item() == pytest.approx(1, abs=0.01)


@pytest.mark.parametrize("samples", [4, 8, 60, 4004])
def test_lengths_are_exact(samples):
    bank = PQMF()
    bands = bank.analysis(noise(0, 2, samples))
    assert bands.shape == (2, 4, samples // 4)
    assert bank.synthesis(bands).shape == (2, samples)


def test_wrong_shapes_are_refused():
    with pytest.raises(ValueError, match=r"\(4003\).*\(4\)"):
        PQMF().analysis(noise(0, 2, 4003))
    with pytest.raises(ValueError, match="even and positive, found 63"):
        PQMF(taps=63)
    for kind in JOINS:
        with pytest.raises(ValueError, match="expected 4 .* found 3"):
            kind().synthesis(noise(0, 2, 3, 10))


@pytest.mark.parametrize("kind", JOINS)
def test_synthesis_is_linear(kind):
    join = kind().synthesis
    a, b = noise(0, 2, 4, 50), noise(1, 2, 4, 50)
    torch.testing.assert_close(
        join(2 * a - b), 2 * join(a) - join(b), atol=1e-5, rtol=0
    )


def test_synthesis_reverses_the_analysis_in_time():
    """The one is the adjoint of the other, times the number of bands."""
    bank = PQMF()
    wav, bands = noise(0, 1, 400), noise(1, 1, 4, 100)
    inner = (bank.analysis(wav) * bands).sum()
    torch.testing.assert_close(
        (wav * bank.synthesis(bands)).sum(), 4 * inner, atol=1e-3, rtol=1e-4
    )


@pytest.mark.parametrize("kind", JOINS)
def test_a_sample_of_a_band_sounds_for_half_the_taps_on_each_side(kind):
    bank = kind(taps=30)
    bands = torch.zeros(1, 4, 40)
    bands[0, :, 20] = noise(0, 4)
    (sounding,) = bank.synthesis(bands)[0].nonzero(as_tuple=True)
    assert sounding.min() >= 80 - 15 and sounding.max() <= 80 + 15
    assert len(sounding) > 20


def test_bfloat16_of_autocast_does_not_add_noise():
    bank, wav = PQMF(), speech()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        again = bank.synthesis(bank.analysis(wav))
    assert torch.equal(again, bank.synthesis(bank.analysis(wav)))


def test_only_learned_filters_are_parameters():
    bank, learned = PQMF(), LearnedSynthesis()
    assert not list(bank.parameters()) and not bank.state_dict()
    assert [p.shape for p in learned.parameters()] == [(4, 1, 63)]


def test_learned_filters_start_as_the_filter_bank():
    learned, bank = LearnedSynthesis(), PQMF()
    bands = noise(0, 2, 4, 50)
    assert torch.equal(learned.synthesis(bands), bank.synthesis(bands))


def test_learned_synthesis_is_a_convolution_of_zero_stuffed_streams():
    learned, bands = LearnedSynthesis(), noise(0, 2, 4, 50)
    stuffed = torch.zeros(2, 4, 200)
    stuffed[:, :, ::4] = 4 * bands
    kernels = learned.filters.flip(-1).transpose(0, 1)
    expected = torch.nn.functional.conv1d(stuffed, kernels, padding=31)
    torch.testing.assert_close(
        learned.synthesis(bands), expected.squeeze(1), atol=1e-5, rtol=0
    )


def test_learned_filters_learn():
    """A delay of one sample, which no PQMF has."""
    learned, bank = LearnedSynthesis(), PQMF()
    wav = noise(0, 1, 4000)
    bands, target = bank.analysis(wav), wav.roll(1, 1)
    optimizer = torch.optim.Adam(learned.parameters(), lr=0.01)

    def loss():
        return (learned.synthesis(bands) - target)[:, 64:-64].square().mean()

    before = loss().item()
    for _ in range(100):
        optimizer.zero_grad()
        loss().backward()
        optimizer.step()
    assert loss() < 0.01 * before


@pytest.mark.parametrize("kind", JOINS)
def test_gradients_pass_to_all_bands(kind):
    bands = noise(0, 1, 4, 50).requires_grad_()
    kind().synthesis(bands).square().sum().backward()
    assert (bands.grad.abs().amax(dim=-1) > 0).all()


# Inverse STFTs of sub-bands


def spectra_of_bands(wav, bank, stft):
    spectra = stft(bank.analysis(wav).flatten(0, 1))
    spectra = spectra.unflatten(0, (-1, bank.num_bands)).transpose(1, 2)
    return spectra.flatten(2)


@pytest.mark.parametrize("kind", JOINS)
def test_signals_come_back_from_the_spectra_of_their_bands(kind):
    stft = FramedSTFT(64, 16)
    bands = SubBandSTFT(stft, kind())
    assert (bands.hop_length, bands.num_bins) == (64, 4 * 33)
    wav = noise(0, 2, 50 * 64)
    spectrum = spectra_of_bands(wav, PQMF(), stft)
    assert spectrum.shape == (2, 50, 4 * 33)
    again = bands.inverse(spectrum)
    assert snr(wav[:, 64:-64], again[:, 64:-64]) > 60


def spectrum_of_noise(*shape):
    return torch.complex(noise(0, *shape), noise(1, *shape))


@pytest.mark.parametrize("kind", JOINS)
def test_items_of_a_batch_end_where_they_end(kind):
    bands, lengths = SubBandSTFT(FramedSTFT(64, 16), kind()), [1, 5, 9]
    spectrum = spectrum_of_noise(3, 9, 4 * 33)
    mask = torch.arange(9) < torch.tensor(lengths)[:, None]
    batch = bands.inverse(spectrum, mask)
    for i, frames in enumerate(lengths):
        end = frames * 64
        single = bands.inverse(spectrum[i : i + 1, :frames])
        torch.testing.assert_close(batch[i : i + 1, :end], single)
        assert not batch[i, end:].any()
        # up to its end, not only until the filters ring out
        assert batch[i, end - 4 : end].all()


@pytest.mark.parametrize("n_fft, taps", [(64, 62), (128, 62), (32, 126)])
def test_a_frame_sounds_for_no_longer_than_is_told(n_fft, taps):
    bands = SubBandSTFT(FramedSTFT(n_fft, 16), PQMF(taps=taps))
    spectrum = spectrum_of_noise(1, 40, bands.num_bins)
    other = spectrum.clone()
    other[:, 20] *= 2.0
    change = (bands.inverse(other) - bands.inverse(spectrum))[0].abs()
    (sounding,) = (change > 1e-5).nonzero(as_tuple=True)
    assert sounding.max() - sounding.min() < bands.n_fft
    # the quiet ends of window and filters apart
    assert sounding.max() - sounding.min() > 0.8 * 4 * n_fft
