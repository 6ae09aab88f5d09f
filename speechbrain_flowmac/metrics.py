"""Objective quality of coded speech.

PESQ and ESTOI guard against unintelligible output; they do not rank good
generative codecs (listeners often disagree with them).
"""

import math

import numpy as np
import soxr
import torch

REFERENCE_LEVEL_DB = -26.0
PESQ_RATE = 16000


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
    pair = [
        soxr.resample(signal, sample_rate, PESQ_RATE)
        for signal in (reference, decoded)
    ]
    try:
        return float(pesq.pesq(PESQ_RATE, *pair, "wb"))
    except (pesq.NoUtterancesError, pesq.BufferTooShortError):
        return float("nan")


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


def _optional(name):
    try:
        return __import__(name)
    except ImportError as error:
        raise ImportError(
            f"this metric needs {name}: pip install 'speechbrain-flowmac[eval]'"
        ) from error
