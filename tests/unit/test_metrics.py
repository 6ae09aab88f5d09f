"""Metrics tell worse from better, and levels are what they say."""

import numpy as np
import pytest
from corpus import speech_like

from speechbrain_flowmac.lobes.features import LogMel, MelSettings
from speechbrain_flowmac.metrics import estoi, log_mel_distance, to_level


@pytest.fixture(scope="module")
def speech():
    return np.asarray(speech_like(3.0, 0), dtype=np.float64)


def _noisy(signal, level):
    noise = np.random.default_rng(0).normal(size=len(signal))
    return signal + level * signal.std() * noise


def test_more_noise_is_worse(speech):
    features = LogMel(MelSettings())
    clear = [estoi(speech, _noisy(speech, n), 24000) for n in (0, 0.3, 3)]
    assert clear[0] == pytest.approx(1, abs=1e-3)
    assert clear[0] > clear[1] > clear[2]
    far = [
        log_mel_distance(speech, _noisy(speech, n), features)
        for n in (0, 0.3, 3)
    ]
    assert far[0] == 0 and far[0] < far[1] < far[2]


def test_level_is_reached_unless_it_would_clip(speech):
    quiet = to_level(speech, -26.0)
    rms = 20 * np.log10(np.sqrt(np.mean(quiet**2)))
    assert rms == pytest.approx(-26, abs=1e-6)
    loud = to_level(speech, 0.0, peak=0.95)
    assert np.abs(loud).max() == pytest.approx(0.95)
    assert not to_level(np.zeros(10)).any()
