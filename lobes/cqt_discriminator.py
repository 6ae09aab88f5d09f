"""Discriminators that look at constant-Q transforms.

"Multi-Scale Sub-Band Constant-Q Transform Discriminator for High-Fidelity
Vocoder" (Gu et al., arXiv 2311.14957), which BigVGAN v2 trains with. The
transform is nnAudio's, an optional dependency.

Shapes: B items, T samples, N frames, F frequency bins.
"""

import torch
from torch import nn
from torchaudio.transforms import Resample

from speechbrain_flowmac.lobes.conv_discriminator import (
    ConvDiscriminator,
    MultiDiscriminator,
    check_length,
)

__all__ = ["MultiScaleSubbandCQTDiscriminator", "SubbandCQTDiscriminator"]


class SubbandCQTDiscriminator(ConvDiscriminator):
    """Looks at the real and imaginary parts of a constant-Q transform.

    Bins are spaced by pitch, ``bins_per_octave`` of them from 32.70 Hz (C1)
    on: low notes are resolved finely, where an STFT blurs them. Octaves are
    computed from ever more decimated signals, which leaves them misaligned in
    time; a convolution for each octave, without activation, lets the network
    align them before all octaves are judged together.

    Kernels span 3 frames and 9 bins; three of the layers halve the number of
    bins, while their kernels spread over 1, 2 and 4 frames. The transform is
    taken in float32, whatever autocast says, and adds nothing to the state
    dict.

    Arguments
    ---------
    sample_rate : int
        Samples per second of the waveforms. The transform runs at twice this
        rate, because the filters of the ninth octave reach up to 16.7 kHz.
    hop_length : int
        Samples between frames at twice the rate, a multiple of
        ``2 ** (n_octaves - 1)``: every octave below the top halves it.
    n_octaves : int
        Octaves above 32.70 Hz.
    bins_per_octave : int
        Frequency bins of an octave.
    channels : int
        Width of every layer after those of the octaves.

    Example
    -------
    >>> judge = SubbandCQTDiscriminator(24000, channels=4)
    >>> judge.image(torch.randn(2, 2400)).shape
    torch.Size([2, 2, 19, 216])
    >>> scores, features = judge(torch.randn(2, 2400))
    >>> scores[0].shape, len(features[0])
    (torch.Size([2, 513]), 6)
    """

    def __init__(
        self,
        sample_rate,
        hop_length=256,
        n_octaves=9,
        bins_per_octave=24,
        channels=32,
    ):
        if hop_length < 1 or hop_length % 2 ** (n_octaves - 1):
            raise ValueError(
                f"hop_length must be a multiple of {2 ** (n_octaves - 1)} for "
                f"{n_octaves} octaves, found {hop_length}"
            )
        layers = [
            nn.Conv2d(2, channels, (3, 9), padding=(1, 4)),
            *(
                nn.Conv2d(
                    channels,
                    channels,
                    (3, 9),
                    (1, 2),
                    padding=(dilation, 4),
                    dilation=(dilation, 1),
                )
                for dilation in (1, 2, 4)
            ),
            nn.Conv2d(channels, channels, 3, padding=1),
        ]
        super().__init__(layers, nn.Conv2d(channels, 1, 3, padding=1))
        self.octaves = nn.ModuleList(
            nn.Conv2d(2, 2, (3, 9), padding=(1, 4)) for _ in range(n_octaves)
        )
        self.bins_per_octave = bins_per_octave
        self.resample = _unsaved(Resample(sample_rate, 2 * sample_rate))
        self.transform = _unsaved(
            _cqt_class()(
                2 * sample_rate,
                hop_length,
                n_bins=n_octaves * bins_per_octave,
                bins_per_octave=bins_per_octave,
                pad_mode="constant",
                earlydownsample=False,
                output_format="Complex",
                verbose=False,
            )
        )
        # the last decimation needs two samples
        self.min_samples = max(1, 2 ** (n_octaves - 2))

    def image(self, wav):
        """Real and imaginary parts, float32 [B, 2, N, F], low bins first.

        N = 2 T // hop_length + 1 and F = n_octaves * bins_per_octave; T is at
        least 2 ** (n_octaves - 2).
        """
        check_length(wav, self.min_samples)
        with torch.autocast(wav.device.type, enabled=False):
            spectrum = self.transform(self.resample(wav.float()))
        return spectrum.permute(0, 3, 2, 1)

    def hidden(self, image):
        """Aligns the octaves, then convolves them together."""
        octaves = image.split(self.bins_per_octave, dim=3)
        aligned = [
            convolution(octave)
            for convolution, octave in zip(self.octaves, octaves, strict=True)
        ]
        return super().hidden(torch.cat(aligned, dim=3))


class MultiScaleSubbandCQTDiscriminator(MultiDiscriminator):
    """A :class:`SubbandCQTDiscriminator` for each of several resolutions.

    Arguments
    ---------
    sample_rate : int
        Samples per second of the waveforms.
    hop_lengths : sequence of int
        Samples between frames at twice the rate, one for each resolution.
    bins_per_octave : sequence of int
        Frequency bins of an octave, one for each resolution.
    n_octaves : int
        Octaves above 32.70 Hz.
    channels : int
        Width of the layers.

    Example
    -------
    >>> judge = MultiScaleSubbandCQTDiscriminator(24000, channels=4)
    >>> scores, _ = judge(torch.randn(2, 2400))
    >>> len(scores)
    3
    """

    def __init__(
        self,
        sample_rate,
        hop_lengths=(512, 256, 256),
        bins_per_octave=(24, 36, 48),
        n_octaves=9,
        channels=32,
    ):
        super().__init__(
            SubbandCQTDiscriminator(sample_rate, hop, n_octaves, bins, channels)
            for hop, bins in zip(hop_lengths, bins_per_octave, strict=True)
        )


def _cqt_class():
    try:
        from nnAudio.features.cqt import CQT2010v2
    except ImportError as error:
        raise ImportError(
            "constant-Q discriminators need nnAudio: "
            'pip install "speechbrain-flowmac[train]"'
        ) from error
    return CQT2010v2


def _unsaved(module):
    """Keep the fixed filters of a module out of the state dict."""
    for name, buffer in list(module.named_buffers(recurse=False)):
        module.register_buffer(name, buffer, persistent=False)
    return module
