"""Distances between waveforms, spectra and mels.

All hear up to 12 kHz: they work at 24 kHz, with fixed settings, so that systems
of other rates and mels compare. The mels are those that the paper's FlowMAC codes,
which favours codecs of mels: `stft_distance` is nobody's own.
"""

from functools import cache

import numpy as np
import torch
from speechbrain.nnet.losses import cal_si_snr

from speechbrain_flowmac.lobes.features import LogMel, MelSettings
from speechbrain_flowmac.lobes.losses import MultiResolutionSTFTLoss
from speechbrain_flowmac.metrics.metric import intrusive
from speechbrain_flowmac.metrics.signals import FULLBAND_RATE, fullband_pair

MEL_SETTINGS = MelSettings(
    sample_rate=FULLBAND_RATE,
    n_fft=2048,
    hop_length=512,
    win_length=2048,
    n_mels=128,
    f_min=0.0,
    f_max=12000.0,
)


@intrusive
def si_sdr(reference, decoded, sample_rate):
    """Scale-invariant signal-to-distortion ratio (Le Roux et al., 1811.02508).

    It asks for the waveform itself: codecs that make up phases, as generative
    ones do, score below 0 dB however they sound. Means are removed first, as
    in SpeechBrain's SI-SNR.

    Arguments
    ---------
    reference : numpy.ndarray
        Shape [T].
    decoded : numpy.ndarray
        Shape [T].
    sample_rate : int
        Not looked at.

    Returns
    -------
    float
        In dB, higher is better, about 100 for equal signals; NaN where a
        signal is constant.
    """
    if not (np.ptp(reference) and np.ptp(decoded)):
        return float("nan")
    pair = [torch.tensor(x)[:, None, None] for x in (reference, decoded)]
    return -float(cal_si_snr(*pair))


@intrusive
def mel_distance(reference, decoded, sample_rate):
    """Mean absolute difference of log-mels at fixed settings, `MEL_SETTINGS`.

    Returns
    -------
    float
        In natural-log units, lower is better.
    """
    pair = fullband_pair(reference, decoded, sample_rate)
    return log_mel_distance(*pair.numpy(), _mel_features())


@cache
def _mel_features():
    return LogMel(MEL_SETTINGS)


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
    pair = torch.stack([torch.as_tensor(x) for x in (reference, decoded)])
    with torch.no_grad():
        first, second = features(pair.float())
    return float((first - second).abs().mean())


@intrusive
def stft_distance(reference, decoded, sample_rate):
    """Multi-resolution STFT distance (Parallel WaveGAN, 1910.11480).

    Spectral convergence plus the difference of log magnitudes, of windows of
    10, 25 and 50 ms; see `MultiResolutionSTFTLoss`.

    Returns
    -------
    float
        Lower is better; NaN for less than 43 ms.
    """
    pair = fullband_pair(reference, decoded, sample_rate)
    loss = _stft_loss()
    if pair.shape[1] < loss.min_samples:
        return float("nan")
    with torch.no_grad():
        return float(loss(pair[1:], pair[:1]))


@cache
def _stft_loss():
    return MultiResolutionSTFTLoss()
