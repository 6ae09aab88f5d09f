"""Frame-rate vocoders: a trunk at the frame rate, then an inverse STFT.

The trunk runs at a finer hop than the mel's; no layer works at the sample
rate, which is what makes it fast on CPUs (Vocos, 2306.00814). A head turns
its features into a spectrum.
"""

from torch import nn

# heads can be imported from here too, where they once were
from speechbrain_flowmac.lobes.heads import (  # noqa: F401
    FreePhaseHead,
    HarmonicNoiseHead,
    Head,
    MultiBandHead,
)
from speechbrain_flowmac.lobes.vocoder import Vocoder


class ISTFTVocoder(Vocoder):
    """Log-mel to waveform.

    Arguments
    ---------
    mel_settings : MelSettings
        The front end that this vocoder is for.
    trunk : torch.nn.Module
        `trunk(x [B, F, D], mask [B, F]) -> [B, F, D]` with `dim` and
        `receptive_field`, at the rate of the head's frames.
    head : Head
        `FreePhaseHead`, `MultiBandHead` or `HarmonicNoiseHead`.

    Example
    -------
    >>> import torch
    >>> from speechbrain_flowmac.lobes.convnext import ConvNeXt
    >>> from speechbrain_flowmac.lobes.features import MelSettings
    >>> from speechbrain_flowmac.lobes.spectral import FramedSTFT
    >>> head = FreePhaseHead(16, FramedSTFT(1024, 256))
    >>> vocoder = ISTFTVocoder(MelSettings(), ConvNeXt(16, 2), head)
    >>> vocoder(torch.randn(2, 10, 128)).shape
    torch.Size([2, 5120])
    """

    def __init__(self, mel_settings, trunk, head):
        super().__init__(mel_settings)
        hop = head.stft.hop_length
        if mel_settings.hop_length % hop:
            raise ValueError(
                f"the mel's hop ({mel_settings.hop_length}) must be a "
                f"multiple of the head's ({hop})"
            )
        self.upsample = mel_settings.hop_length // hop
        if head.upsample not in (None, self.upsample):
            raise ValueError(
                f"the head predicts F0 {head.upsample} times per mel frame; "
                f"its hop ({hop}) asks for {self.upsample}"
            )
        self.embed = nn.Conv1d(mel_settings.n_mels, trunk.dim, 7, padding=3)
        self.norm_in = nn.LayerNorm(trunk.dim)
        self.split = nn.Linear(trunk.dim, self.upsample * trunk.dim)
        self.trunk = trunk
        self.norm_out = nn.LayerNorm(trunk.dim)
        self.head = head

    @property
    def receptive_field(self):
        """Mel frames seen on each side, or None if unbounded."""
        trunk, head = self.trunk.receptive_field, self.head.receptive_field
        if trunk is None or head is None:
            return None
        stft = self.head.stft
        frames = trunk - (-stft.n_fft // stft.hop_length)
        return max(3 - (-frames // self.upsample), head)

    def start(self, seed=0):
        """The state of a new stream, see `Vocoder.start`."""
        return self.head.start(seed)

    def synthesise(self, mel, mask, state):
        """All samples, see `Vocoder.synthesise`."""
        excitation = self.head.excitation(mel, mask, state)
        return self._filter(mel, mask, excitation)

    def training_step(self, mel, generator, target=None, f0=None):
        """See `Vocoder.training_step`; pulses follow the target."""
        excitation, losses = self.head.training_excitation(
            mel, generator, target, f0
        )
        return self._filter(mel, None, excitation), losses

    def _filter(self, mel, mask, excitation):
        fine = None
        if mask is not None:
            mel = mel * mask.unsqueeze(-1)
            fine = mask.repeat_interleave(self.upsample, dim=1)
        return self.head(self.features(mel, fine), fine, *excitation)

    def trunk_input(self, mel):
        """Log-mel [B, N, M] to what the trunk is given, [B, F, D]."""
        mel = mel.to(self.embed.weight.dtype)
        x = self.norm_in(self.embed(mel.mT).mT)
        return self.split(x).unflatten(-1, (self.upsample, -1)).flatten(1, 2)

    def features(self, mel, fine=None):
        """Log-mel [B, N, M] and mask [B, F] to features [B, F, D]."""
        return self.norm_out(self.trunk(self.trunk_input(mel), fine))
