"""Objective quality of coded speech, and accuracy of F0.

PESQ and ESTOI guard against unintelligible output; they do not rank good
generative codecs (listeners often disagree with them). ViSQOL and DistillMOS
are nearer to listeners there. All but ESTOI and log-mels work at 16 kHz and
hear nothing above 8 kHz.

`METRICS` is the table of those that compare two waveforms. WARP-Q is not in
it: its package (`warpq` 1.5.2) imports only where numpy is patched to have
`numpy.float` again.
"""

import contextlib
import importlib
import math
import sys
from collections.abc import Callable
from functools import cache
from typing import NamedTuple

import numpy as np
import soxr
import torch

REFERENCE_LEVEL_DB = -26.0
WIDEBAND_RATE = 16000  # of the metrics that hear up to 8 kHz, in Hz
GROSS_ERROR = 0.2  # relative; beyond it, F0 is wrong, not inaccurate


def to_level(signal, level_db=REFERENCE_LEVEL_DB, peak=0.95):
    """Scales speech to an RMS level, without clipping.

    Arguments
    ---------
    signal : numpy.ndarray
        Shape [T].
    level_db : float
        RMS level relative to full scale, in dB.
    peak : float
        Highest magnitude allowed.

    Returns
    -------
    numpy.ndarray

    Example
    -------
    >>> rms = to_level(np.full(4, 0.5)).std() + to_level(np.full(4, 0.5)).mean()
    >>> round(20 * math.log10(rms), 3)
    -26.0
    """
    rms = math.sqrt(float(np.mean(np.square(signal)))) or 1.0
    gain = 10 ** (level_db / 20) / rms
    highest = float(np.abs(signal).max()) * gain
    return signal * (gain * min(1.0, peak / max(highest, 1e-9)))


def estoi(reference, decoded, sample_rate):
    """Extended short-time objective intelligibility (Jensen and Taal, 2016).

    Arguments
    ---------
    reference : numpy.ndarray
        Shape [T].
    decoded : numpy.ndarray
        Shape [T].
    sample_rate : int
        In Hz.

    Returns
    -------
    float
        About 0 to 1, higher is better.
    """
    pystoi = _optional("pystoi")
    return float(pystoi.stoi(reference, decoded, sample_rate, extended=True))


def pesq_wb(reference, decoded, sample_rate):
    """Wideband PESQ (ITU-T P.862.2), at 16 kHz.

    Arguments
    ---------
    reference : numpy.ndarray
        Shape [T].
    decoded : numpy.ndarray
        Shape [T].
    sample_rate : int
        In Hz.

    Returns
    -------
    float
        1.0 to 4.64, higher is better; NaN where it finds no speech, or
        less than a quarter of a second.
    """
    pesq = _optional("pesq")
    pair = [_wideband(x, sample_rate) for x in (reference, decoded)]
    try:
        return float(pesq.pesq(WIDEBAND_RATE, *pair, "wb"))
    except (pesq.NoUtterancesError, pesq.BufferTooShortError):
        return float("nan")


def visqol(reference, decoded, sample_rate):
    """ViSQOL version 3 in speech mode, at 16 kHz (Chinen et al., 2004.09584).

    Its deep lattice maps similarity to quality, as in Google's program; the
    package's other mapping is one or two points too kind to degraded speech.

    Arguments
    ---------
    reference : numpy.ndarray
        Shape [T].
    decoded : numpy.ndarray
        Shape [T].
    sample_rate : int
        In Hz.

    Returns
    -------
    float
        1 to 5, higher is better; NaN where the signals are too short or too
        different to be aligned.
    """
    pair = [_wideband(x, sample_rate) for x in (reference, decoded)]
    meter = _visqol_meter()
    try:
        return float(meter.measure_from_arrays(*pair, WIDEBAND_RATE).moslqo)
    except ValueError:
        return float("nan")


@cache
def _visqol_meter():
    meter = _optional("visqol", "visqol-python[lattice]").VisqolApi()
    meter.create(mode="speech", use_lattice_model=True)
    return meter


def distillmos(reference, decoded, sample_rate):
    """DistillMOS (Stahl and Gamper, 2502.05356), at 16 kHz.

    A network's guess at a listening test's mean opinion score.

    Arguments
    ---------
    reference : numpy.ndarray
        Not looked at: the metric needs none.
    decoded : numpy.ndarray
        Shape [T].
    sample_rate : int
        In Hz.

    Returns
    -------
    float
        1 to 5, higher is better.
    """
    model = _distillmos_model()
    wav = torch.from_numpy(_wideband(decoded, sample_rate)).float()
    with torch.no_grad():
        return float(model(wav.unsqueeze(0)))


@cache
def _distillmos_model():
    package = _optional("distillmos")
    # it prints where its weights lie
    with contextlib.redirect_stdout(sys.stderr):
        return package.ConvTransformerSQAModel().eval()


def log_mel_distance(reference, decoded, features):
    """Mean absolute difference of log-mels.

    Arguments
    ---------
    reference : numpy.ndarray
        Shape [T].
    decoded : numpy.ndarray
        Shape [T].
    features : LogMel
        Front end.

    Returns
    -------
    float
        In natural-log units, lower is better.
    """
    pair = torch.from_numpy(np.stack([reference, decoded])).float()
    with torch.no_grad():
        first, second = features(pair)
    return float((first - second).abs().mean())


class PitchErrors(NamedTuple):
    """How far F0 and voicing are from a reference.

    Arguments
    ---------
    gross : float
        Share of the frames voiced in both whose F0 is off by more than 20 %.
    cents : float
        Mean absolute error of the others, in cents.
    voicing : float
        Share of all frames that are voiced in only one.
    """

    gross: float
    cents: float
    voicing: float


def pitch_errors(f0, voiced, reference_f0):
    """Gross pitch error, fine error in cents and voicing decision error.

    Sources: Nakatani et al., Speech Communication 50(3), 2008; Chu and
    Alwan, ICASSP 2009.

    Arguments
    ---------
    f0 : numpy.ndarray
        In Hz, shape [F]; where unvoiced it means nothing.
    voiced : numpy.ndarray
        Bool, shape [F].
    reference_f0 : numpy.ndarray
        In Hz, 0 where unvoiced, shape [F].

    Returns
    -------
    PitchErrors
        NaN for what has no frames.

    Example
    -------
    >>> voiced = np.array([True, True, True, False])
    >>> reference = np.array([100.0, 100.0, 0.0, 0.0])
    >>> pitch_errors(np.array([100.0, 200.0, 90.0, 50.0]), voiced, reference)
    PitchErrors(gross=0.5, cents=0.0, voicing=0.25)
    """
    both = voiced & (reference_f0 > 0)
    ratio = f0[both] / reference_f0[both]
    gross = np.abs(ratio - 1) > GROSS_ERROR
    return PitchErrors(
        gross=_mean(gross),
        cents=_mean(np.abs(1200 * np.log2(ratio[~gross]))),
        voicing=_mean(voiced != (reference_f0 > 0)),
    )


def harvest_f0(signal, sample_rate, hop_length, num_frames, f_min, f_max):
    """F0 by Harvest (Morise, Interspeech 2017), at the middle of hops.

    An estimator without learning, for judging those that learnt from labels
    by another. It seldom misses a voice, but calls some breath voiced.

    Arguments
    ---------
    signal : torch.Tensor
        Shape [T].
    sample_rate : int
        In Hz.
    hop_length : int
        Samples per value.
    num_frames : int
        How many values are wanted.
    f_min : float
        Lowest F0 in Hz; at least WORLD's default of 71 Hz is used, because
        Harvest takes mains hum below it for voices.
    f_max : float
        Highest F0 in Hz.

    Returns
    -------
    torch.Tensor
        In Hz, 0 where unvoiced, float32 [num_frames].
    """
    # the package asks setuptools for its own version
    pyworld = _optional("pyworld", "pyworld", "setuptools<82")
    samples = np.zeros(num_frames * hop_length)
    samples[: len(signal)] = signal.numpy()[: len(samples)]
    # every half hop from 0 on: every second one is the middle of a hop
    f0, _ = pyworld.harvest(
        samples,
        sample_rate,
        f0_floor=max(f_min, pyworld.default_f0_floor),
        f0_ceil=f_max,
        frame_period=500 * hop_length / sample_rate,
    )
    return torch.from_numpy(f0[1::2][:num_frames]).float()


def _mean(values):
    return float(np.mean(values)) if len(values) else float("nan")


def _wideband(signal, sample_rate):
    return soxr.resample(signal, sample_rate, WIDEBAND_RATE)


def _optional(module, *packages):
    """Imports a module, or says which packages of pip it is in."""
    try:
        return importlib.import_module(module)
    except ImportError as error:
        wanted = " ".join(f"'{name}'" for name in packages or (module,))
        raise ImportError(
            f"this metric needs {module}: pip install {wanted}"
        ) from error


class Metric(NamedTuple):
    """What tables need to know of a metric.

    Arguments
    ---------
    heading : str
        Of its column.
    decimals : int
        Worth printing.
    higher_is_better : bool
        Which way it points.
    function : Callable
        `function(reference [T], decoded [T], sample_rate) -> float`.
    """

    heading: str
    decimals: int
    higher_is_better: bool
    function: Callable


METRICS = {
    "pesq": Metric("PESQ-WB", 2, True, pesq_wb),
    "estoi": Metric("ESTOI", 3, True, estoi),
    "visqol": Metric("ViSQOL", 2, True, visqol),
    "distillmos": Metric("DistillMOS", 2, True, distillmos),
}
