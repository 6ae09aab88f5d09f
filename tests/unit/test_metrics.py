"""The table of metrics, their packages, and what they share."""

import inspect
import math
import pickle
import subprocess
import sys
from importlib.metadata import PackageNotFoundError
from types import SimpleNamespace

import numpy as np
import pytest
from corpus import speech_like
from evaluation_stand_ins import stand_ins

from speechbrain_flowmac.metrics import (
    METRICS,
    available,
    packages,
    recognition,
    signal_cache,
    speaker,
    to_level,
)
from speechbrain_flowmac.metrics.packages import is_installed
from speechbrain_flowmac.metrics.signal_cache import (
    REMEMBERED_SIGNALS,
    remembered,
)

# Those of packages: (module, what the error must say)
DNSMOS = ("speechmos.dnsmos", "'speechmos' 'librosa' 'onnxruntime'")
SWIFT_F0 = ("swift_f0", "'swift-f0>=0.3,<0.4'")
NEEDS = {
    "pesq": ("pesq", "'pesq'"),
    "stoi": ("pystoi", "'pystoi'"),
    "estoi": ("pystoi", "'pystoi'"),
    "visqol": ("visqol", "'visqol-python[lattice]'"),
    "warpq": ("librosa", "'librosa' 'webrtcvad' 'setuptools<82'"),
    "distillmos": ("distillmos", "'distillmos'"),
    "dnsmos": DNSMOS,
    "dnsmos_sig": DNSMOS,
    "dnsmos_bak": DNSMOS,
    "f0_cents": SWIFT_F0,
    "f0_gross": SWIFT_F0,
    "voicing": SWIFT_F0,
    "speaker": ("resemblyzer", "'resemblyzer' 'setuptools<82'"),
    "wer": ("pocketsphinx", "'pocketsphinx'"),
}
OWN = ["si_sdr", "mel", "stft", "mcd"]
LOWER_IS_BETTER = {
    *("warpq", "mel", "stft", "mcd", "f0_cents", "f0_gross", "voicing", "wer"),
}
REFERENCE_FREE = ["distillmos", "dnsmos", "dnsmos_sig", "dnsmos_bak"]


@pytest.fixture(scope="module")
def speech():
    return np.asarray(speech_like(1.0, 0), dtype=np.float64)


# The table


def test_table_is_consistent():
    assert METRICS.keys() == {*NEEDS, *OWN}
    headings = [metric.heading for metric in METRICS.values()]
    assert len(set(headings)) == len(headings)
    for name, metric in METRICS.items():
        names = list(inspect.signature(metric.function).parameters)
        assert names == ["reference", "decoded", "sample_rate"]
        assert metric.decimals in (1, 2, 3)
        assert metric.higher_is_better is (name not in LOWER_IS_BETTER)
        free = name in REFERENCE_FREE
        assert metric.kind == ("reference_free" if free else "intrusive")
        quoted = " ".join(f"'{package}'" for package in metric.packages)
        assert quoted == NEEDS.get(name, (None, ""))[1]


def test_metrics_reach_other_processes():
    functions = [metric.function for metric in METRICS.values()]
    assert pickle.loads(pickle.dumps(functions)) == functions


def test_nothing_is_imported_before_it_is_needed():
    modules = {module.split(".")[0] for module, _ in NEEDS.values()}
    code = f"""
import sys
from speechbrain_flowmac.metrics import METRICS, available
for name in METRICS:
    available(name)
print(sorted(set({modules}) & set(sys.modules)))
"""
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True
    )
    assert done.stdout == "[]\n", done.stderr


# Optional packages


@pytest.fixture
def install(monkeypatch):
    """Function that puts a module, or None for none, in place of another."""
    yield from stand_ins(monkeypatch)


@pytest.mark.parametrize("name", NEEDS)
def test_missing_packages_are_named(name, install, speech):
    module, wanted = NEEDS[name]
    install(module, None)
    with pytest.raises(ImportError) as caught:
        METRICS[name].function(speech, speech, 24000)
    assert str(caught.value) == (
        f"this metric needs {module}: pip install {wanted}"
    )


@pytest.fixture
def distributions(monkeypatch):
    """Dict that stands for what is installed: name: (version, requires)."""
    known = {}

    def distribution(name):
        if name not in known:
            raise PackageNotFoundError(name)
        version, requires = known[name]
        return SimpleNamespace(version=version, requires=requires)

    monkeypatch.setattr(packages, "distribution", distribution)
    return known


def test_versions_and_extras_count(distributions):
    distributions["thing"] = "1.2", ["base>=1", 'fast>=2; extra == "quick"']
    assert is_installed("thing") and is_installed("thing>=1,<2")
    assert not is_installed("thing<1") and not is_installed("other")
    assert is_installed("thing[unknown]")
    assert not is_installed("thing[quick]")
    distributions["fast"] = "1.9", None
    assert not is_installed("thing[quick]")
    distributions["fast"] = "2.0", None
    assert is_installed("thing[quick]")


def test_unavailable_metrics_say_what_to_install(distributions):
    assert available("mel") is None
    assert available("pesq") == "PESQ-WB needs pip install 'pesq'"
    distributions["pesq"] = "0.0.4", None
    assert available("pesq") is None
    distributions["resemblyzer"] = "0.1.4", None
    distributions["setuptools"] = "82.0", None
    needed = "speaker needs pip install 'resemblyzer' 'setuptools<82'"
    assert available("speaker") == needed


@pytest.mark.parametrize(
    "name, variable",
    [
        ("wer", recognition.RECOGNISER_VARIABLE),
        ("speaker", speaker.SPEAKER_VARIABLE),
    ],
)
def test_another_model_needs_no_package(
    name, variable, distributions, monkeypatch
):
    assert METRICS[name].variable == variable
    monkeypatch.delenv(variable, raising=False)
    assert available(name) is not None
    monkeypatch.setenv(variable, "owner/model")
    assert available(name) is None


# Bad input


@pytest.mark.parametrize("name", METRICS)
def test_signals_must_be_alike(name, speech):
    function = METRICS[name].function
    with pytest.raises(ValueError, match=r"found \[24000\] and \[23999\]"):
        function(speech, speech[1:], 24000)
    with pytest.raises(ValueError, match=r"found \[2, 5\] and \[2, 5\]"):
        function(np.ones((2, 5)), np.ones((2, 5)), 24000)
    assert math.isnan(function(speech[:0], speech[:0], 24000))


@pytest.mark.parametrize("name", sorted(METRICS.keys() - set(REFERENCE_FREE)))
def test_nothing_is_compared_with_silence(name, speech):
    silence = np.zeros_like(speech)
    assert math.isnan(METRICS[name].function(silence, speech, 24000))


@pytest.mark.parametrize("name", METRICS)
def test_silence_and_scraps_are_no_errors(name, speech):
    function = METRICS[name].function
    silence = np.zeros_like(speech)
    grain = speech[6000:6001]
    for reference, decoded in (speech, silence), (grain, grain):
        score = function(reference, decoded, 24000)
        assert isinstance(score, float) and not math.isinf(score)


# Levels


def test_level_is_reached_unless_it_would_clip(speech):
    quiet = to_level(speech, -26.0)
    rms = 20 * np.log10(np.sqrt(np.mean(quiet**2)))
    assert rms == pytest.approx(-26, abs=1e-6)
    loud = to_level(speech, 0.0, peak=0.95)
    assert np.abs(loud).max() == pytest.approx(0.95)
    assert not to_level(np.zeros(10)).any()


# Memory


def test_the_last_signals_are_remembered():
    seen = []

    @remembered
    def mean(signal, factor):
        seen.append((signal[0], factor))
        return factor * signal.mean()

    signals = [np.full(3, float(i)) for i in range(REMEMBERED_SIGNALS + 1)]
    assert [mean(x, 2) for x in signals[:-1]] == [
        2.0 * i for i in range(REMEMBERED_SIGNALS)
    ]
    assert mean(signals[0], 2) == 0.0 and len(seen) == REMEMBERED_SIGNALS
    # what was asked for the longest ago goes first
    mean(signals[-1], 2)
    mean(signals[0], 2)
    assert len(seen) == REMEMBERED_SIGNALS + 1
    mean(signals[1], 2)
    assert seen[-1] == (1.0, 2) and len(seen) == REMEMBERED_SIGNALS + 2
    # another argument, another result
    assert mean(signals[1], 3) == 3.0
    mean.forget()
    mean(signals[1], 3)
    assert seen[-2:] == [(1.0, 3), (1.0, 3)]
    assert signal_cache.remembered is remembered
