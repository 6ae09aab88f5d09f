"""Accuracy of F0 and voicing."""

from typing import NamedTuple

import numpy as np
import torch

from speechbrain_flowmac.metrics.metric import intrusive
from speechbrain_flowmac.metrics.packages import optional
from speechbrain_flowmac.metrics.signal_cache import remembered
from speechbrain_flowmac.training.data import label_f0

SWIFT_F0_PACKAGES = ("swift-f0>=0.3,<0.4",)
# the package asks setuptools for its own version
HARVEST_PACKAGES = ("pyworld", "setuptools<82")
GROSS_ERROR = 0.2  # relative; beyond it, F0 is wrong, not inaccurate
F0_RANGE = (50.0, 600.0)  # of speech, in Hz
F0_FRAMES_PER_SECOND = 100


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
    pyworld = optional("pyworld", *HARVEST_PACKAGES)
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


@intrusive
def f0_cents(reference, decoded, sample_rate):
    """How far F0 is off where it is not grossly wrong.

    F0 of both signals is SwiftF0's (2508.18440), every 10 ms, from 50 to
    600 Hz; see `pitch_errors`.

    Arguments
    ---------
    reference : numpy.ndarray
        Shape [T].
    decoded : numpy.ndarray
        Shape [T].
    sample_rate : int
        In Hz, a multiple of 100.

    Returns
    -------
    float
        Mean absolute error in cents, lower is better; NaN where no frame is
        voiced in both.
    """
    return _signal_errors(reference, decoded, sample_rate).cents


@intrusive
def f0_gross(reference, decoded, sample_rate):
    """Gross errors of F0: by more than 20 %, as octaves are.

    Arguments
    ---------
    reference, decoded, sample_rate
        See `f0_cents`.

    Returns
    -------
    float
        Share of the frames that are voiced in both in %, lower is better; NaN
        where there are none.
    """
    return 100 * _signal_errors(reference, decoded, sample_rate).gross


@intrusive
def voicing_error(reference, decoded, sample_rate):
    """Voicing decision errors.

    Arguments
    ---------
    reference, decoded, sample_rate
        See `f0_cents`.

    Returns
    -------
    float
        Share of the frames that are voiced in only one of the signals in %,
        lower is better.
    """
    return 100 * _signal_errors(reference, decoded, sample_rate).voicing


def _signal_errors(reference, decoded, sample_rate):
    truth, found = (_swift_f0(x, sample_rate) for x in (reference, decoded))
    return pitch_errors(found, found > 0, truth)


@remembered
def _swift_f0(signal, sample_rate):
    optional("swift_f0", *SWIFT_F0_PACKAGES)
    hop = sample_rate // F0_FRAMES_PER_SECOND
    frames = -(-len(signal) // hop)
    f0 = label_f0(torch.from_numpy(signal), sample_rate, hop, frames, *F0_RANGE)
    return f0.numpy()
