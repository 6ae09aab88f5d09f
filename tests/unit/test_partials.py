"""The measurement of partials, on sounds whose partials are known."""

import numpy as np
import pytest
from partials import chord, pitch_errors, strongest_partials, sung_note

RATE = 24000
TIME = np.arange(2 * RATE) / RATE


def cents(found, wanted):
    return np.abs(1200 * np.log2(np.array(found) / np.array(wanted)))


def test_frequencies_come_out_strongest_first_to_a_cent():
    wanted = [1234.5, 87.31, 440.0]
    signal = sum(
        level * np.sin(2 * np.pi * f * TIME)
        for level, f in zip((1.0, 0.5, 0.2), wanted, strict=True)
    )
    signal = signal + 0.1 * np.random.default_rng(0).standard_normal(len(TIME))
    assert (cents(strongest_partials(signal, RATE, 3), wanted) < 1).all()


def test_a_chord_s_strongest_are_its_three_notes():
    found = sorted(strongest_partials(chord(RATE), RATE, 3))
    assert (cents(found, [220.0, 277.2, 329.6]) < 1).all()


def test_a_vibrato_does_not_split_partials():
    found = np.array(strongest_partials(sung_note(RATE), RATE, 5))
    harmonics = np.round(found / 196.0)
    assert len(set(harmonics)) == 5
    assert (cents(found, 196.0 * harmonics) < 3).all()


@pytest.mark.parametrize("detune", [-30.0, 0.0, 15.0, 25.0])
def test_errors_are_what_a_chord_is_detuned_by(detune):
    errors = pitch_errors(chord(RATE), 0.1 * chord(RATE, cents=detune), RATE)
    assert len(errors) == 3
    assert errors == pytest.approx([abs(detune)] * 3, abs=1.0)


def test_a_single_note_is_no_chord():
    one = np.sin(2 * np.pi * 220.0 * TIME)
    errors = sorted(pitch_errors(chord(RATE), one, RATE))
    assert errors[0] < 1 and errors[1] > 100


def test_noise_and_silence_keep_no_pitch():
    noise = np.random.default_rng(1).standard_normal(len(TIME))
    assert max(pitch_errors(chord(RATE), noise, RATE)) > 100
    assert pitch_errors(chord(RATE), 0 * TIME, RATE) == [np.inf] * 3
