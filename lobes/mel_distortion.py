"""Mels made smoother or rougher than they are, to train a vocoder on.

A decoder that gives the mean of the mels it cannot tell apart gives smooth
ones, a sampler rough ones. A vocoder that heard both renders either
(2409.02517 does so for over-smoothed mels of text-to-speech).
"""

import torch
from torch import nn
from torch.nn import functional as F


def four_neighbour_mean(mel):
    """Mean of the neighbours in time and frequency; edges are repeated.

    Arguments
    ---------
    mel : torch.Tensor
        Shape [B, N, M].

    Returns
    -------
    torch.Tensor
        Shape [B, N, M].

    Example
    -------
    >>> mel = torch.arange(9.0).reshape(1, 3, 3)
    >>> four_neighbour_mean(mel)[0, 1, 1].item()
    4.0
    """
    around = F.pad(mel.unsqueeze(1), (1, 1, 1, 1), mode="replicate")[:, 0]
    time = around[:, :-2, 1:-1] + around[:, 2:, 1:-1]
    bands = around[:, 1:-1, :-2] + around[:, 1:-1, 2:]
    return (time + bands) / 4


class MelDistortion(nn.Module):
    """Moves a share of the mels towards or away from their neighbours' mean.

        mel' = mel + w (mean - mel) + s noise

    with w and s drawn per item; w < 0 roughens.

    Arguments
    ---------
    share : float
        Of the items, 0..1.
    smoothing : tuple of float
        Range of w.
    noise : float
        Largest s, in natural-log units.

    Example
    -------
    >>> distort = MelDistortion(share=1.0)
    >>> generator = torch.Generator().manual_seed(0)
    >>> distort(torch.randn(2, 5, 4), generator).shape
    torch.Size([2, 5, 4])
    """

    def __init__(self, share=0.5, smoothing=(-0.4, 0.9), noise=0.2):
        super().__init__()
        self.share = share
        self.smoothing = smoothing
        self.noise = noise

    def forward(self, mel, generator):
        """Distorts log-mels [B, N, M]; `generator` is on their device."""
        draw = {"generator": generator, "device": mel.device}
        chosen = torch.rand(len(mel), 1, 1, **draw) < self.share
        low, high = self.smoothing
        w = low + (high - low) * torch.rand(len(mel), 1, 1, **draw)
        s = self.noise * torch.rand(len(mel), 1, 1, **draw)
        noise = torch.randn(mel.shape, **draw)
        distorted = mel + w * (four_neighbour_mean(mel) - mel) + s * noise
        return torch.where(chosen, distorted, mel)
