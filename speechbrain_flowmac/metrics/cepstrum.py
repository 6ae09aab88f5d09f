"""Mel cepstral distortion, defined down to its numbers.

Published values hang on the front end behind the cepstra: compare only values
that were worked out here.
"""

import math
from functools import cache

import torch

from speechbrain_flowmac.lobes.features import LogMel, MelSettings
from speechbrain_flowmac.metrics.metric import intrusive
from speechbrain_flowmac.metrics.signals import FULLBAND_RATE, fullband_pair

# 25 ms windows every 10 ms
MCD_SETTINGS = MelSettings(
    sample_rate=FULLBAND_RATE,
    n_fft=1024,
    hop_length=240,
    win_length=600,
    n_mels=40,
    f_min=0.0,
    f_max=12000.0,
)
MCD_ORDER = 13


@intrusive
def mcd(reference, decoded, sample_rate):
    """Mel cepstral distortion (Kubichek, 1993), without time warping.

    The mean of `mel_cepstral_distortion` over frames of log-mels at fixed
    settings, `MCD_SETTINGS`.

    Returns
    -------
    float
        In dB, lower is better.
    """
    pair = fullband_pair(reference, decoded, sample_rate)
    with torch.no_grad():
        first, second = _mcd_features()(pair)
    return float(mel_cepstral_distortion(first, second).mean())


@cache
def _mcd_features():
    return LogMel(MCD_SETTINGS)


def mel_cepstral_distortion(reference, decoded, order=MCD_ORDER):
    """Distance in dB of smoothed spectra, whatever their levels.

    With L the natural log of the magnitudes of M mel bands,

        c_d = 2 / M  sum_m L_m cos(pi d (m + 1/2) / M),   d = 1 ... order
        MCD = 10 / ln 10  sqrt(2 sum_d (c_d - c'_d)^2)

    which is the RMS difference over the mel axis of 20 log10 of the magnitudes
    after all cosines but these have been left out: d = 0 is the level, and
    the upper ones are harmonics.

    Arguments
    ---------
    reference : torch.Tensor
        Log-mels, shape [..., M].
    decoded : torch.Tensor
        Log-mels, shape [..., M].
    order : int
        Of the highest coefficient.

    Returns
    -------
    torch.Tensor
        In dB, shape [...].

    Example
    -------
    >>> mel = torch.randn(3, 40)
    >>> mel_cepstral_distortion(mel, mel + 1.0).round(decimals=3)
    tensor([0., 0., 0.])
    """
    difference = reference - decoded
    bands = difference.shape[-1]
    middles = (torch.arange(bands) + 0.5) / bands
    degrees = torch.arange(1, order + 1)
    cosines = torch.cos(math.pi * middles[:, None] * degrees) * 2 / bands
    shifts = difference @ cosines
    return 10 / math.log(10) * (2 * shifts.square().sum(-1)).sqrt()
