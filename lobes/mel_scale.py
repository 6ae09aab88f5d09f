"""Slaney's mel scale and the filters on it, as librosa has them."""

import math

import torch


def hz_to_mel(hz):
    """Slaney's mel scale of Hz: linear below 1 kHz, logarithmic above.

    Example
    -------
    >>> hz_to_mel(torch.tensor([0.0, 1000.0, 6400.0]))
    tensor([ 0., 15., 42.])
    """
    linear = hz * (3 / 200)
    steps = 27 / math.log(6.4)
    return torch.where(
        hz < 1000, linear, 15 + steps * torch.log(hz.clamp(min=1000) / 1000)
    )


def mel_to_hz(mel):
    """Inverse of `hz_to_mel`.

    Example
    -------
    >>> mel_to_hz(torch.tensor([15.0, 42.0]))
    tensor([1000., 6400.])
    """
    steps = 27 / math.log(6.4)
    return torch.where(
        mel < 15,
        mel * (200 / 3),
        1000 * torch.exp((mel.clamp(min=15) - 15) / steps),
    )


def mel_filterbank(sample_rate, n_fft, n_mels, f_min=0.0, f_max=None):
    """Triangular filters on Slaney's mel scale, each of unit area.

    Arguments are those of `MelSettings`; float32 [n_mels, n_fft // 2 + 1].

    Example
    -------
    >>> mel_filterbank(24000, 2048, 128).shape
    torch.Size([128, 1025])
    """
    f_max = sample_rate / 2 if f_max is None else f_max
    edges = torch.tensor([f_min, f_max], dtype=torch.float64)
    low, high = hz_to_mel(edges).tolist()
    corners = mel_to_hz(
        torch.linspace(low, high, n_mels + 2, dtype=torch.float64)
    )
    bins = torch.linspace(
        0, sample_rate / 2, n_fft // 2 + 1, dtype=torch.float64
    )
    width = corners.diff()
    slopes = corners[:, None] - bins[None]
    rising = -slopes[:-2] / width[:-1, None]
    falling = slopes[2:] / width[1:, None]
    triangles = torch.minimum(rising, falling).clamp(min=0)
    area = 2 / (corners[2:] - corners[:-2])
    return (triangles * area[:, None]).float()
