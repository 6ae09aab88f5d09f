"""Distances have the values that their formulas give."""

import math

import numpy as np
import pytest
import soxr
import torch
from corpus import speech_like

from speechbrain_flowmac.lobes.features import (
    LogMel,
    MelSettings,
    hz_to_mel,
    mel_to_hz,
)
from speechbrain_flowmac.metrics import (
    METRICS,
    log_mel_distance,
    mcd,
    mel_cepstral_distortion,
    mel_distance,
    si_sdr,
    stft_distance,
)
from speechbrain_flowmac.metrics.cepstrum import MCD_ORDER, MCD_SETTINGS

RATE = 24000


@pytest.fixture(scope="module")
def noise():
    return np.random.default_rng(0).normal(size=2 * RATE) * 0.05


@pytest.fixture(scope="module")
def speech():
    return np.asarray(speech_like(2.0, 0), dtype=np.float64)


@pytest.mark.parametrize("name", ["mel", "stft", "mcd"])
def test_distances_grow_from_zero(name, speech, noise):
    function = METRICS[name].function
    far = [function(speech, speech + n * noise, RATE) for n in (0, 0.1, 1)]
    assert far[0] == 0 and far[0] < far[1] < far[2]


# SI-SDR


def _orthogonal(signal, noise, ratio_db):
    """The noise, at a ratio below the signal and at right angles to it."""
    signal, noise = signal - signal.mean(), noise - noise.mean()
    noise -= signal * (noise @ signal) / (signal @ signal)
    gain = np.linalg.norm(signal) / np.linalg.norm(noise)
    return noise * gain * 10 ** (-ratio_db / 20)


@pytest.mark.parametrize("ratio_db", [-20.0, 0.0, 10.0, 30.0])
def test_si_sdr_is_the_ratio_to_orthogonal_noise(speech, noise, ratio_db):
    decoded = speech + _orthogonal(speech, noise, ratio_db)
    found = si_sdr(speech, decoded, RATE)
    assert found == pytest.approx(ratio_db, abs=1e-4)
    # whatever the levels, the sign and the means
    for changed in (0.3 * decoded, -decoded, decoded + 0.1):
        found = si_sdr(speech, changed, RATE)
        assert found == pytest.approx(ratio_db, abs=1e-4)


def test_si_sdr_of_equal_signals_is_large_and_of_none_is_nothing(speech):
    assert si_sdr(speech, speech, RATE) > 90
    constant = np.full_like(speech, 0.1)
    assert math.isnan(si_sdr(speech, constant, RATE))
    assert math.isnan(si_sdr(constant, speech, RATE))


def test_si_sdr_leaves_its_input_alone(speech):
    before = speech.copy()
    si_sdr(speech, speech, RATE)
    assert np.array_equal(speech, before)


# Mels and STFTs


def test_twice_as_loud_is_log_two_of_mels(noise):
    found = mel_distance(noise, 2 * noise, RATE)
    assert found == pytest.approx(math.log(2), abs=1e-4)


def test_twice_as_loud_is_one_and_log_two_of_stfts(noise):
    found = stft_distance(noise, 2 * noise, RATE)
    assert found == pytest.approx(1 + math.log(2), abs=1e-3)


def test_mel_distance_is_that_of_the_shipped_model(speech, noise):
    decoded = speech + noise
    features = LogMel(MelSettings())
    expected = log_mel_distance(speech, decoded, features)
    found = mel_distance(speech, decoded, RATE)
    assert found == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("name", ["mel", "stft", "mcd"])
def test_distances_do_not_depend_on_the_sample_rate(name, noise):
    # below 7 kHz there is the same to hear at all rates
    low = soxr.resample(soxr.resample(noise, RATE, 14000), 14000, RATE)
    pair = low, np.tanh(20 * low) / 20
    pair = [
        soxr.resample(soxr.resample(x, RATE, 16000), 16000, RATE) for x in pair
    ]
    function = METRICS[name].function
    expected = function(*pair, RATE)
    found = function(*(soxr.resample(x, RATE, 48000) for x in pair), 48000)
    assert found == pytest.approx(expected, rel=0.02)


def test_stft_distance_needs_half_a_window():
    assert math.isnan(stft_distance(np.ones(1024), np.ones(1024), RATE))
    assert stft_distance(np.ones(1025), np.ones(1025), RATE) == 0


# Mel cepstral distortion

PER_NEPER = 10 * math.sqrt(2) / math.log(10)


def _cosine(degree, bands=40):
    middles = (torch.arange(bands) + 0.5) / bands
    return torch.cos(math.pi * degree * middles)


@pytest.mark.parametrize("degree", range(1, MCD_ORDER + 1))
def test_a_known_cepstral_shift_has_its_distortion(degree):
    mel = torch.randn(7, 40, generator=torch.Generator().manual_seed(0))
    shifted = mel + 0.3 * _cosine(degree)
    found = mel_cepstral_distortion(mel, shifted)
    assert found == pytest.approx(np.full(7, 0.3 * PER_NEPER), rel=1e-4)


def test_shifts_add_as_squares():
    mel = torch.zeros(40)
    shifted = mel + 0.3 * _cosine(1) - 0.4 * _cosine(9)
    found = mel_cepstral_distortion(mel, shifted).item()
    assert found == pytest.approx(0.5 * PER_NEPER, rel=1e-5)
    # the RMS of decibels, since no other cosine is there
    decibels = 20 / math.log(10) * shifted
    assert found == pytest.approx(decibels.square().mean().sqrt().item())


@pytest.mark.parametrize("degree", [0, MCD_ORDER + 1, 30])
def test_levels_and_harmonics_do_not_count(degree):
    mel = torch.zeros(40)
    shifted = mel + 5.0 * _cosine(degree)
    found = mel_cepstral_distortion(mel, shifted).item()
    assert found == pytest.approx(0, abs=1e-4)


@pytest.mark.parametrize("degree, height", [(1, 0.5), (2, 0.3), (5, 0.5)])
def test_a_filter_shifts_the_cepstrum_of_a_signal(noise, degree, height):
    s = MCD_SETTINGS
    edges = torch.tensor([s.f_min, s.f_max], dtype=torch.float64)
    low, high = hz_to_mel(edges).tolist()
    corners = torch.linspace(low, high, s.n_mels + 2, dtype=torch.float64)
    centres = mel_to_hz(corners[1:-1]).numpy()
    spectrum = np.fft.rfft(noise)
    frequencies = np.fft.rfftfreq(len(noise), 1 / RATE)
    heights = height * _cosine(degree).double().numpy()
    gain = np.exp(np.interp(frequencies, centres, heights))
    filtered = np.fft.irfft(spectrum * gain)
    found = mcd(noise, filtered, RATE)
    assert found == pytest.approx(height * PER_NEPER, rel=0.04)


def test_mcd_does_not_hear_levels(noise):
    assert mcd(noise, 3 * noise, RATE) == pytest.approx(0, abs=1e-3)
