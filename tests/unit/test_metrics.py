"""Metrics tell worse from better, and levels are what they say."""

import inspect
import math
import sys
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from corpus import speech_like

from speechbrain_flowmac import metrics
from speechbrain_flowmac.lobes.features import LogMel, MelSettings
from speechbrain_flowmac.metrics import (
    METRICS,
    distillmos,
    estoi,
    harvest_f0,
    log_mel_distance,
    pitch_errors,
    to_level,
    visqol,
)

# name: (module, packages of pip that the error must name)
NEEDS = {
    "pesq": ("pesq", "'pesq'"),
    "estoi": ("pystoi", "'pystoi'"),
    "visqol": ("visqol", "'visqol-python[lattice]'"),
    "distillmos": ("distillmos", "'distillmos'"),
}


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


# The table and optional packages


@pytest.fixture
def install(monkeypatch):
    """Function that puts a module, or None for none, in place of another."""

    def forget():
        metrics._visqol_meter.cache_clear()
        metrics._distillmos_model.cache_clear()

    forget()
    yield lambda name, module: monkeypatch.setitem(sys.modules, name, module)
    forget()


def test_table_is_consistent():
    assert METRICS.keys() == NEEDS.keys()
    headings = [metric.heading for metric in METRICS.values()]
    assert len(set(headings)) == len(headings)
    for metric in METRICS.values():
        names = list(inspect.signature(metric.function).parameters)
        assert names == ["reference", "decoded", "sample_rate"]
        assert metric.decimals in (2, 3) and metric.higher_is_better is True


@pytest.mark.parametrize("name", METRICS)
def test_missing_packages_are_named(name, install):
    module, package = NEEDS[name]
    install(module, None)
    with pytest.raises(ImportError) as caught:
        METRICS[name].function(np.zeros(24000), np.zeros(24000), 24000)
    assert str(caught.value) == (
        f"this metric needs {module}: pip install {package}"
    )


def test_visqol_hears_speech_mode_at_16_khz(install):
    calls = []

    class Api:
        def create(self, **options):
            calls.append(options)

        def measure_from_arrays(self, reference, decoded, rate):
            calls.append((len(reference), len(decoded), rate))
            if not decoded.any():
                raise ValueError("too different")
            return SimpleNamespace(moslqo=np.float64(3.5))

    install("visqol", SimpleNamespace(VisqolApi=Api))
    assert visqol(np.ones(24000), np.ones(24000), 24000) == 3.5
    assert math.isnan(visqol(np.ones(24000), np.zeros(24000), 24000))
    assert calls == [
        {"mode": "speech", "use_lattice_model": True},
        (16000, 16000, 16000),
        (16000, 16000, 16000),
    ]


def test_distillmos_hears_the_decoded_at_16_khz(install, capsys):
    class Model(torch.nn.Module):
        def __init__(self):
            super().__init__()
            print("weights loaded")

        def forward(self, wav):
            assert wav.dtype == torch.float32 and wav.shape == (1, 16000)
            assert not self.training
            return 1 + 4 * wav[:, 8000:8001]

    install("distillmos", SimpleNamespace(ConvTransformerSQAModel=Model))
    decoded = np.full(24000, 0.5)
    found = distillmos(np.zeros(24000), decoded, 24000)
    assert found == pytest.approx(3, abs=1e-3)
    assert capsys.readouterr().out == ""


# F0


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
