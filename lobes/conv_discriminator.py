"""What all waveform discriminators share, and their combination.

A discriminator maps waveforms [B, T] to a list of scores, [B, S] each, and a
list of lists of inner features, one entry per sub-discriminator: the format
that SpeechBrain's HiFi-GAN losses and `lobes.losses`
take.

Shapes: B items, T samples, C channels, H rows, W columns.
"""

from torch import nn
from torch.nn.functional import leaky_relu
from torch.nn.utils.parametrizations import weight_norm

__all__ = ["ConvDiscriminator", "MultiDiscriminator"]

NEGATIVE_SLOPE = 0.1


class ConvDiscriminator(nn.Module):
    """Convolutions over an image of the waveform, [B, C, H, W].

    Subclasses say what the image is (``image``), and may say how the layers
    are arranged (``hidden``).

    Arguments
    ---------
    convolutions : iterable of torch.nn.Conv2d
        The hidden layers; weight normalisation is added.
    output : torch.nn.Conv2d
        The last layer, to one channel; weight normalisation is added.
    """

    def __init__(self, convolutions, output):
        super().__init__()
        self.convolutions = nn.ModuleList(map(weight_norm, convolutions))
        self.output = weight_norm(output)

    def hidden(self, image):
        """The output layer's input [B, C, H, W], and every hidden output."""
        features = activations(image, self.convolutions)
        return features[-1], features

    def forward(self, wav):
        """Scores waveforms.

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
        """
        if wav.dim() != 2:
            raise ValueError(
                f"waveforms must be [B, T], found shape {list(wav.shape)}"
            )
        x, features = self.hidden(self.image(wav))
        x = self.output(x)
        return [x.flatten(1)], [[*features, x]]


def activations(x, convolutions):
    """Outputs of convolutions one after the other, each with a leaky ReLU."""
    outputs = []
    for convolution in convolutions:
        x = leaky_relu(convolution(x), NEGATIVE_SLOPE)
        outputs.append(x)
    return outputs


def check_length(wav, shortest):
    """Refuses waveforms [B, T] of fewer samples than `shortest`."""
    if wav.shape[1] < shortest:
        raise ValueError(
            f"waveforms need at least {shortest} samples, found {wav.shape[1]}"
        )


class MultiDiscriminator(nn.Module):
    """Several discriminators side by side, as one.

    Arguments
    ---------
    discriminators : iterable of torch.nn.Module
        Modules from waveforms [B, T] to (scores, features): any
        :class:`ConvDiscriminator` or other :class:`MultiDiscriminator`.

    Example
    -------
    >>> import torch
    >>> from speechbrain_flowmac.lobes.discriminators import (
    ...     LogSpectrogramDiscriminator,
    ...     MultiPeriodDiscriminator,
    ... )
    >>> judge = MultiDiscriminator(
    ...     [
    ...         MultiPeriodDiscriminator((2, 3), channels=(4, 8)),
    ...         LogSpectrogramDiscriminator(64, channels=4),
    ...     ]
    ... )
    >>> scores, features = judge(torch.randn(2, 320))
    >>> len(scores), [len(inner) for inner in features]
    (3, [3, 3, 5])
    """

    def __init__(self, discriminators):
        super().__init__()
        self.discriminators = nn.ModuleList(discriminators)
        if not self.discriminators:
            raise ValueError("need at least one discriminator, found none")

    def forward(self, wav):
        """Scores and features of every discriminator, in order."""
        scores, features = [], []
        for discriminator in self.discriminators:
            more_scores, more_features = discriminator(wav)
            scores += more_scores
            features += more_features
        return scores, features
