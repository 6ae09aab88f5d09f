"""Waveform discriminators for adversarial vocoder training.

All map waveforms [B, T] to scores and features as `conv_discriminator` says,
so they can be combined at will with `MultiDiscriminator`.

Shapes: B items, T samples, C channels, F frequency bins, N frames.
"""

from itertools import pairwise

import torch
from torch import nn
from torch.nn.functional import pad

from speechbrain_flowmac.lobes.conv_discriminator import (
    ConvDiscriminator,
    MultiDiscriminator,
    activations,
    check_length,
)
from speechbrain_flowmac.lobes.cqt_discriminator import (
    MultiScaleSubbandCQTDiscriminator,
    SubbandCQTDiscriminator,
)

__all__ = [
    "BandSplitDiscriminator",
    "LogSpectrogramDiscriminator",
    "MultiBandDiscriminator",
    "MultiDiscriminator",
    "MultiLogSpectrogramDiscriminator",
    "MultiPeriodDiscriminator",
    "MultiScaleSubbandCQTDiscriminator",
    "PeriodDiscriminator",
    "SubbandCQTDiscriminator",
]

# rows that a kernel of the period discriminators spans, and rows between two
# outputs of a layer
PERIOD_KERNEL, PERIOD_STRIDE = 5, 3
# where the bands meet, as parts of the Nyquist frequency
BAND_EDGES = (0.1, 0.25, 0.5, 0.75)


class PeriodDiscriminator(ConvDiscriminator):
    """Looks at samples one period apart (HiFi-GAN, arXiv 2010.05646, 2.3).

    The waveform is folded into rows of ``period`` samples; the kernels are one
    column wide, so each column is judged alone.

    Arguments
    ---------
    period : int
        Samples per row.
    channels : sequence of int
        Widths of the layers; all but the last take every third row.

    Example
    -------
    >>> judge = PeriodDiscriminator(3, channels=(4, 8))
    >>> scores, features = judge(torch.randn(2, 100))
    >>> scores[0].shape, [tuple(f.shape) for f in features[0]]
    (torch.Size([2, 36]), [(2, 4, 12, 3), (2, 8, 12, 3), (2, 1, 12, 3)])
    """

    def __init__(self, period, channels=(32, 128, 512, 1024, 1024)):
        if period < 1:
            raise ValueError(f"period must be at least 1, found {period}")
        if not channels:
            raise ValueError("channels needs at least one width, found none")
        inputs = [1, *channels[:-1]]
        strides = [PERIOD_STRIDE] * (len(channels) - 1) + [1]
        convolutions = [
            nn.Conv2d(
                narrow,
                wide,
                (PERIOD_KERNEL, 1),
                (stride, 1),
                padding=(PERIOD_KERNEL // 2, 0),
            )
            for narrow, wide, stride in zip(
                inputs, channels, strides, strict=True
            )
        ]
        output = nn.Conv2d(channels[-1], 1, (3, 1), padding=(1, 0))
        super().__init__(convolutions, output)
        self.period = period

    def image(self, wav):
        """Rows of one period, [B, 1, ceil(T / period), period].

        The last is completed by reflection; T is at least the period.
        """
        check_length(wav, self.period)
        missing = -wav.shape[1] % self.period
        wav = pad(wav.unsqueeze(1), (0, missing), mode="reflect")
        return wav.unflatten(2, (-1, self.period))


class SpectrumDiscriminator(ConvDiscriminator):
    """Looks at a spectrum with a Hann window and a hop of a quarter of it.

    Arguments
    ---------
    n_fft : int
        FFT size and window in samples, a multiple of 4.
    convolutions, output
        See `ConvDiscriminator`.
    """

    def __init__(self, n_fft, convolutions, output):
        if n_fft < 4 or n_fft % 4:
            raise ValueError(f"n_fft must be a multiple of 4, found {n_fft}")
        super().__init__(convolutions, output)
        self.n_fft = n_fft
        window = torch.hann_window(n_fft)
        self.register_buffer("window", window, persistent=False)

    def spectrum(self, wav):
        """Complex, [B, F, N], after reflection at both ends.

        T is above 3/8 of the window. In float32, whatever autocast says.
        """
        hop = self.n_fft // 4
        margin = (self.n_fft - hop) // 2
        # enough to reflect, and enough for one frame
        check_length(wav, max(margin + 1, self.n_fft - 2 * margin))
        with torch.autocast(wav.device.type, enabled=False):
            wav = pad(wav.float().unsqueeze(1), (margin, margin), "reflect")
            return torch.stft(
                wav.squeeze(1),
                self.n_fft,
                hop,
                window=self.window,
                center=False,
                return_complex=True,
            )


class LogSpectrogramDiscriminator(SpectrumDiscriminator):
    """Looks at a log-magnitude spectrogram with few, overlapping frames.

    Magnitudes themselves are tiny but for a few peaks, so a small network
    takes thousands of steps to look past its bias; their logarithms are of
    one size, and it tells plain vocoders from speech within a few hundred.
    The design is ours, for CPUs.

    Kernels span 5 bins and 3 frames; the layers halve the number of bins, the
    last two the number of frames too.

    Arguments
    ---------
    n_fft : int
        See `SpectrumDiscriminator`.
    channels : int
        Width of every layer.

    Example
    -------
    >>> judge = LogSpectrogramDiscriminator(64, channels=4)
    >>> judge.image(torch.randn(2, 320)).shape
    torch.Size([2, 1, 33, 20])
    >>> scores, features = judge(torch.randn(2, 320))
    >>> scores[0].shape, len(features[0])
    (torch.Size([2, 15]), 5)
    """

    floor = 1e-3  # below it, silence; -60 dB of speech at a usual level

    def __init__(self, n_fft, channels=16):
        strides = [(2, 1), (2, 1), (2, 2), (2, 2)]
        inputs = [1] + [channels] * 3
        convolutions = [
            nn.Conv2d(narrow, channels, (5, 3), stride, padding=(2, 1))
            for narrow, stride in zip(inputs, strides, strict=True)
        ]
        output = nn.Conv2d(channels, 1, (3, 3), padding=1)
        super().__init__(n_fft, convolutions, output)

    def image(self, wav):
        """Log magnitudes, brought to about -2 to 2, [B, 1, F, N]."""
        magnitude = self.spectrum(wav).abs()
        return (magnitude + self.floor).log().unsqueeze(1) / 2 + 1


class BandSplitDiscriminator(SpectrumDiscriminator):
    """Looks at the complex spectrum, band by band (DAC, arXiv 2306.06546).

    Real and imaginary part are two channels, so that phase is judged too. Each
    band has its own stack of convolutions, and the output layer joins them; so
    the low bands, which hold most of the energy, cannot drown the high ones.
    Kernels span 3 frames and 9 bins (3 and 3 in the last layers); three of the
    layers halve the number of bins. Waveforms are not normalised in volume.

    Arguments
    ---------
    n_fft : int
        See `SpectrumDiscriminator`.
    channels : int
        Width of every layer.

    Example
    -------
    >>> judge = BandSplitDiscriminator(256, channels=4)
    >>> judge.image(torch.randn(2, 640)).shape
    torch.Size([2, 2, 10, 129])
    >>> scores, features = judge(torch.randn(2, 640))
    >>> scores[0].shape, len(features[0])
    (torch.Size([2, 180]), 26)
    """

    def __init__(self, n_fft, channels=32):
        n_bins = n_fft // 2 + 1
        bounds = [0, *(int(edge * n_bins) for edge in BAND_EDGES), n_bins]
        widths = [high - low for low, high in pairwise(bounds)]
        if min(widths) < 1:
            raise ValueError(
                f"every band must hold a bin, found bands of {widths} bins "
                f"at n_fft={n_fft}"
            )
        layers = [(2, (3, 9), 1)]
        layers += [(channels, (3, 9), (1, 2))] * 3
        layers += [(channels, (3, 3), 1)]
        convolutions = [
            nn.Conv2d(narrow, channels, size, step, padding=(1, size[1] // 2))
            for _ in widths
            for narrow, size, step in layers
        ]
        output = nn.Conv2d(channels, 1, 3, padding=1)
        super().__init__(n_fft, convolutions, output)
        self.depth = len(layers)
        self.widths = widths

    def image(self, wav):
        """Real and imaginary parts, [B, 2, N, F]."""
        return torch.view_as_real(self.spectrum(wav)).permute(0, 3, 2, 1)

    def hidden(self, image):
        """Convolves each band alone, see `ConvDiscriminator.hidden`."""
        bands = [
            activations(
                band, self.convolutions[i * self.depth : (i + 1) * self.depth]
            )
            for i, band in enumerate(image.split(self.widths, dim=3))
        ]
        joined = torch.cat([outputs[-1] for outputs in bands], dim=3)
        return joined, [output for outputs in bands for output in outputs]


class MultiPeriodDiscriminator(MultiDiscriminator):
    """A `PeriodDiscriminator` for each of several periods.

    They are prime, to overlap as little as possible.

    Example
    -------
    >>> judge = MultiPeriodDiscriminator(channels=(4, 8))
    >>> len(judge(torch.randn(2, 100))[0])
    5
    """

    def __init__(
        self,
        periods=(2, 3, 5, 7, 11),
        channels=(32, 128, 512, 1024, 1024),
    ):
        super().__init__(
            PeriodDiscriminator(period, channels) for period in periods
        )


class MultiLogSpectrogramDiscriminator(MultiDiscriminator):
    """A `LogSpectrogramDiscriminator` for each of several windows.

    Example
    -------
    >>> judge = MultiLogSpectrogramDiscriminator(channels=4)
    >>> len(judge(torch.randn(2, 2400))[0])
    3
    """

    def __init__(self, n_ffts=(2048, 1024, 512), channels=16):
        super().__init__(
            LogSpectrogramDiscriminator(n_fft, channels) for n_fft in n_ffts
        )


class MultiBandDiscriminator(MultiDiscriminator):
    """A `BandSplitDiscriminator` for each of several windows (DAC).

    Example
    -------
    >>> judge = MultiBandDiscriminator(channels=4)
    >>> len(judge(torch.randn(2, 2400))[0])
    3
    """

    def __init__(self, n_ffts=(2048, 1024, 512), channels=32):
        super().__init__(
            BandSplitDiscriminator(n_fft, channels) for n_fft in n_ffts
        )
