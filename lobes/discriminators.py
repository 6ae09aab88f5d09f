"""Waveform discriminators for adversarial vocoder training.

All of them map waveforms [B, T] to a list of scores, [B, S] each, and a list of
lists of inner features, one entry per sub-discriminator: the format that
SpeechBrain's HiFi-GAN losses and :mod:`speechbrain_flowmac.lobes.losses` take.
So they can be combined at will with :class:`MultiDiscriminator`.

Shapes: B items, T samples, C channels, F frequency bins, N frames.
"""

import torch
from torch import nn
from torch.nn.functional import leaky_relu, pad
from torch.nn.utils.parametrizations import weight_norm

__all__ = [
    "MultiDiscriminator",
    "MultiPeriodDiscriminator",
    "MultiResolutionDiscriminator",
    "PeriodDiscriminator",
    "SpectrogramDiscriminator",
]

NEGATIVE_SLOPE = 0.1


class _ConvDiscriminator(nn.Module):
    """Convolutions over an image of the waveform, [B, 1, H, W].

    Subclasses say what the image is (:meth:`image`).
    """

    def __init__(self, convolutions, output):
        super().__init__()
        self.convolutions = nn.ModuleList(map(weight_norm, convolutions))
        self.output = weight_norm(output)

    def forward(self, wav):
        """Score waveforms.

        Arguments
        ---------
        wav : torch.Tensor
            Waveforms, [B, T].

        Returns
        -------
        scores : list of torch.Tensor
            One tensor, [B, S]; high means real.
        features : list of list of torch.Tensor
            One list with the output of every layer, [B, C, H, W].

        Raises
        ------
        ValueError
            If the waveforms are not [B, T] or too short.
        """
        if wav.dim() != 2:
            raise ValueError(
                f"waveforms must be [B, T], found shape {list(wav.shape)}"
            )
        x = self.image(wav)
        features = []
        for convolution in self.convolutions:
            x = leaky_relu(convolution(x), NEGATIVE_SLOPE)
            features.append(x)
        x = self.output(x)
        features.append(x)
        return [x.flatten(1)], [features]


class PeriodDiscriminator(_ConvDiscriminator):
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
        n_samples = wav.shape[1]
        if n_samples < self.period:
            raise ValueError(
                f"waveforms need at least {self.period} samples, "
                f"found {n_samples}"
            )
        missing = -n_samples % self.period
        wav = pad(wav.unsqueeze(1), (0, missing), mode="reflect")
        return wav.unflatten(2, (-1, self.period))


class SpectrogramDiscriminator(_ConvDiscriminator):
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
        self.win_length = win_length
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
        margin = (self.n_fft - self.hop_length) // 2
        # Enough to reflect, and enough for one frame.
        shortest = max(margin + 1, self.n_fft - 2 * margin)
        if wav.shape[1] < shortest:
            raise ValueError(
                f"waveforms need at least {shortest} samples, "
                f"found {wav.shape[1]}"
            )
        with torch.autocast(wav.device.type, enabled=False):
            wav = pad(wav.float().unsqueeze(1), (margin, margin), "reflect")
            spectrum = torch.stft(
                wav.squeeze(1),
                self.n_fft,
                self.hop_length,
                self.win_length,
                self.window,
                center=False,
                return_complex=True,
            )
            # abs() of a complex zero has gradient zero: silence is safe.
            return spectrum.abs().unsqueeze(1)


class MultiDiscriminator(nn.Module):
    """Several discriminators side by side, as one.

    Arguments
    ---------
    discriminators : iterable of torch.nn.Module
        Modules from waveforms [B, T] to (scores, features), the members of
        this file or other :class:`MultiDiscriminator`.

    Example
    -------
    >>> judge = MultiDiscriminator(
    ...     [
    ...         MultiPeriodDiscriminator((2, 3), channels=(4, 8)),
    ...         SpectrogramDiscriminator(64, 16, 32, channels=4),
    ...     ]
    ... )
    >>> scores, features = judge(torch.randn(2, 320))
    >>> len(scores), [len(inner) for inner in features]
    (3, [3, 3, 6])
    """

    def __init__(self, discriminators):
        super().__init__()
        self.discriminators = nn.ModuleList(discriminators)
        if not self.discriminators:
            raise ValueError("need at least one discriminator, found none")

    def forward(self, wav):
        """Score waveforms by every discriminator, in order.

        Arguments
        ---------
        wav : torch.Tensor
            Waveforms, [B, T].

        Returns
        -------
        scores : list of torch.Tensor
            Scores of each sub-discriminator, [B, S] with S its own.
        features : list of list of torch.Tensor
            Layer outputs of each sub-discriminator.
        """
        scores, features = [], []
        for discriminator in self.discriminators:
            more_scores, more_features = discriminator(wav)
            scores += more_scores
            features += more_features
        return scores, features


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
