"""Pulse trains and noise that excite the vocoder."""

import math

import pytest
import torch

from speechbrain_flowmac.lobes.harmonic_source import (
    HarmonicState,
    dirichlet_pulses,
    fundamental_offset,
    harmonic_source,
    noise_source,
    source_phase,
    to_samples,
)
from speechbrain_flowmac.lobes.pitch import Pitch

RATE = 16000


def cosines(phase, f0):
    """The sum that the closed form stands for, harmonic by harmonic."""
    room = max(RATE / 2 / f0 - 1, 1)
    whole = math.floor(room)
    total = (room - whole) * torch.cos(2 * torch.pi * (whole + 1) * phase)
    for k in range(1, whole + 1):
        total = total + torch.cos(2 * torch.pi * k * phase)
    return total * math.sqrt(2 / room)


def pulses_at(phase, f0):
    f0 = torch.full((1, 1), f0, dtype=phase.dtype)
    return dirichlet_pulses(phase, f0, RATE)


@pytest.mark.parametrize("f0", [50.0, 100.0, 160.0, 233.3, 601.0, 5000.0])
def test_closed_form_is_the_sum_of_cosines(f0):
    generator = torch.Generator().manual_seed(0)
    phase = torch.rand(1, 5000, dtype=torch.float64, generator=generator)
    exact = torch.tensor([[0.0, 1e-7, -1e-7, 1e-5, 0.5, 0.25, 1.0, 7.0]])
    phase = torch.cat([100 * phase - 50, exact.double()], dim=1)
    torch.testing.assert_close(
        pulses_at(phase, f0), cosines(phase, f0), atol=1e-6, rtol=1e-6
    )


@pytest.mark.parametrize("f0", [50.0, 233.3, 601.0])
def test_single_precision_is_enough(f0):
    phase = torch.linspace(0, 1, 10_001, dtype=torch.float64)[None]
    error = pulses_at(phase.float(), f0).double() - cosines(phase, f0)
    assert error.abs().max() < 1e-2
    assert error.square().mean().sqrt() < 1e-4


@pytest.mark.parametrize("f0", [50.0, 80.0, 100.0, 200.0, 400.0, 4000.0])
def test_power_is_one(f0):
    """For a whole number of harmonics: a mean over whole periods."""
    time = torch.arange(RATE, dtype=torch.float64) / RATE
    pulses = pulses_at(f0 * time[None], f0)
    assert pulses.square().mean().item() == pytest.approx(1.0, rel=1e-6)


@pytest.mark.parametrize("f0", [75, 123, 440, 599, 3001])
def test_there_is_nothing_but_harmonics(f0):
    """Over one second harmonic k of a whole F0 is bin k F0: what folds at
    half the sample rate would show in other bins."""
    time = torch.arange(RATE, dtype=torch.float64) / RATE
    pulses = pulses_at(f0 * time[None], float(f0))[0]
    spectrum = torch.fft.rfft(pulses).abs() / RATE
    harmonic = torch.arange(len(spectrum)) % f0 == 0
    harmonic[0] = False
    assert spectrum[~harmonic].max() < 1e-6 * spectrum.max()
    amplitudes = spectrum[harmonic]
    whole = max(math.floor(RATE / 2 / f0 - 1), 1)
    torch.testing.assert_close(
        amplitudes[:whole], amplitudes[:1].expand(whole), rtol=1e-5, atol=0
    )
    assert (amplitudes[whole:] <= amplitudes[0] * (1 + 1e-6)).all()


def test_a_moving_pitch_makes_no_jumps():
    """The pulses are continuous in F0 where the number of harmonics is not."""
    phase = torch.linspace(-0.5, 0.5, 999, dtype=torch.float64)[None]
    for harmonics in (2, 10, 80):
        f0 = RATE / 2 / (harmonics + 1)
        below = pulses_at(phase, f0 * (1 - 1e-9))
        torch.testing.assert_close(
            below, pulses_at(phase, f0 * (1 + 1e-9)), atol=1e-5, rtol=0
        )


def test_frames_become_straight_lines_between_their_centres():
    hop = 6
    slope = torch.tensor([[1.0, 2.0, 3.0, 4.0]])
    samples = to_samples(slope, hop)
    assert samples.shape == (1, 24)
    time = (torch.arange(24) + 0.5) / hop + 0.5
    torch.testing.assert_close(samples[0], time.clamp(1, 4))
    assert torch.equal(to_samples(slope, 1), slope)


def make_pitch(frames=48, batch=2, seed=0):
    generator = torch.Generator().manual_seed(seed)
    steps = torch.randn(batch, frames, generator=generator).cumsum(1)
    voiced = torch.rand(batch, frames, generator=generator) < 0.8
    return Pitch(200 * 2 ** (0.1 * steps), voiced)


def test_unvoiced_is_silent():
    hop = 20
    pitch = make_pitch()
    pitch.voiced[:, 10:20] = False
    source = harmonic_source(pitch, RATE, hop, HarmonicState(), 2, 1)
    assert source.shape == (2, 48 * hop)
    # linear interpolation reaches half a hop into the unvoiced stretch
    inside = slice(10 * hop + hop // 2, 20 * hop - hop // 2)
    assert not source[:, inside].any()
    silent = Pitch(pitch.f0, torch.zeros_like(pitch.voiced))
    assert not harmonic_source(silent, RATE, hop, HarmonicState(), 2, 1).any()


def test_phase_is_the_integral_of_pitch():
    """A steady pitch gives the pulses of that pitch, from phase 0 on."""
    f0 = torch.full((1, 40), 170.0)
    pitch = Pitch(f0, torch.ones_like(f0, dtype=torch.bool))
    source = harmonic_source(pitch, RATE, 50, HarmonicState(), 1, 1)
    time = torch.arange(2000, dtype=torch.float64) / RATE
    expected = pulses_at(170.0 * time[None], 170.0)
    torch.testing.assert_close(source, expected.float(), atol=2e-3, rtol=1e-3)


# Pulses that follow a waveform


def tone(f0, shift, size, harmonics=12, rate=24000):
    """Harmonics of unequal phases, the fundamental's being `shift`."""
    cycles = f0 * torch.arange(size, dtype=torch.float64) / rate
    wav = torch.cos(2 * torch.pi * (cycles + shift))
    for k in range(2, harmonics):
        wav = wav + torch.cos(2 * torch.pi * k * cycles + k * k)
    return wav[None].float()


@pytest.mark.parametrize("f0", [60.0, 130.0, 410.0])
@pytest.mark.parametrize("error", [0.0, -4.0, 6.0])
def test_fundamental_is_found_behind_other_harmonics(f0, error):
    size, shift = 7001, 0.3
    time = torch.arange(size) / 24000
    phase = ((f0 - error) * time)[None]
    offset = fundamental_offset(phase, tone(f0, shift, size))
    assert offset.shape == phase.shape
    miss = offset - (shift + error * time)
    miss = (miss - miss.round()).abs()
    assert miss[:, 1000:-1000].max() < 0.02


def test_pulses_follow_the_target_and_its_silence():
    f0 = torch.full((2, 60), 120.0)
    pitch = Pitch(f0, torch.ones_like(f0, dtype=torch.bool))
    size = 60 * 128
    target = torch.cat([tone(123.0, 0.1, size), torch.zeros(1, size)])
    state = HarmonicState(target=target[:, :-50])
    free = harmonic_source(pitch, 24000, 128, HarmonicState(), 1, 1)
    source = harmonic_source(pitch, 24000, 128, state, 1, 1)
    time = torch.arange(size, dtype=torch.float64) / 24000
    expected = dirichlet_pulses(
        (123.0 * time + 0.1).remainder(1)[None], f0[:1, :1], 24000
    )
    inside = slice(1000, -1000)
    pair = torch.stack([source[0, inside], expected[0, inside].float()])
    assert torch.corrcoef(pair)[0, 1] > 0.9
    # nothing to follow: as without a target
    torch.testing.assert_close(source[1], free[1])


@pytest.mark.parametrize("upsample", [1, 2])
@pytest.mark.parametrize("size, lead", [(1, 1), (3, 0), (5, 2), (24, 2)])
def test_chunks_join_into_the_whole(size, lead, upsample):
    """`size` mel frames at a time, phase handed over `lead` frames early."""
    hop, context = 40, 3
    mel_frames = 48 // upsample
    pitch = make_pitch()
    whole = harmonic_source(pitch, RATE, hop, HarmonicState(), upsample, lead)
    state = HarmonicState()
    parts = []
    for a in range(0, mel_frames, size):
        b = min(a + size, mel_frames)
        lo, hi = max(a - context, 0), min(b + context, mel_frames)
        state.move(hi - lo, (a - lo, hi - b))
        frames = slice(lo * upsample, hi * upsample)
        chunk = Pitch(pitch.f0[:, frames], pitch.voiced[:, frames])
        source = harmonic_source(chunk, RATE, hop, state, upsample, lead)
        width = upsample * hop
        parts.append(source[:, (a - lo) * width : (b - lo) * width])
        assert state.anchor == max(b - lead, 0)
        assert ((state.phase >= 0) & (state.phase < 1)).all()
    joined = torch.cat(parts, dim=1)
    torch.testing.assert_close(joined, whole, atol=5e-3, rtol=0)


def test_phase_survives_a_long_time():
    """After minutes the phase is as exact as at the start."""
    hop, f0 = 100, 123.4
    state = HarmonicState()
    frames = torch.full((1, 6000 * hop), f0)
    for _ in range(4):
        state.move(6000, (0, 0))
        source_phase(frames, RATE, hop, state, reach=0)
    seconds = 4 * 6000 * hop / RATE
    hz = torch.tensor(f0).double().item()
    assert state.phase.item() == pytest.approx(hz * seconds % 1, abs=1e-4)


def test_noise_is_white_and_lies_where_its_chunk_lies():
    noise = noise_source(100, 60, HarmonicState(seed=3, first=5))
    assert noise.shape == (1, 6000)
    assert noise.square().mean().item() == pytest.approx(1.0, abs=0.1)
    later = noise_source(50, 60, HarmonicState(seed=3, first=45))
    assert torch.equal(noise[:, 40 * 60 : 90 * 60], later)
    other = noise_source(100, 60, HarmonicState(seed=4, first=5))
    correlation = torch.corrcoef(torch.cat([noise, other]))[0, 1]
    assert abs(correlation) < 0.06
