"""Errors of F0 and voicing are counted where they belong."""

import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from corpus import speech_like
from evaluation_stand_ins import stand_ins

from speechbrain_flowmac.metrics import (
    f0_cents,
    f0_gross,
    harvest_f0,
    pitch,
    pitch_errors,
    voicing_error,
)

RATE = 24000


def test_pitch_errors_are_counted_where_they_belong():
    f0 = np.array([100.0, 119.0, 121.0, 50.0, 70.0, 70.0, 110.0, 1.0])
    voiced = np.array([1, 1, 1, 1, 1, 0, 0, 0], dtype=bool)
    truth = np.array([100.0, 100, 100, 100, 0, 0, 100, 0])
    found = pitch_errors(f0, voiced, truth)
    # of four frames voiced in both, 121 and 50 Hz are more than 20 % off
    assert found.gross == 2 / 4
    assert found.cents == pytest.approx(1200 * math.log2(1.19) / 2)
    # one voiced for nothing, one missed
    assert found.voicing == 2 / 8


def test_flat_and_sharp_by_a_semitone_are_a_hundred_cents():
    truth = np.full(2, 200.0)
    f0 = truth * 2 ** (np.array([-1, 1]) / 12)
    found = pitch_errors(f0, np.ones(2, dtype=bool), truth)
    assert found.gross == 0 and found.voicing == 0
    assert found.cents == pytest.approx(100)


def test_errors_of_no_frames_are_not_a_number():
    nothing = np.zeros(3)
    found = pitch_errors(nothing + 90, nothing > 0, nothing)
    assert math.isnan(found.gross) and math.isnan(found.cents)
    assert found.voicing == 0
    octave = pitch_errors(nothing + 90, nothing == 0, nothing + 180)
    assert octave.gross == 1 and math.isnan(octave.cents)


# Of signals, by SwiftF0


def _voice(f0, seconds=1.5):
    """A steady voice: resampling it moves nothing but its F0."""
    time = np.arange(int(seconds * RATE)) / RATE
    harmonics = np.arange(1, 20)[:, None]
    waves = np.sin(2 * np.pi * f0 * harmonics * time) / harmonics
    return 0.1 * waves.sum(0)


def test_a_signal_has_its_own_f0():
    speech = np.asarray(speech_like(2.0, 0), dtype=np.float64)
    for decoded in (speech, 0.5 * speech):
        assert f0_cents(speech, decoded, RATE) == pytest.approx(0, abs=2)
        assert f0_gross(speech, decoded, RATE) == 0
        assert voicing_error(speech, decoded, RATE) == pytest.approx(0, abs=2)


@pytest.mark.parametrize("cents", [-100, 30, 50])
def test_f0_that_is_off_by_cents_is_found_to_be(cents):
    decoded = _voice(200 * 2 ** (cents / 1200))
    found = f0_cents(_voice(200), decoded, RATE)
    assert found == pytest.approx(abs(cents), abs=5)
    assert f0_gross(_voice(200), decoded, RATE) == 0


def test_an_octave_is_a_gross_error():
    voice, octave = _voice(150), _voice(300)
    assert f0_gross(voice, octave, RATE) > 95
    assert voicing_error(voice, octave, RATE) < 2


def test_a_voice_that_is_lost_is_a_voicing_error():
    voice = _voice(150)
    whispered = voice.copy()
    half = len(voice) // 2
    noise = np.random.default_rng(0).normal(size=len(voice) - half)
    whispered[half:] = 0.05 * noise
    found = voicing_error(voice, whispered, RATE)
    assert found == pytest.approx(50, abs=5)
    assert f0_gross(voice, whispered, RATE) < 5


def test_f0_of_a_signal_is_found_once(monkeypatch):
    labelled = []

    def label(signal, sample_rate, hop_length, num_frames, f_min, f_max):
        labelled.append(signal)
        assert (sample_rate, hop_length, num_frames) == (16000, 160, 101)
        assert (f_min, f_max) == (50.0, 600.0)
        return torch.full((num_frames,), 100.0 * signal[0])

    monkeypatch.setattr(pitch, "label_f0", label)
    pitch._swift_f0.forget()
    pair = np.full(16001, 1.0), np.full(16001, 1.1)
    cents = f0_cents(*pair, 16000)
    assert cents == pytest.approx(1200 * math.log2(1.1))
    assert f0_gross(*pair, 16000) == voicing_error(*pair, 16000) == 0
    assert len(labelled) == 2
    pitch._swift_f0.forget()


# Harvest


@pytest.fixture
def install(monkeypatch):
    """Function that puts a module, or None for none, in place of another."""
    yield from stand_ins(monkeypatch)


def test_harvest_is_read_at_the_middle_of_hops(install):
    def harvest(samples, rate, f0_floor, f0_ceil, frame_period):
        assert (f0_floor, f0_ceil) == (71.0, 600.0)
        assert samples.dtype == np.float64 and len(samples) == 4 * 240
        count = int(1000 * len(samples) / rate / frame_period) + 1
        times = np.arange(count) * frame_period / 1000
        return times, times  # as if F0 were the time

    package = SimpleNamespace(harvest=harvest, default_f0_floor=71.0)
    install("pyworld", package)
    found = harvest_f0(torch.zeros(900), 24000, 240, 4, 50.0, 600.0)
    assert found.dtype == torch.float32
    assert found.numpy() == pytest.approx([0.005, 0.015, 0.025, 0.035])


def test_harvest_says_what_it_needs(install):
    install("pyworld", None)
    with pytest.raises(ImportError, match="'pyworld' 'setuptools<82'"):
        harvest_f0(torch.zeros(900), 24000, 240, 4, 50.0, 600.0)
