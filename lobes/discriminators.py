"""Waveform discriminators for adversarial vocoder training.

All of them map waveforms [B, T] to a list of scores, [B, S] each, and a list of
lists of inner features, one entry per sub-discriminator: the format that
SpeechBrain's HiFi-GAN losses and :mod:`speechbrain_flowmac.lobes.losses` take.
So they can be combined at will with :class:`MultiDiscriminator`.

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
    "MultiResolutionDiscriminator",
    "MultiScaleSubbandCQTDiscriminator",
    "PeriodDiscriminator",
    "SpectrogramDiscriminator",
    "SubbandCQTDiscriminator",
]


class PeriodDiscriminator(ConvDiscriminator):
    """Looks at samples one period apart (HiFi-GAN, arXiv 2010.05646, 2.3).

    The waveform is folded into rows of ``period`` samples; the kernels are one
    column wide, so each column is judged alone.

    Arguments
    ---------
    period : int
        Samples per row.
    channels : sequence of int
        Widths of the layers; all but the last shorten the columns by
        ``stride``.
    kernel_size : int
        Rows that a kernel spans, odd.
    stride : int
        Rows between two outputs of a layer.

    Example
    -------
    >>> judge = PeriodDiscriminator(3, channels=(4, 8))
    >>> scores, features = judge(torch.randn(2, 100))
    >>> scores[0].shape, [tuple(f.shape) for f in features[0]]
    (torch.Size([2, 36]), [(2, 4, 12, 3), (2, 8, 12, 3), (2, 1, 12, 3)])
    """

    def __init__(
        self,
        period,
        channels=(32, 128, 512, 1024, 1024),
        kernel_size=5,
        stride=3,
    ):
        if period < 1:
            raise ValueError(f"period must be at least 1, found {period}")
        if kernel_size % 2 == 0:
            raise ValueError(f"kernel_size must be odd, found {kernel_size}")
        if not channels:
            raise ValueError("channels needs at least one width, found none")
        inputs = [1, *channels[:-1]]
        strides = [stride] * (len(channels) - 1) + [1]
        convolutions = [
            nn.Conv2d(
                narrow,
                wide,
                (kernel_size, 1),
                (step, 1),
                padding=(kernel_size // 2, 0),
            )
            for narrow, wide, step in zip(
                inputs, channels, strides, strict=True
            )
        ]
        output = nn.Conv2d(channels[-1], 1, (3, 1), padding=(1, 0))
        super().__init__(convolutions, output)
        self.period = period

    def image(self, wav):
        """Fold into rows of one period, completing the last by reflection.

        Arguments
        ---------
        wav : torch.Tensor
            Waveforms, [B, T] with T at least the period.

        Returns
        -------
        torch.Tensor
            [B, 1, ceil(T / period), period].
        """
        check_length(wav, self.period)
        missing = -wav.shape[1] % self.period
        wav = pad(wav.unsqueeze(1), (0, missing), mode="reflect")
        return wav.unflatten(2, (-1, self.period))


class SpectrogramDiscriminator(ConvDiscriminator):
    """Looks at a magnitude spectrogram (UnivNet, arXiv 2106.07889; used by
    BigVGAN, arXiv 2206.04658).

    Kernels span 3 bins and 9 frames (3 and 3 in the last layers); three of the
    layers halve the number of frames. The spectrum is taken in float32,
    whatever autocast says.

    Arguments
    ---------
    n_fft : int
        FFT size in samples.
    hop_length : int
        Samples between frames, below ``n_fft``.
    win_length : int
        Length of the Hann window in samples, at most ``n_fft``.
    channels : int
        Width of every layer.

    Example
    -------
    >>> judge = SpectrogramDiscriminator(64, 16, 32, channels=4)
    >>> scores, features = judge(torch.randn(2, 320))
    >>> judge.image(torch.randn(2, 320)).shape
    torch.Size([2, 1, 33, 20])
    >>> scores[0].shape, len(features[0])
    (torch.Size([2, 99]), 6)
    """

    def __init__(self, n_fft, hop_length, win_length, channels=32):
        if not 0 < hop_length < n_fft or not 0 < win_length <= n_fft:
            raise ValueError(
                "need 0 < hop_length < n_fft and 0 < win_length <= n_fft, "
                f"found {n_fft=}, {hop_length=}, {win_length=}"
            )
        layers = [(1, (3, 9), 1)]
        layers += [(channels, (3, 9), (1, 2))] * 3
        layers += [(channels, (3, 3), 1)]
        convolutions = [
            nn.Conv2d(narrow, channels, size, step, padding=(1, size[1] // 2))
            for narrow, size, step in layers
        ]
        output = nn.Conv2d(channels, 1, (3, 3), padding=1)
        super().__init__(convolutions, output)
        self.n_fft = n_fft
        self.hop_length = hop_length
        window = torch.hann_window(win_length)
        self.register_buffer("window", window, persistent=False)

    def image(self, wav):
        """Magnitude spectrogram after reflection of (n_fft - hop) / 2 samples
        at both ends.

        Arguments
        ---------
        wav : torch.Tensor
            Waveforms, [B, T] with T above (n_fft - hop) / 2.

        Returns
        -------
        torch.Tensor
            float32, [B, 1, F, N] with F = n_fft // 2 + 1.
        """
        spectrum = _stft(wav, self.n_fft, self.hop_length, self.window)
        # abs() of a complex zero has gradient zero: silence is safe.
        return spectrum.abs().unsqueeze(1)


class LogSpectrogramDiscriminator(ConvDiscriminator):
    """Looks at a log-magnitude spectrogram with few, overlapping frames.

    Magnitudes themselves are tiny but for a few peaks, so a small network
    takes thousands of steps to look past its bias; their logarithms are of
    one size, and it tells plain vocoders from speech within a few hundred.
    With this and hops of a quarter of the window it is a discriminator for
    CPUs. The design is ours.

    Kernels span 5 bins and 3 frames; the layers halve the number of bins, the
    last two the number of frames too.

    Arguments
    ---------
    n_fft : int
        FFT size and length of the Hann window in samples, a multiple of 4;
        the hop is a quarter of it.
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
        if n_fft < 4 or n_fft % 4:
            raise ValueError(f"n_fft must be a multiple of 4, found {n_fft}")
        strides = [(2, 1), (2, 1), (2, 2), (2, 2)]
        inputs = [1] + [channels] * 3
        convolutions = [
            nn.Conv2d(narrow, channels, (5, 3), stride, padding=(2, 1))
            for narrow, stride in zip(inputs, strides, strict=True)
        ]
        output = nn.Conv2d(channels, 1, (3, 3), padding=1)
        super().__init__(convolutions, output)
        self.n_fft = n_fft
        window = torch.hann_window(n_fft)
        self.register_buffer("window", window, persistent=False)

    def image(self, wav):
        """Logarithms of magnitudes, brought to about -2 to 2.

        Arguments
        ---------
        wav : torch.Tensor
            Waveforms, [B, T] with T above 3/8 of the window.

        Returns
        -------
        torch.Tensor
            float32, [B, 1, n_fft // 2 + 1, N].
        """
        spectrum = _stft(wav, self.n_fft, self.n_fft // 4, self.window)
        return (spectrum.abs() + self.floor).log().unsqueeze(1) / 2 + 1


class BandSplitDiscriminator(ConvDiscriminator):
    """Looks at the complex spectrogram, band by band (DAC, arXiv
    2306.06546).

    The real and imaginary parts are two channels, so that phase is judged too.
    Each band has its own stack of convolutions, and the output layer joins
    them; so the low bands, which hold most of the energy, cannot drown the
    high ones. Kernels span 3 frames and 9 bins (3 and 3 in the last layers);
    three of the layers halve the number of bins. The waveforms are not
    normalised in volume, and the spectrum is taken in float32, whatever
    autocast says.

    Arguments
    ---------
    n_fft : int
        FFT size and length of the Hann window in samples; the hop is a quarter
        of it.
    channels : int
        Width of every layer.
    edges : sequence of float
        Where the bands meet, ascending, as parts of the Nyquist frequency.

    Example
    -------
    >>> judge = BandSplitDiscriminator(256, channels=4)
    >>> judge.image(torch.randn(2, 640)).shape
    torch.Size([2, 2, 10, 129])
    >>> scores, features = judge(torch.randn(2, 640))
    >>> scores[0].shape, len(features[0])
    (torch.Size([2, 180]), 26)
    """

    def __init__(self, n_fft, channels=32, edges=(0.1, 0.25, 0.5, 0.75)):
        n_bins = n_fft // 2 + 1
        bounds = [0, *(int(edge * n_bins) for edge in edges), n_bins]
        widths = [high - low for low, high in pairwise(bounds)]
        if n_fft < 4 or n_fft % 4 or min(widths) < 1:
            raise ValueError(
                "n_fft must be a multiple of 4, and every band hold a bin, "
                f"found {n_fft=} and bands of {widths} bins"
            )
        layers = [(2, (3, 9), 1)]
        layers += [(channels, (3, 9), (1, 2))] * 3
        layers += [(channels, (3, 3), 1)]
        super().__init__(
            [
                nn.Conv2d(
                    narrow, channels, size, step, padding=(1, size[1] // 2)
                )
                for _ in widths
                for narrow, size, step in layers
            ],
            nn.Conv2d(channels, 1, 3, padding=1),
        )
        self.depth = len(layers)
        self.widths = widths
        self.n_fft = n_fft
        window = torch.hann_window(n_fft)
        self.register_buffer("window", window, persistent=False)

    def image(self, wav):
        """Complex spectrogram after reflection of 3/8 of a window at both ends.

        Arguments
        ---------
        wav : torch.Tensor
            Waveforms, [B, T] with T above 3/8 of ``n_fft``.

        Returns
        -------
        torch.Tensor
            float32, real and imaginary parts [B, 2, N, F] with
            F = n_fft // 2 + 1.
        """
        spectrum = _stft(wav, self.n_fft, self.n_fft // 4, self.window)
        return torch.view_as_real(spectrum).permute(0, 3, 2, 1)

    def hidden(self, image):
        """Convolve each band alone.

        Arguments
        ---------
        image : torch.Tensor
            [B, 2, N, F].

        Returns
        -------
        x : torch.Tensor
            The last outputs of all bands side by side, [B, C, N, W].
        features : list of torch.Tensor
            Output of every layer of the first band, of the second, ...
        """
        bands = [
            activations(
                band, self.convolutions[i * self.depth : (i + 1) * self.depth]
            )
            for i, band in enumerate(image.split(self.widths, dim=3))
        ]
        joined = torch.cat([outputs[-1] for outputs in bands], dim=3)
        return joined, [output for outputs in bands for output in outputs]


def _stft(wav, n_fft, hop_length, window):
    """Complex spectrogram [B, F, N] of waveforms [B, T], after reflection of
    (n_fft - hop) / 2 samples at both ends."""
    margin = (n_fft - hop_length) // 2
    # Enough to reflect, and enough for one frame.
    check_length(wav, max(margin + 1, n_fft - 2 * margin))
    with torch.autocast(wav.device.type, enabled=False):
        wav = pad(wav.float().unsqueeze(1), (margin, margin), "reflect")
        return torch.stft(
            wav.squeeze(1),
            n_fft,
            hop_length,
            len(window),
            window,
            center=False,
            return_complex=True,
        )


class MultiPeriodDiscriminator(MultiDiscriminator):
    """A :class:`PeriodDiscriminator` for each of several periods, which are
    prime so that they overlap as little as possible (HiFi-GAN, arXiv
    2010.05646, section 2.3).

    Arguments
    ---------
    periods : sequence of int
        Samples per row.
    channels : sequence of int
        Widths of the layers.
    kernel_size : int
        Rows that a kernel spans, odd.
    stride : int
        Rows between two outputs of a layer.

    Example
    -------
    >>> judge = MultiPeriodDiscriminator(channels=(4, 8))
    >>> scores, _ = judge(torch.randn(2, 100))
    >>> len(scores)
    5
    """

    def __init__(
        self,
        periods=(2, 3, 5, 7, 11),
        channels=(32, 128, 512, 1024, 1024),
        kernel_size=5,
        stride=3,
    ):
        super().__init__(
            PeriodDiscriminator(period, channels, kernel_size, stride)
            for period in periods
        )


class MultiResolutionDiscriminator(MultiDiscriminator):
    """A :class:`SpectrogramDiscriminator` for each of several resolutions.

    Arguments
    ---------
    resolutions : sequence of (int, int, int)
        FFT size, hop and window length in samples; the default is that of
        UnivNet and BigVGAN.
    channels : int
        Width of every layer.

    Example
    -------
    >>> judge = MultiResolutionDiscriminator(channels=4)
    >>> scores, _ = judge(torch.randn(2, 2400))
    >>> len(scores)
    3
    """

    def __init__(
        self,
        resolutions=((1024, 120, 600), (2048, 240, 1200), (512, 50, 240)),
        channels=32,
    ):
        super().__init__(
            SpectrogramDiscriminator(n_fft, hop, win, channels)
            for n_fft, hop, win in resolutions
        )


class MultiLogSpectrogramDiscriminator(MultiDiscriminator):
    """A :class:`LogSpectrogramDiscriminator` for each of several windows.

    Arguments
    ---------
    n_ffts : sequence of int
        Window lengths in samples.
    channels : int
        Width of every layer.

    Example
    -------
    >>> judge = MultiLogSpectrogramDiscriminator(channels=4)
    >>> scores, _ = judge(torch.randn(2, 2400))
    >>> len(scores)
    3
    """

    def __init__(self, n_ffts=(2048, 1024, 512), channels=16):
        super().__init__(
            LogSpectrogramDiscriminator(n_fft, channels) for n_fft in n_ffts
        )


class MultiBandDiscriminator(MultiDiscriminator):
    """A :class:`BandSplitDiscriminator` for each of several windows (DAC, arXiv
    2306.06546).

    Arguments
    ---------
    n_ffts : sequence of int
        Window lengths in samples.
    channels : int
        Width of every layer.
    edges : sequence of float
        Where the bands meet, ascending, as parts of the Nyquist frequency.

    Example
    -------
    >>> judge = MultiBandDiscriminator(channels=4)
    >>> scores, _ = judge(torch.randn(2, 2400))
    >>> len(scores)
    3
    """

    def __init__(
        self,
        n_ffts=(2048, 1024, 512),
        channels=32,
        edges=(0.1, 0.25, 0.5, 0.75),
    ):
        super().__init__(
            BandSplitDiscriminator(n_fft, channels, edges) for n_fft in n_ffts
        )
