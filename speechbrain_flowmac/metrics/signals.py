"""What metrics do to signals before they listen: levels and sample rates."""

import math

import numpy as np
import soxr
import torch

REFERENCE_LEVEL_DB = -26.0
WIDEBAND_RATE = 16000  # of the metrics that hear up to 8 kHz, in Hz
FULLBAND_RATE = 24000  # of those that hear up to 12 kHz, in Hz


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


def wideband(signal, sample_rate):
    """A signal [T] at 16 kHz.

    Example
    -------
    >>> wideband(np.zeros(24000), 24000).shape
    (16000,)
    """
    return soxr.resample(signal, sample_rate, WIDEBAND_RATE)


def fullband_pair(reference, decoded, sample_rate):
    """Two signals [T] at 24 kHz, for the networks of lobes: float32 [2, T'].

    Example
    -------
    >>> fullband_pair(np.zeros(160), np.ones(160), 16000).shape
    torch.Size([2, 240])
    """
    pair = np.stack([reference, decoded], axis=1)
    pair = soxr.resample(pair, sample_rate, FULLBAND_RATE)
    return torch.from_numpy(pair.T.copy()).float()
