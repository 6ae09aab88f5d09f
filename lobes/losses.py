"""Training losses of the vocoder: spectral and adversarial.

Shapes: B items of a batch, T samples, F frequency bins, M mel bands, N frames.
"""

import torch
from torch import nn

from speechbrain_flowmac.lobes.mel_scale import mel_filterbank

__all__ = ["AdversarialLoss", "MultiResolutionSTFTLoss", "MultiScaleMelLoss"]


class _SpectralLoss(nn.Module):
    """Mean over scales of a difference between waveforms."""

    def __init__(self, scales):
        super().__init__()
        self.scales = nn.ModuleList(scales)
        # reflection at the ends takes half a window
        self.min_samples = max(scale.n_fft for scale in self.scales) // 2 + 1

    def forward(self, prediction, target):
        """Compare two batches of waveforms.

        Arguments
        ---------
        prediction : torch.Tensor
            Generated waveforms, [B, T].
        target : torch.Tensor
            True waveforms, [B, T].

        Returns
        -------
        torch.Tensor
            The loss, a float32 scalar, 0 for equal signals.

        Raises
        ------
        ValueError
            If the shapes differ, are not [B, T], or T is at most half the
            longest window.
        """
        if prediction.dim() != 2 or prediction.shape != target.shape:
            raise ValueError(
                "prediction and target must both be [B, T], found "
                f"{list(prediction.shape)} and {list(target.shape)}"
            )
        if prediction.shape[1] < self.min_samples:
            raise ValueError(
                f"waveforms need at least {self.min_samples} samples for the "
                f"longest window, found {prediction.shape[1]}"
            )
        with torch.autocast(prediction.device.type, enabled=False):
            prediction, target = prediction.float(), target.float()
            losses = [scale(prediction, target) for scale in self.scales]
            return torch.stack(losses).mean()


class _Magnitudes(nn.Module):
    """Magnitude spectra at one resolution."""

    def __init__(self, n_fft, hop_length, win_length):
        super().__init__()
        self.n_fft = n_fft
        self.hop_length = hop_length
        window = torch.hann_window(win_length)
        self.register_buffer("window", window, persistent=False)

    def magnitudes(self, wav):
        """[B, T] -> [B, F, N]."""
        spectrum = torch.stft(
            wav,
            self.n_fft,
            self.hop_length,
            len(self.window),
            self.window,
            center=True,
            pad_mode="reflect",
            return_complex=True,
        )
        # abs() of a complex zero has gradient zero, so silence is safe here.
        return spectrum.abs()


class _LogMelDifference(_Magnitudes):
    """Mean absolute difference of log mel spectra."""

    def __init__(self, sample_rate, n_fft, n_mels, f_min, f_max, floor):
        super().__init__(n_fft, n_fft // 4, n_fft)
        self.floor = floor
        filterbank = mel_filterbank(sample_rate, n_fft, n_mels, f_min, f_max)
        empty = int((filterbank.amax(dim=1) <= 0).sum())
        if empty:
            raise ValueError(
                f"{empty} of {n_mels} mel bands hold no frequency bin at "
                f"n_fft={n_fft}; use fewer bands or a longer window"
            )
        self.register_buffer("filterbank", filterbank, persistent=False)

    def log_mel(self, wav):
        """Natural logarithm, [B, T] -> [B, M, N]."""
        mel = self.filterbank @ self.magnitudes(wav)
        return mel.clamp(min=self.floor).log()

    def forward(self, prediction, target):
        return (self.log_mel(prediction) - self.log_mel(target)).abs().mean()


class MultiScaleMelLoss(_SpectralLoss):
    """Mean absolute difference of log mel spectra at several resolutions.

    Long windows resolve harmonics, short ones resolve onsets; the loss is the
    mean over the scales of the mean over items, bands and frames,

        L = 1/S sum_s mean |log max(mel_s(x), e) - log max(mel_s(y), e)|

    with magnitude (not power) spectra, Hann windows and a hop of a quarter
    window. The scales are those of "High-Fidelity Audio Compression with
    Improved RVQGAN" (arXiv 2306.06546), which sums log10 differences over seven
    scales with weight 15; since 15 * 7 / ln(10) = 45.6, the same balance needs
    a weight of 45.6 here, close to the 45 that HiFi-GAN (arXiv 2010.05646)
    gives to its single natural-log scale.

    The spectra are taken in float32, whatever autocast says.

    Arguments
    ---------
    sample_rate : int
        Samples per second.
    n_ffts : sequence of int
        Window lengths in samples, each a multiple of 4.
    n_mels : sequence of int
        Mel bands of each window, one for each entry of ``n_ffts``.
    f_min : float
        Lowest frequency of the bands, in Hz.
    f_max : float, optional
        Highest frequency of the bands, in Hz; half the sample rate if None.
    floor : float
        Mel magnitudes below this are raised to it before the logarithm.

    Raises
    ------
    ValueError
        If the scales are inconsistent, or a band holds no frequency bin.

    Example
    -------
    >>> loss = MultiScaleMelLoss(24000)
    >>> wav = torch.randn(2, 8192)
    >>> loss(wav, wav).item()
    0.0
    >>> bool(loss(0.5 * wav, wav) > 0)
    True
    """

    def __init__(
        self,
        sample_rate,
        n_ffts=(32, 64, 128, 256, 512, 1024, 2048),
        n_mels=(5, 10, 20, 40, 80, 160, 320),
        f_min=0.0,
        f_max=None,
        floor=1e-5,
    ):
        if not n_ffts or len(n_ffts) != len(n_mels):
            raise ValueError(
                "n_ffts and n_mels need one entry per scale, found "
                f"{len(n_ffts)} and {len(n_mels)}"
            )
        if any(n_fft < 4 or n_fft % 4 for n_fft in n_ffts):
            raise ValueError(
                f"n_ffts must be positive multiples of 4, found {list(n_ffts)}"
            )
        if floor <= 0:
            raise ValueError(f"floor must be positive, found {floor}")
        super().__init__(
            _LogMelDifference(sample_rate, n_fft, bands, f_min, f_max, floor)
            for n_fft, bands in zip(n_ffts, n_mels, strict=True)
        )


class _STFTDifference(_Magnitudes):
    """Spectral convergence plus mean absolute difference of log magnitudes."""

    def __init__(self, n_fft, hop_length, win_length, floor):
        super().__init__(n_fft, hop_length, win_length)
        self.floor = floor

    def forward(self, prediction, target):
        prediction = self.magnitudes(prediction).clamp(min=self.floor)
        target = self.magnitudes(target).clamp(min=self.floor)
        # the floor also keeps the norm of a silent target above zero
        convergence = (prediction - target).norm() / target.norm()
        return convergence + (prediction.log() - target.log()).abs().mean()


class MultiResolutionSTFTLoss(_SpectralLoss):
    """Spectral convergence and log magnitude difference at several resolutions
    (Parallel WaveGAN, arXiv 1910.11480).

    With Y and X the magnitudes of the target and of the prediction,

        L = 1/R sum_r |Y - X|_F / |Y|_F + mean |log Y - log X|

    The first term follows the loud parts, the second the quiet ones. The norms
    are over the whole batch, as in the implementations of that paper: a silent
    item then cannot blow up the quotient. The spectra are taken in float32,
    whatever autocast says. (SpeechBrain's ``MultiScaleSTFTLoss`` asks
    ``torch.stft`` for real outputs, which current torch refuses.)

    Arguments
    ---------
    resolutions : sequence of (int, int, int)
        FFT size, hop and length of the Hann window in samples.
    floor : float
        Magnitudes below this are raised to it.

    Raises
    ------
    ValueError
        If a resolution is impossible or there is none.

    Example
    -------
    >>> loss = MultiResolutionSTFTLoss()
    >>> wav = torch.randn(2, 8192)
    >>> loss(wav, wav).item()
    0.0
    >>> round(loss(2 * wav, wav).item(), 3)  # 1 + log 2
    1.693
    """

    def __init__(
        self,
        resolutions=((1024, 120, 600), (2048, 240, 1200), (512, 50, 240)),
        floor=1e-5,
    ):
        if not resolutions:
            raise ValueError("need at least one resolution, found none")
        for n_fft, hop, win in resolutions:
            if not 0 < hop <= win <= n_fft:
                raise ValueError(
                    "resolutions need 0 < hop_length <= win_length <= n_fft, "
                    f"found {n_fft=}, hop_length={hop}, win_length={win}"
                )
        if floor <= 0:
            raise ValueError(f"floor must be positive, found {floor}")
        super().__init__(
            _STFTDifference(n_fft, hop, win, floor)
            for n_fft, hop, win in resolutions
        )


class AdversarialLoss(nn.Module):
    """The three adversarial objectives of a vocoder, checked and summed.

    The formulas are given objects, for example SpeechBrain's ``MSEGLoss``,
    ``MSEDLoss`` (least squares) or ``HingeGLoss``, ``HingeDLoss`` and its
    ``MelganFeatureLoss``. This class adds what they lack: scores are summed
    over the discriminators (HiFi-GAN, arXiv 2010.05646, section 2.4), lists of
    unequal length are refused rather than cut to the shorter, and no gradient
    flows into the features of real audio.

    SpeechBrain's hinge for the generator is ``relu(1 - fake)``, as in
    SoundStream (arXiv 2107.03312) and EnCodec (arXiv 2210.13438): the gradient
    of ``-fake``, until a score is above the margin, where it vanishes.

    Arguments
    ---------
    generator : callable
        ``generator(score_fake) -> scalar`` of one discriminator.
    discriminator : callable
        ``discriminator(score_fake, score_real) -> (total, real, fake)`` of one
        discriminator.
    feature_matching : callable
        ``feature_matching(feats_fake, feats_real) -> scalar`` of all
        discriminators.

    Example
    -------
    >>> from speechbrain.lobes.models.HifiGAN import (
    ...     MelganFeatureLoss,
    ...     MSEDLoss,
    ...     MSEGLoss,
    ... )
    >>> loss = AdversarialLoss(MSEGLoss(), MSEDLoss(), MelganFeatureLoss())
    >>> real, fake = [torch.ones(2, 9)], [torch.zeros(2, 9)]
    >>> loss.discriminator_loss(real, fake).item()
    0.0
    >>> feats = [[torch.ones(2, 4, 9)]]
    >>> terms = loss.generator_terms(fake, feats, feats)
    >>> {name: term.item() for name, term in terms.items()}
    {'adversarial': 1.0, 'feature_matching': 0.0}
    """

    def __init__(self, generator, discriminator, feature_matching):
        super().__init__()
        self.generator = generator
        self.discriminator = discriminator
        self.feature_matching = feature_matching

    def generator_terms(self, scores_fake, feats_fake, feats_real):
        """The unweighted terms that the generator minimises.

        Arguments
        ---------
        scores_fake : list of torch.Tensor
            One tensor of scores of generated audio per discriminator.
        feats_fake : list of list of torch.Tensor
            Inner features of generated audio, one list per discriminator.
        feats_real : list of list of torch.Tensor
            The same of real audio.

        Returns
        -------
        dict of str to torch.Tensor
            Scalars ``adversarial`` (a sum over discriminators) and
            ``feature_matching`` (as the given formula reduces it).

        Raises
        ------
        ValueError
            If a list is empty or the lists do not match.
        """
        _check_pairs("scores_fake", scores_fake, "feats_fake", feats_fake)
        _check_pairs("feats_fake", feats_fake, "feats_real", feats_real)
        for fake, real in zip(feats_fake, feats_real, strict=True):
            _check_pairs("feats_fake[i]", fake, "feats_real[i]", real)
        frozen = [[feat.detach() for feat in feats] for feats in feats_real]
        return {
            "adversarial": sum(self.generator(score) for score in scores_fake),
            "feature_matching": self.feature_matching(feats_fake, frozen),
        }

    def discriminator_loss(self, scores_real, scores_fake):
        """What the discriminators minimise.

        Arguments
        ---------
        scores_real : list of torch.Tensor
            One tensor of scores of real audio per discriminator.
        scores_fake : list of torch.Tensor
            The same of generated audio (which the caller has detached).

        Returns
        -------
        torch.Tensor
            Scalar, the sum over discriminators of the real and fake parts.

        Raises
        ------
        ValueError
            If a list is empty or the lengths differ.
        """
        _check_pairs("scores_real", scores_real, "scores_fake", scores_fake)
        return sum(
            self.discriminator(score_fake=fake, score_real=real)[0]
            for real, fake in zip(scores_real, scores_fake, strict=True)
        )


def _check_pairs(name, items, other_name, others):
    """Refuse lists that zip() would cut, and empty ones."""
    if not items or len(items) != len(others):
        raise ValueError(
            f"{name} and {other_name} must be non-empty and equally long, "
            f"found {len(items)} and {len(others)}"
        )
