"""Delays and levels are found whatever a codec does to the waveform."""

from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from corpus import speech_like
from hypothesis import given, settings, strategies as st

import speechbrain_flowmac
from speechbrain_flowmac.evaluation.alignment import align
from speechbrain_flowmac.inference import FlowMACCodec

RATE = 24000
MODEL = "flowmac-24khz-3kbps"


@pytest.fixture(scope="module")
def speech():
    return np.asarray(speech_like(3.0, 0), dtype=np.float64)


def _shifted(signal, samples):
    """Later by so many samples, or earlier with what that loses."""
    if samples < 0:
        return signal[-samples:]
    return np.concatenate([np.zeros(samples), signal])


def _low_passed(signal, cutoff=3500):
    spectrum = np.fft.rfft(signal)
    spectrum[np.fft.rfftfreq(len(signal), 1 / RATE) > cutoff] = 0
    return np.fft.irfft(spectrum, len(signal))


def _noisy(signal, level):
    noise = np.random.default_rng(1).normal(size=len(signal))
    return signal + level * signal.std() * noise


def _with_random_phases(signal, size=1024, hop=256, seed=0):
    """Same STFT magnitudes, other phases: what a vocoder may make."""
    window = np.hanning(size + 1)[:-1]
    padded = np.pad(signal, size)
    rng = np.random.default_rng(seed)
    result = np.zeros(len(padded))
    for start in range(0, len(padded) - size, hop):
        part = slice(start, start + size)
        spectrum = np.abs(np.fft.rfft(window * padded[part]))
        phase = np.exp(2j * np.pi * rng.uniform(size=len(spectrum)))
        result[part] += window * np.fft.irfft(spectrum * phase, size)
    return result[size:-size]


@pytest.mark.parametrize("delay_ms", [-50, -3, 0, 1, 20, 150])
@pytest.mark.parametrize(
    "damage",
    [
        lambda x: x,
        lambda x: -0.3 * x,
        _low_passed,
        lambda x: _noisy(x, 0.3),
        lambda x: _noisy(x, 1.0),
    ],
    ids=["copy", "inverted", "low-passed", "noisy", "as much noise"],
)
def test_known_delays_are_found_to_the_sample(speech, damage, delay_ms):
    samples = delay_ms * RATE // 1000
    decoded = _shifted(damage(speech), samples)
    aligned, found, _ = align(speech, decoded, RATE)
    assert found == pytest.approx(delay_ms, abs=1.5e3 / RATE)
    assert len(aligned) == len(speech)


@pytest.mark.parametrize("delay_ms", [-50, 0, 30, 150])
@pytest.mark.parametrize("seed", [0, 1])
def test_other_phases_have_the_delay_of_their_envelope(seed, delay_ms):
    speech = np.asarray(speech_like(3.0, seed), dtype=np.float64)
    decoded = _with_random_phases(speech, seed=seed)
    # so that waveforms are no help
    assert abs(np.corrcoef(speech, decoded)[0, 1]) < 0.4
    decoded = _shifted(decoded, delay_ms * RATE // 1000)
    _, found, _ = align(speech, decoded, RATE)
    assert found == pytest.approx(delay_ms, abs=2)


def test_envelopes_resolve_less_than_their_hop(speech):
    vocoded = _with_random_phases(speech)
    delays = [
        align(speech, _shifted(vocoded, i * 24), RATE)[1] for i in range(5)
    ]
    assert np.diff(delays) == pytest.approx(np.ones(4), abs=0.5)


def test_the_shipped_codec_has_next_to_no_delay():
    codec = FlowMACCodec.from_hparams(source=MODEL)
    package = Path(speechbrain_flowmac.__file__).parent
    speech, rate = soundfile.read(package / "models" / MODEL / "example.wav")
    speech = speech[: 3 * rate]
    wavs = torch.from_numpy(speech).float()
    tokens, lengths = codec.encode_batch(wavs.unsqueeze(0))
    decoded = codec.decode_batch(tokens, lengths)[0].numpy()
    aligned, delay_ms, gain_db = align(speech, decoded, rate)
    assert abs(delay_ms) < 3
    assert abs(gain_db) < 6
    _, later_ms, _ = align(speech, _shifted(decoded, 480), rate)
    assert later_ms == pytest.approx(delay_ms + 20, abs=0.5)


@pytest.mark.parametrize("rate", [8000, 16000, 44100, 48000])
def test_any_sample_rate(rate):
    speech = np.asarray(speech_like(2.0, 3, rate), dtype=np.float64)
    _, found, _ = align(speech, _shifted(speech, rate // 50), rate)
    assert found == pytest.approx(20, abs=1e3 / rate)
    vocoded = _with_random_phases(speech, 32 * rate // 750, 8 * rate // 750)
    _, found, _ = align(speech, vocoded, rate)
    assert found == pytest.approx(0, abs=2)


def test_delays_beyond_the_limit_are_not_looked_for(speech):
    late = _shifted(speech, RATE // 5)
    assert align(speech, late, RATE)[1] == pytest.approx(200)
    assert abs(align(speech, late, RATE, max_delay_ms=100)[1]) <= 100


def test_three_quarters_are_in_common(speech):
    # what is left of the other half of a fifth of a second is no evidence
    part = speech[: RATE // 5]
    late = _shifted(part, RATE // 10)[: len(part)]
    assert abs(align(part, late, RATE)[1]) <= 50
    assert align(part, _shifted(part, RATE // 25), RATE)[1] == 40


def test_aligned_signal_is_the_reference(speech):
    for samples in (-240, 0, 240):
        aligned, _, _ = align(speech, _shifted(speech, samples) / 4, RATE)
        kept = slice(-min(samples, 0), None)
        assert np.allclose(aligned[kept], speech[kept])
        assert not aligned[: kept.start].any()


@pytest.mark.parametrize("gain_db", [-20.0, -6.0, 0.0, 3.0])
def test_level_is_matched_and_reported(speech, gain_db):
    decoded = _with_random_phases(speech) * 10 ** (gain_db / 20)
    level = align(speech / 4, _with_random_phases(speech) / 4, RATE)[2]
    aligned, _, found = align(speech / 4, decoded / 4, RATE)
    assert found == pytest.approx(level - gain_db)
    rms = 20 * np.log10(aligned.std() / (speech / 4).std())
    assert rms == pytest.approx(0, abs=0.2)


def test_a_lost_end_or_noise_in_pauses_is_no_matter_of_level(speech):
    speech = np.concatenate([speech, np.zeros(RATE), speech]) / 4
    _, _, gain_db = align(speech, speech[: -RATE // 2], RATE)
    assert gain_db == pytest.approx(0, abs=1e-9)
    pause = slice(len(speech) // 2 - 9600, len(speech) // 2 + 9600)
    loud = speech.copy()
    loud[pause] += np.random.default_rng(0).normal(size=19200) * speech.std()
    assert align(speech, loud, RATE)[2] == pytest.approx(0, abs=1e-9)


def test_gain_stops_at_full_scale(speech):
    decoded = speech / 100
    decoded[RATE] = 0.4
    aligned, _, gain_db = align(speech, decoded, RATE)
    assert np.abs(aligned).max() == pytest.approx(1)
    assert gain_db == pytest.approx(20 * np.log10(1 / 0.4))


# What has no delay


@pytest.mark.parametrize(
    "reference, decoded",
    [
        (np.zeros(RATE), np.zeros(RATE)),
        (np.zeros(RATE), 0.1 * np.ones(RATE)),
        (speech_like(1.0, 0), np.zeros(RATE)),
        (speech_like(1.0, 0), np.zeros(0)),
        (np.zeros(0), speech_like(1.0, 0)),
        (speech_like(1.0, 0), 1e-6 * speech_like(1.0, 0)),
    ],
)
def test_silence_has_neither_delay_nor_gain(reference, decoded):
    aligned, delay_ms, gain_db = align(reference, decoded, RATE)
    assert (delay_ms, gain_db) == (0, 0)
    kept = decoded[: len(reference)]
    assert np.array_equal(aligned[: len(kept)], kept)
    assert not aligned[len(kept) :].any() and len(aligned) == len(reference)


def test_short_and_unlike_signals_are_not_delayed(speech):
    short = speech[4800 : 4800 + RATE // 11]
    assert align(short, _shifted(short, 100), RATE)[1] == 0
    other = _with_random_phases(np.asarray(speech_like(3.0, 9), float)[::-1])
    assert align(speech, other, RATE)[1] == 0


@settings(max_examples=60, deadline=None)
@given(
    st.integers(0, 4000),
    st.integers(0, 4000),
    st.integers(0, 100),
    st.booleans(),
)
def test_any_lengths_give_t_finite_samples(t, other, seed, dc):
    rng = np.random.default_rng(seed)
    reference, decoded = 0.2 * rng.normal(size=t), 0.1 * rng.normal(size=other)
    if dc:
        decoded = np.full(other, 0.1)
    aligned, delay_ms, gain_db = align(reference, decoded, 8000)
    assert aligned.shape == (t,)
    assert np.isfinite(aligned).all() and np.isfinite(gain_db)
    assert abs(delay_ms) <= 300


def test_bad_signals_are_refused(speech):
    with pytest.raises(ValueError, match=r"decoded must be \[T\].*\[1, 72000"):
        align(speech, speech[None], RATE)
    with pytest.raises(ValueError, match="reference has values that are not"):
        align(np.append(speech, np.nan), speech, RATE)
