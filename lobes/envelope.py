"""The spectral envelope that a log-mel already states.

A frame-rate vocoder that starts from it has only the fine structure to learn:
FreeV (2406.08196) and RNDVoC (2507.20731) start from the pseudo-inverse of
the filterbank, which can be negative; interpolation between bands cannot.
"""

import math

import torch
from torch import nn

from speechbrain_flowmac.lobes.features import (
    hz_to_mel,
    mel_filterbank,
    mel_to_hz,
)

# mean of |X| over its root mean square, X complex Gaussian
RAYLEIGH_MEAN = math.sqrt(math.pi) / 2


class MelEnvelope(nn.Module):
    """Log-mel to the log gain of a filter for a source of unit power.

    White noise of standard deviation s has the mel c_b r s in band b, with
    c_b the sum of the band's filter and r the mean magnitude of a bin at
    s = 1. So log s = log-mel - log(c_b r) at the centre of a band; between
    centres it is interpolated.

    Arguments
    ---------
    mel_settings : MelSettings
        The front end of the mels.
    n_fft : int
        FFT size of the filter.

    Example
    -------
    >>> from speechbrain_flowmac.lobes.features import LogMel, MelSettings
    >>> settings = MelSettings()
    >>> mel = LogMel(settings)(0.1 * torch.randn(1, 24000))
    >>> gain = MelEnvelope(settings, 1024)(mel).exp()
    >>> gain.shape, round(gain.mean().item(), 1)
    (torch.Size([1, 47, 513]), 0.1)
    """

    def __init__(self, mel_settings, n_fft):
        super().__init__()
        s = mel_settings
        filters = mel_filterbank(
            s.sample_rate, s.n_fft, s.n_mels, s.f_min, s.f_max
        )
        # narrow filters may miss all bins
        width = filters.sum(1).clamp(min=1e-4)
        power = torch.hann_window(s.win_length).square().sum()
        magnitude = RAYLEIGH_MEAN * power.sqrt()
        self.register_buffer(
            "offset", -(width * magnitude).log(), persistent=False
        )
        self.register_buffer(
            "interpolation", _interpolation(s, n_fft), persistent=False
        )

    def forward(self, mel):
        """[B, N, M] to [B, N, n_fft / 2 + 1], float32."""
        return (mel.float() + self.offset.float()) @ self.interpolation.float()


def _interpolation(settings, n_fft):
    """Weights [M, bins] of the bands around each bin, linear in Hz."""
    s = settings
    bins = torch.linspace(0, s.sample_rate / 2, n_fft // 2 + 1)
    centres = _band_centres(s)
    above = torch.searchsorted(centres, bins).clamp(1, s.n_mels - 1)
    low, high = centres[above - 1], centres[above]
    share = ((bins - low) / (high - low)).clamp(0, 1)
    rows = torch.arange(len(bins))
    weights = torch.zeros(len(bins), s.n_mels)
    weights[rows, above - 1] = 1 - share
    weights[rows, above] = share
    return weights.T.contiguous()


def _band_centres(settings):
    """Centres of the mel bands in Hz, shape [M]."""
    edges = torch.tensor([settings.f_min, settings.f_max])
    low, high = hz_to_mel(edges).tolist()
    return mel_to_hz(torch.linspace(low, high, settings.n_mels + 2))[1:-1]
