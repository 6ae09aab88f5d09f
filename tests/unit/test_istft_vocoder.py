"""Frame-rate vocoders: lengths, batches, chunks, gradients, seeds."""

import math

import pytest
import torch
from torch import nn

from speechbrain_flowmac.lobes.convnext import ConvNeXt
from speechbrain_flowmac.lobes.envelope import MelEnvelope
from speechbrain_flowmac.lobes.features import MelSettings, length_mask
from speechbrain_flowmac.lobes.harmonic_source import SynthesisState
from speechbrain_flowmac.lobes.istft_vocoder import (
    FreePhaseHead,
    HarmonicNoiseHead,
    ISTFTVocoder,
    MultiBandHead,
)
from speechbrain_flowmac.lobes.pitch import PitchPredictor
from speechbrain_flowmac.lobes.pqmf import PQMF, LearnedSynthesis
from speechbrain_flowmac.lobes.spectral import FramedSTFT
from speechbrain_flowmac.lobes.transformer import Transformer

HOP = 32
SETTINGS = MelSettings(
    sample_rate=8000, n_fft=128, hop_length=HOP, win_length=128, n_mels=10
)


def noise(seed, *shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def awake(module, seed=0):
    """Random weights of a size that lets signals through."""
    generator = torch.Generator().manual_seed(seed)
    for name, parameter in module.named_parameters():
        if parameter.ndim > 1:
            parameter.data.normal_(
                0, parameter[0].numel() ** -0.5, generator=generator
            )
        elif name.endswith("scale"):
            parameter.data.fill_(0.5)
    return module.eval()


def free_phase(upsample=2, overlap=4):
    hop = HOP // upsample
    head = FreePhaseHead(12, FramedSTFT(overlap * hop, hop))
    return awake(ISTFTVocoder(SETTINGS, ConvNeXt(12, 2), head))


def harmonic(upsample=2, overlap=4, free_phase=False, start=False):
    hop = HOP // upsample
    pitch = PitchPredictor(
        10, ConvNeXt(12, 1), upsample, f_min=60.0, bins_per_octave=12
    )
    stft = FramedSTFT(overlap * hop, hop)
    envelope = MelEnvelope(SETTINGS, stft.n_fft) if start else None
    head = HarmonicNoiseHead(12, stft, pitch, 8000, free_phase, envelope)
    return awake(ISTFTVocoder(SETTINGS, ConvNeXt(12, 2), head))


def harmonic_and_free(upsample=2, overlap=4):
    return harmonic(upsample, overlap, free_phase=True)


def harmonic_from_envelope(upsample=2, overlap=4):
    return harmonic(upsample, overlap, start=True)


def multi_band(upsample=2, overlap=4, synthesis=PQMF):
    hop = HOP // upsample // 2
    stft = FramedSTFT(overlap * hop, hop)
    head = MultiBandHead(12, stft, synthesis(num_bands=2, taps=30))
    return awake(ISTFTVocoder(SETTINGS, ConvNeXt(12, 2), head))


def multi_stream(upsample=2, overlap=4):
    return multi_band(upsample, overlap, LearnedSynthesis)


HEADS = {
    "free-phase": free_phase,
    "multi-band": multi_band,
    "multi-stream": multi_stream,
    "harmonic": harmonic,
    "harmonic and free phase": harmonic_and_free,
    "harmonic from the envelope": harmonic_from_envelope,
}


@pytest.fixture(params=HEADS)
def make(request):
    return HEADS[request.param]


@pytest.mark.parametrize("frames", [1, 2, 3, 17])
@pytest.mark.parametrize("upsample", [1, 2, 4])
def test_there_is_one_hop_of_samples_per_frame(make, upsample, frames):
    wav = make(upsample)(noise(0, 2, frames, 10))
    assert wav.shape == (2, frames * HOP) and wav.dtype == torch.float32
    assert wav.isfinite().all() and wav.abs().max() > 0


def batch_and_singles(vocoder):
    lengths = torch.tensor([1, 6, 11, 20])
    mel = noise(3, 4, 20, 10)
    mask = length_mask(lengths, 20)
    mel = torch.where(mask.unsqueeze(-1), mel, 3.0)
    batch = vocoder(mel, mask)
    for wav, item, length in zip(batch, mel, lengths, strict=True):
        yield wav, vocoder(item[None, :length])[0]


def test_padding_changes_no_valid_sample(make):
    for wav, single in batch_and_singles(make()):
        torch.testing.assert_close(
            wav[: len(single)], single, atol=1e-4, rtol=1e-4
        )


def test_items_are_silent_past_their_end(make):
    for wav, single in batch_and_singles(make()):
        assert not wav[len(single) :].any()


def synthesise_in_chunks(vocoder, mel, size, context, lead, seed=0):
    """Overlapping chunks of which the middle is kept.

    frames   |- context -|---- a..b ----|- context -|
    phase handed on at            b - lead
    """
    frames = mel.shape[1]
    state = SynthesisState(seed=seed)
    parts = []
    for a in range(0, frames, size):
        b = min(a + size, frames)
        lo, hi = max(a - context, 0), min(b + context, frames)
        state.start, state.next_anchor = lo, max(b - lead, 0)
        wav = vocoder(mel[:, lo:hi], None, state)
        parts.append(wav[:, (a - lo) * HOP : (b - lo) * HOP])
    return torch.cat(parts, dim=1)


@pytest.mark.parametrize("size", [1, 4, 7, 30])
@pytest.mark.parametrize("upsample, overlap", [(1, 4), (2, 4), (4, 8)])
def test_chunks_join_into_the_whole(make, upsample, overlap, size):
    vocoder = make(upsample, overlap)
    mel = 2 * noise(1, 2, 30, 10)
    whole = vocoder(mel, None, SynthesisState(seed=5))
    context, lead = vocoder.receptive_field, vocoder.source_reach
    joined = synthesise_in_chunks(vocoder, mel, size, context, lead, seed=5)
    tolerance = 1e-3 * whole.abs().max().item()
    torch.testing.assert_close(joined, whole, atol=tolerance, rtol=0)


def test_chunks_need_their_context(make):
    vocoder = make()
    mel = 2 * noise(1, 2, 30, 10)
    joined = synthesise_in_chunks(vocoder, mel, 7, 1, 0)
    assert (joined - vocoder(mel)).abs().max() > 0.01


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
    state = dict(start=0, anchor=middle, next_anchor=middle)
    first = vocoder(mel, None, SynthesisState(**state))
    second = vocoder(other, None, SynthesisState(**state))
    kept = slice(middle * HOP, (middle + 1) * HOP)
    torch.testing.assert_close(
        first[:, kept], second[:, kept], atol=1e-4, rtol=0
    )
    assert (first - second).abs().max() > 0.01


def test_unbounded_trunks_are_told():
    stft = FramedSTFT(64, 16)
    trunk = Transformer(12, 1, num_heads=2)
    vocoder = ISTFTVocoder(SETTINGS, trunk, FreePhaseHead(12, stft))
    assert vocoder.receptive_field is None


def labels(frames=18):
    f0 = 100 + 100 * torch.rand(
        2, frames, generator=torch.Generator().manual_seed(2)
    )
    f0[:, ::3] = 0.0
    return f0


def test_gradients_reach_all_parameters(make):
    vocoder = make().train()
    wav, losses = vocoder(noise(0, 2, 9, 10), f0=labels())
    (wav.square().sum() + sum(losses.values())).backward()
    for name, parameter in vocoder.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name
        assert parameter.grad.abs().sum() > 0, name


def test_labels_add_the_losses_of_the_head():
    mel = noise(0, 2, 9, 10)
    assert free_phase()(mel, f0=labels())[1] == {}
    vocoder = harmonic()
    wav, losses = vocoder(mel, f0=labels())
    assert set(losses) == {"pitch"} and losses["pitch"] > 0
    # what is trained is what is used: labels do not change the sound
    assert torch.equal(wav, vocoder(mel))


def test_labels_of_padding_do_not_count():
    vocoder, mel, f0 = harmonic(), noise(0, 2, 9, 10), labels()
    mask = length_mask(torch.tensor([4, 9]), 9)
    other = f0.clone()
    other[0, 8:] = 555.0
    _, first = vocoder(mel, mask, f0=f0)
    _, second = vocoder(mel, mask, f0=other)
    torch.testing.assert_close(first["pitch"], second["pitch"])


def with_gains(loud, hiss):
    """A harmonic vocoder with constant log gains of its two sources."""
    vocoder = harmonic()
    project, bins = vocoder.head.project, vocoder.head.stft.num_bins
    project.weight.data.zero_()
    project.bias.data[:bins] = loud
    project.bias.data[bins : 2 * bins] = 0.0
    project.bias.data[2 * bins :] = hiss
    return vocoder


@pytest.mark.parametrize(
    "dtype, tolerance",
    [(torch.float16, 0.05), (torch.bfloat16, 0.4), (torch.float64, 1e-5)],
)
def test_a_vocoder_that_is_cast_still_speaks_float32(make, dtype, tolerance):
    """Sources keep their place, so only gains and phases are rounded."""
    vocoder, mel = make(), noise(0, 2, 12, 10)
    mask = length_mask(torch.tensor([12, 7]), 12)
    with torch.no_grad():
        expected = vocoder(mel, mask)
        found = vocoder.to(dtype)(mel, mask)
        assert vocoder(mel.to(dtype), mask).dtype == torch.float32
    assert found.dtype == torch.float32
    assert (found - expected).std() < tolerance * expected.std()


def test_seeds_change_the_noise_only():
    mel = 2 * noise(1, 2, 12, 10)

    def sound(vocoder, seed):
        return vocoder(mel, None, SynthesisState(seed=seed))

    pulses = with_gains(loud=0.0, hiss=-200.0)
    assert torch.equal(sound(pulses, 1), sound(pulses, 2))
    hiss = with_gains(loud=-200.0, hiss=0.0)
    difference = sound(hiss, 1) - sound(hiss, 2)
    assert difference.std() > 0.5
    assert torch.equal(sound(hiss, 1), sound(hiss, 1))
    both = with_gains(loud=0.0, hiss=0.0)
    torch.testing.assert_close(
        sound(both, 1) - sound(both, 2), difference, atol=1e-4, rtol=0
    )


def test_gains_of_one_give_the_sources_back():
    mel = 2 * noise(1, 1, 12, 10)
    wav = with_gains(loud=-200.0, hiss=0.0)(mel)
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
    phase = head.phase(torch.linspace(-2, 2, 10001))
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
