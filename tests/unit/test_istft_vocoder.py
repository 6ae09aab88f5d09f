"""Frame-rate vocoders and their heads; the rest is in `test_vocoder`."""

import math

import pytest
import torch
from tiny_vocoders import (
    HEADS,
    HOP,
    SETTINGS,
    free_phase,
    harmonic,
    harmonic_and_free,
    multi_band,
    noise,
)
from torch import nn

from speechbrain_flowmac.lobes.convnext import ConvNeXt
from speechbrain_flowmac.lobes.istft_vocoder import (
    FreePhaseHead,
    HarmonicNoiseHead,
    ISTFTVocoder,
    MultiBandHead,
)
from speechbrain_flowmac.lobes.pitch import PitchPredictor
from speechbrain_flowmac.lobes.pqmf import PQMF
from speechbrain_flowmac.lobes.spectral import FramedSTFT
from speechbrain_flowmac.lobes.transformer import Transformer


@pytest.fixture(params=HEADS)
def make(request):
    return HEADS[request.param]


@pytest.mark.parametrize("frames", [1, 2, 3, 17])
@pytest.mark.parametrize("upsample", [1, 2, 4])
def test_there_is_one_hop_of_samples_per_frame(make, upsample, frames):
    wav = make(upsample)(noise(0, 2, frames, 10))
    assert wav.shape == (2, frames * HOP) and wav.dtype == torch.float32
    assert wav.isfinite().all() and wav.abs().max() > 0


@pytest.mark.parametrize("size", [4, 30])
@pytest.mark.parametrize("upsample, overlap", [(1, 4), (4, 8)])
def test_chunks_join_at_any_hop(make, upsample, overlap, size):
    vocoder, mel = make(upsample, overlap), 2 * noise(1, 2, 30, 10)
    whole, state, parts = vocoder(mel), vocoder.start(), []
    reach = vocoder.receptive_field
    for start in range(0, 30, size):
        before = min(reach, start)
        end = min(start + size, 30)
        after = min(reach, 30 - end)
        part = mel[:, start - before : end + after]
        parts.append(vocoder(part, state=state, context=(before, after)))
    tolerance = 1e-3 * whole.abs().max().item()
    torch.testing.assert_close(
        torch.cat(parts, dim=1), whole, atol=tolerance, rtol=0
    )


def test_the_test_signals_have_both_voiced_and_unvoiced_frames():
    pitch = harmonic().head.pitch(2 * noise(1, 2, 30, 10))
    assert 0.1 < pitch.voiced.float().mean() < 0.9
    assert pitch.f0.std() > 20


@pytest.mark.parametrize("outside", ["before", "after"])
def test_receptive_field_is_a_bound(make, outside):
    """The phase apart, which every frame before adds to."""
    vocoder = make()
    reach = vocoder.receptive_field
    mel = noise(0, 1, 2 * reach + 9, 10)
    middle = reach + 4
    other = mel.clone()
    if outside == "before":
        other[:, : middle - reach] += 2.0
    else:
        other[:, middle + reach + 1 :] += 2.0

    def made(mel):
        state = vocoder.start()
        # what a phase is counted from
        state.anchor = middle
        return vocoder(mel, state=state)

    first, second = made(mel), made(other)
    kept = slice(middle * HOP, (middle + 1) * HOP)
    torch.testing.assert_close(
        first[:, kept], second[:, kept], atol=1e-4, rtol=0
    )
    assert (first - second).abs().max() > 0.01


def pitched(trunk, upsample=2):
    pitch = PitchPredictor(10, trunk, upsample)
    return HarmonicNoiseHead(12, FramedSTFT(64, 16), pitch, 8000)


def test_pitch_at_another_rate_is_refused():
    head = pitched(ConvNeXt(12, 1), upsample=4)
    with pytest.raises(ValueError, match=r"4 times .*\(16\) asks for 2"):
        ISTFTVocoder(SETTINGS, ConvNeXt(12, 1), head)


def test_unbounded_trunks_are_told():
    stft = FramedSTFT(64, 16)
    trunk = Transformer(12, 1, num_heads=2)
    vocoder = ISTFTVocoder(SETTINGS, trunk, FreePhaseHead(12, stft))
    assert vocoder.receptive_field is None
    vocoder = ISTFTVocoder(SETTINGS, ConvNeXt(12, 1), pitched(trunk))
    assert vocoder.receptive_field is None


def with_gains(pulses, noise):
    """A harmonic vocoder with constant log gains of its two sources."""
    vocoder = harmonic()
    project, bins = vocoder.head.project, vocoder.head.stft.num_bins
    project.weight.data.zero_()
    project.bias.data[:bins] = pulses
    project.bias.data[bins : 2 * bins] = 0.0
    project.bias.data[2 * bins :] = noise
    return vocoder


def test_seeds_change_the_noise_only():
    mel = 2 * noise(1, 2, 12, 10)

    def sound(vocoder, seed):
        return vocoder(mel, state=vocoder.start(seed))

    pulses = with_gains(pulses=0.0, noise=-200.0)
    assert torch.equal(sound(pulses, 1), sound(pulses, 2))
    hiss = with_gains(pulses=-200.0, noise=0.0)
    difference = sound(hiss, 1) - sound(hiss, 2)
    assert difference.std() > 0.5
    assert torch.equal(sound(hiss, 1), sound(hiss, 1))
    both = with_gains(pulses=0.0, noise=0.0)
    torch.testing.assert_close(
        sound(both, 1) - sound(both, 2), difference, atol=1e-4, rtol=0
    )


def test_gains_of_one_give_the_sources_back():
    mel = 2 * noise(1, 1, 12, 10)
    wav = with_gains(pulses=-200.0, noise=0.0)(mel)
    assert wav.square().mean().item() == pytest.approx(1.0, abs=0.2)


def test_free_branch_adds_what_a_free_head_makes():
    mel = 2 * noise(1, 1, 12, 10)
    both, sources, free = harmonic_and_free(), harmonic(), free_phase()
    head = both.head
    rows = 3 * head.stft.num_bins
    head.project.bias.data[rows:] = 0.0
    for part in (sources, free):
        for name in ("embed", "norm_in", "split", "trunk", "norm_out"):
            state = both.get_submodule(name).state_dict()
            part.get_submodule(name).load_state_dict(state)
    sources.head.pitch.load_state_dict(head.pitch.state_dict())
    for name, value in head.project.named_parameters():
        setattr(sources.head.project, name, nn.Parameter(value[:rows]))
        setattr(free.head.project, name, nn.Parameter(value[rows:]))
    assert free(mel).std() > 0.1
    torch.testing.assert_close(
        both(mel), sources(mel) + free(mel), atol=1e-4, rtol=1e-4
    )


def test_magnitudes_are_bounded():
    vocoder = free_phase()
    vocoder.head.project.bias.data.fill_(1e4)
    assert vocoder(noise(0, 1, 9, 10)).isfinite().all()


def test_sub_bands_reach_every_phase():
    head = multi_band().head
    phase = head.bounded(torch.linspace(-2, 2, 10001))
    assert phase.abs().max() <= math.pi
    reached = phase.histc(bins=100, min=-math.pi, max=math.pi)
    assert (reached > 0).all()


def test_sub_bands_sound_in_their_band():
    """With the magnitudes of one band only."""
    for band in range(2):
        vocoder = multi_band()
        project = vocoder.head.project
        log_magnitudes = project.bias.data.view(2, 2, -1)[0]
        log_magnitudes[:] = -200.0
        log_magnitudes[band] = 0.0
        project.weight.data.view(2, -1, 12)[0] = 0.0
        spectrum = torch.fft.rfft(vocoder(2 * noise(1, 1, 40, 10))[0]).abs()
        halves = spectrum[:-1].view(2, -1).square().sum(-1)
        assert halves[band] > 10 * halves[1 - band]


@pytest.mark.parametrize("hop", [24, 64])
@pytest.mark.parametrize("num_bands", [1, 2])
def test_hops_that_do_not_fit_are_refused(num_bands, hop):
    stft = FramedSTFT(4 * hop // num_bands, hop // num_bands)
    if num_bands == 1:
        head = FreePhaseHead(12, stft)
    else:
        head = MultiBandHead(12, stft, PQMF(num_bands, 30))
    with pytest.raises(ValueError, match=rf"\({HOP}\).*\({hop}\)"):
        ISTFTVocoder(SETTINGS, ConvNeXt(12, 1), head)
