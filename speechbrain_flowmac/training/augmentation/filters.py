"""Filters and measures that augmentations share."""

import math

import numpy as np
from scipy.signal import oaconvolve

DEPTH_DB = 60.0  # below the loudest, others are nothing


def equalize(signal, sample_rate, frequencies, gains_db):
    """Filters by a response given at a few frequencies.

    Between them gains are interpolated over octaves; outside they stay. The
    filter is of minimum phase: nothing sounds before its cause.

    Arguments
    ---------
    signal : numpy.ndarray
        Shape [T].
    sample_rate : int
        In Hz.
    frequencies : numpy.ndarray
        In Hz, falling.
    gains_db : numpy.ndarray
        One for each.

    Returns
    -------
    numpy.ndarray
        Shape [T].
    """
    n_fft = 2048
    bins = np.fft.rfftfreq(n_fft, 1 / sample_rate)
    octaves = np.log2(np.maximum(bins, bins[1]))
    known = np.log2(frequencies[::-1])
    gains = np.interp(octaves, known, gains_db[::-1]) * math.log(10) / 20
    # the cepstrum of a filter of minimum phase has no negative times
    cepstrum = np.fft.irfft(gains, n_fft)
    cepstrum[1 : n_fft // 2] *= 2
    cepstrum[n_fft // 2 + 1 :] = 0
    response = np.fft.irfft(np.exp(np.fft.rfft(cepstrum)), n_fft)
    return oaconvolve(signal, response.astype(np.float32))[: len(signal)]


def bandwidth(signal, sample_rate):
    """Highest frequency that holds something: within `DEPTH_DB` of the loudest
    200 Hz.

    Arguments
    ---------
    signal : numpy.ndarray
        Shape [T].
    sample_rate : int
        In Hz.

    Returns
    -------
    float
        In Hz, a multiple of 200.
    """
    # a crop begins and ends anywhere: without a window its edges fill all bands
    windowed = signal * np.hanning(len(signal) + 2)[1:-1]
    power = np.square(np.abs(np.fft.rfft(windowed)))
    width = max(round(200 * len(signal) / sample_rate), 1)
    bands = np.add.reduceat(power, np.arange(0, len(power), width))
    loud = np.flatnonzero(bands > bands.max() * 10 ** (-DEPTH_DB / 10))
    return float(200 * (loud[-1] + 1)) if len(loud) else 0.0
