"""Snakes, the periodic activations of BigVGAN, without their aliases.

A snake makes harmonics, which alias; so it works at twice the rate, between
an upsampling and a downsampling low-pass f of 12 taps (Lee et al., 2206.04658):

    u[n] = 2 sum_j f[n - 2 j + 5] x[j]        y[i] = sum_n f[n - 2 i + 5] s(u[n])

Neither zeros nor skipped samples are ever computed: even and odd samples of
u are two signals, e[i] = u[2 i] and o[i] = u[2 i + 1], each with its own six
of the taps. The snake acts on both, and y is the sum of two convolutions.
"""

import math

import torch
from torch import nn
from torch.nn import functional as F

FILTER_TAPS = 12
# samples on each side that an anti-aliased snake sees
ACTIVATION_REACH = 5


def half_band_filter():
    """The low-pass at a quarter of the rate: a Kaiser-windowed sinc.

    Shape [1, 1, 12]; symmetric, of sum 1.

    Example
    -------
    >>> half_band_filter().sum()
    tensor(1.)
    """
    # Kaiser's formulas for a transition of 0.6 of the band (0.3 each way)
    attenuation = 2.285 * (FILTER_TAPS / 2 - 1) * math.pi * 4 * 0.3 + 7.95
    window = torch.kaiser_window(
        FILTER_TAPS,
        periodic=False,
        beta=0.1102 * (attenuation - 8.7),
        dtype=torch.float64,
    )
    time = torch.arange(FILTER_TAPS, dtype=torch.float64)
    taps = window * torch.sinc((time - (FILTER_TAPS - 1) / 2) / 2)
    return (taps / taps.sum()).float().view(1, 1, FILTER_TAPS)


class LowPass(nn.Module):
    """Holds `half_band_filter` under the name that it has in checkpoints.

    Example
    -------
    >>> even, odd = LowPass(4)()
    >>> even.shape, odd.shape
    (torch.Size([4, 1, 6]), torch.Size([4, 1, 6]))
    """

    def __init__(self, channels):
        super().__init__()
        self.channels = channels
        self.register_buffer("filter", half_band_filter())

    def forward(self):
        """Taps 0, 2, ... and taps 1, 3, ... for depthwise convolutions."""
        taps = self.filter.expand(self.channels, 1, FILTER_TAPS)
        return taps[..., 0::2], taps[..., 1::2]


class Snake(nn.Module):
    """x + sin(alpha x)^2 / beta, with alpha and beta for each channel.

    Arguments
    ---------
    channels : int
        C.
    separate_beta : bool
        Whether beta is a parameter of its own (SnakeBeta) or equals alpha.
    log_scale : bool
        Whether the parameters are logarithms.

    Example
    -------
    >>> Snake(2)(torch.zeros(1, 2, 3)).shape
    torch.Size([1, 2, 3])
    """

    def __init__(self, channels, separate_beta=True, log_scale=True):
        super().__init__()
        start = torch.full((channels,), 0.0 if log_scale else 1.0)
        self.log_scale = log_scale
        self.alpha = nn.Parameter(start)
        self.beta = nn.Parameter(start.clone()) if separate_beta else None

    def forward(self, x):
        """[B, C, T] to [B, C, T]."""
        alpha = self.alpha.unsqueeze(-1)
        beta = alpha if self.beta is None else self.beta.unsqueeze(-1)
        if self.log_scale:
            alpha, beta = alpha.exp(), beta.exp()
        # in place: on a CPU, new tensors of this size cost as much as sines
        wave = (x * alpha).sin_().square_()
        return torch.addcmul(x, wave, 1 / (beta + 1e-9))


class AntiAliasedSnake(nn.Module):
    """A snake at twice the rate; see the module's docstring.

    Signals go on past their ends with their first and last value: x before
    the upsampling, and its snake before the downsampling. Arguments are those
    of `Snake`.

    Example
    -------
    >>> AntiAliasedSnake(4)(torch.randn(2, 4, 9)).shape
    torch.Size([2, 4, 9])
    """

    def __init__(self, channels, separate_beta=True, log_scale=True):
        super().__init__()
        self.act = Snake(channels, separate_beta, log_scale)
        self.upsample = LowPass(channels)
        self.downsample = nn.ModuleDict({"lowpass": LowPass(channels)})

    def forward(self, x):
        """[B, C, T] to [B, C, T]."""
        channels = x.shape[1]
        ends = (*x.shape[:2], ACTIVATION_REACH)
        first, last = x[..., :1].expand(ends), x[..., -1:].expand(ends)
        x = torch.cat([first, x, last], dim=-1)
        even, odd = (2 * taps.flip(-1) for taps in self.upsample())
        # all that y needs: e[-2] ... e[T + 2] and o[-3] ... o[T + 1]
        e = F.conv1d(x, odd, groups=channels)
        o = F.conv1d(x, even, groups=channels)
        # u[0] = e[0] and u[2 T - 1] = o[T - 1] go on past the ends
        first, last = e[..., 2:3], o[..., -3:-2]
        e[..., :2], o[..., :3] = first, first
        e[..., -3:], o[..., -2:] = last, last
        even, odd = self.downsample["lowpass"]()
        y = F.conv1d(self.act(e), odd, groups=channels)
        return y.add_(F.conv1d(self.act(o), even, groups=channels))
