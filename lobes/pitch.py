"""F0 and voicing from a log-mel.

F0 is predicted as a distribution over bins of equal width in cents, then
read off as the mean around its peak (Kim et al., CREPE, 1802.06182).
"""

import math
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class Pitch(NamedTuple):
    """Fundamental frequency in Hz, above 0 also where unvoiced, and voicing."""

    f0: Tensor  # float [B, F]
    voiced: Tensor  # bool [B, F]


class PitchPredictor(nn.Module):
    """Predicts pitch at `upsample` frames per mel frame.

    Arguments
    ---------
    n_mels : int
        Mel bands M.
    trunk : torch.nn.Module
        `trunk(x [B, N, D], mask [B, N]) -> [B, N, D]` with `dim` and
        `receptive_field`.
    upsample : int
        Pitch frames per mel frame.
    f_min : float
        Lowest F0 in Hz.
    f_max : float
        Highest F0 in Hz.
    bins_per_octave : int
        Resolution of the distribution; 60 is 20 cents.

    Example
    -------
    >>> from speechbrain_flowmac.lobes.convnext import ConvNeXt
    >>> predictor = PitchPredictor(100, ConvNeXt(8, 1))
    >>> pitch = predictor(torch.randn(2, 7, 100))
    >>> pitch.f0.shape, bool((pitch.f0 >= 50).all())
    (torch.Size([2, 14]), True)
    """

    def __init__(
        self,
        n_mels,
        trunk,
        upsample=2,
        f_min=50.0,
        f_max=600.0,
        bins_per_octave=60,
    ):
        super().__init__()
        self.upsample = upsample
        self.f_min = f_min
        self.f_max = f_max
        self.bins_per_octave = bins_per_octave
        octaves = math.log2(f_max / f_min)
        self.num_bins = 1 + math.ceil(octaves * bins_per_octave)
        self.project_in = nn.Linear(n_mels, trunk.dim)
        self.norm_in = nn.LayerNorm(trunk.dim)
        self.trunk = trunk
        self.norm_out = nn.LayerNorm(trunk.dim)
        self.project_out = nn.Linear(trunk.dim, upsample * (self.num_bins + 1))

    @property
    def receptive_field(self):
        """Mel frames seen on each side, or None if unbounded."""
        reach = self.trunk.receptive_field
        # one more: voicing looks at its neighbours (see `carry_voiced`)
        return None if reach is None else reach + 1

    def logits(self, mel, mask=None):
        """Log-mel [B, N, M] and mask [B, N] to float32 logits.

        Returns
        -------
        tuple of torch.Tensor
            F0 bins [B, F, bins] and voicing [B, F], with
            F = upsample * N.
        """
        mel = mel.to(self.project_in.weight.dtype)
        x = self.norm_in(self.project_in(mel))
        x = self.norm_out(self.trunk(x, mask))
        x = self.project_out(x).float()
        x = x.unflatten(-1, (self.upsample, -1)).flatten(1, 2)
        return x[..., :-1], x[..., -1]

    def read(self, logits):
        """Pitch from what `logits` returns; no gradient passes."""
        bins, voicing = (x.detach() for x in logits)
        peak = bins.argmax(-1, keepdim=True)
        reach = torch.arange(-4, 5, device=bins.device)
        around = (peak + reach).clamp(0, self.num_bins - 1)
        weight = bins.gather(-1, around).softmax(-1)
        position = (weight * around).sum(-1)
        # phase sums F0 up: on a grid, rounding errors of the networks, which
        # depend on how a signal was cut, cannot pile up in it
        position = (position * 64).round() / 64
        f0 = self.f_min * torch.exp2(position / self.bins_per_octave)
        return carry_voiced(Pitch(f0, voicing > 0))

    def forward(self, mel, mask=None):
        """Pitch of a log-mel [B, N, M]."""
        return self.read(self.logits(mel, mask))

    def loss(self, logits, f0):
        """Cross-entropy of F0 where voiced, plus that of voicing; a scalar.

        Arguments
        ---------
        logits : tuple of torch.Tensor
            What `logits` returns.
        f0 : torch.Tensor
            Labels in Hz, 0 where unvoiced, shape [B, F].
        """
        bins, voicing = logits
        voiced = (f0 > 0).to(f0.dtype)
        position = self.bins_per_octave * torch.log2(
            f0.clamp(self.f_min, self.f_max) / self.f_min
        )
        centres = torch.arange(self.num_bins, device=f0.device)
        # a bell one bin wide: neighbours are nearly right
        distance = (centres - position.unsqueeze(-1)) / 1.25
        target = torch.softmax(-distance.square(), dim=-1)
        wrong = -(target * bins.log_softmax(-1)).sum(-1)
        f0_loss = (voiced * wrong).sum() / voiced.sum().clamp(min=1)
        return f0_loss + F.binary_cross_entropy_with_logits(voicing, voiced)


def carry_voiced(pitch):
    """Gives unvoiced frames beside voiced ones the F0 of those.

    Interpolation between frames then starts and ends a voiced stretch at its
    own F0 instead of gliding from whatever the unvoiced frame said.

    Example
    -------
    >>> f0 = torch.tensor([[50.0, 100.0, 110.0, 60.0, 70.0]])
    >>> voiced = torch.tensor([[False, True, True, False, False]])
    >>> carry_voiced(Pitch(f0, voiced)).f0.tolist()
    [[100.0, 100.0, 110.0, 110.0, 70.0]]
    """
    f0, voiced = pitch
    before = F.pad(voiced[:, :-1], (1, 0))
    after = F.pad(voiced[:, 1:], (0, 1))
    from_before = F.pad(f0[:, :-1], (1, 0))
    from_after = F.pad(f0[:, 1:], (0, 1))
    carried = torch.where(after, from_after, f0)
    carried = torch.where(before, from_before, carried)
    return Pitch(torch.where(voiced, f0, carried), voiced)


def hold_last(pitch, mask):
    """Repeats the last frame that the mask [B, F] says is valid to the end.

    Interpolation then ends an item as it would end if it stood alone.

    Example
    -------
    >>> f0 = torch.tensor([[100.0, 110.0, 60.0]])
    >>> voiced = torch.tensor([[True, True, False]])
    >>> hold_last(Pitch(f0, voiced), torch.tensor([[True, True, False]]))
    Pitch(f0=tensor([[100., 110., 110.]]), voiced=tensor([[True, True, True]]))
    """
    frames = torch.arange(mask.shape[1], device=mask.device)
    last = mask.sum(1, keepdim=True).clamp(min=1) - 1
    source = torch.minimum(frames.expand_as(mask), last)
    return Pitch(pitch.f0.gather(1, source), pitch.voiced.gather(1, source))
