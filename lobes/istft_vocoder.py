"""Frame-rate vocoders: a trunk at the frame rate, then an inverse STFT.

The trunk runs at a finer hop than the mel's; no layer works at the sample
rate, which is what makes it fast on CPUs (Vocos, 2306.00814). A head turns
its features into a spectrum: `FreePhaseHead` predicts magnitude and phase,
`MultiBandHead` does so for sub-bands, `HarmonicNoiseHead` filters a pulse
train at the predicted F0 and noise.

A vocoder is `vocoder(mel [B, N, M], mask [B, N], state) -> [B, N * hop]` on
log-mels as `LogMel` makes them, with the attributes `mel_settings`,
`receptive_field` (mel frames on each side, or None if unbounded) and
`source_reach` (mel frames on each side that a sample needs of a phase that
is carried along; 0 if there is none).
"""

import math

import torch
from torch import nn

from speechbrain_flowmac.lobes.harmonic_source import (
    SynthesisState,
    harmonic_source,
    noise_source,
)
from speechbrain_flowmac.lobes.pitch import hold_last
from speechbrain_flowmac.lobes.pqmf import SubBandSTFT

# of a log magnitude: e^5 is far above what full-scale signals need
MAX_LOG_MAGNITUDE = 5.0


class ISTFTVocoder(nn.Module):
    """Log-mel to waveform.

    Arguments
    ---------
    mel_settings : MelSettings
        The front end that this vocoder is for.
    trunk : torch.nn.Module
        `trunk(x [B, F, D], mask [B, F]) -> [B, F, D]` with `dim` and
        `receptive_field`, at the rate of the head's frames.
    head : torch.nn.Module
        `FreePhaseHead`, `MultiBandHead` or `HarmonicNoiseHead`.

    Example
    -------
    >>> from speechbrain_flowmac.lobes.convnext import ConvNeXt
    >>> from speechbrain_flowmac.lobes.features import MelSettings
    >>> from speechbrain_flowmac.lobes.spectral import FramedSTFT
    >>> head = FreePhaseHead(16, FramedSTFT(1024, 256))
    >>> vocoder = ISTFTVocoder(MelSettings(), ConvNeXt(16, 2), head)
    >>> vocoder(torch.randn(2, 10, 128)).shape
    torch.Size([2, 5120])
    """

    def __init__(self, mel_settings, trunk, head):
        super().__init__()
        hop = head.stft.hop_length
        if mel_settings.hop_length % hop:
            raise ValueError(
                f"the mel's hop ({mel_settings.hop_length}) must be a "
                f"multiple of the head's ({hop})"
            )
        self.mel_settings = mel_settings
        self.upsample = mel_settings.hop_length // hop
        self.embed = nn.Conv1d(mel_settings.n_mels, trunk.dim, 7, padding=3)
        self.norm_in = nn.LayerNorm(trunk.dim)
        self.split = nn.Linear(trunk.dim, self.upsample * trunk.dim)
        self.trunk = trunk
        self.norm_out = nn.LayerNorm(trunk.dim)
        self.head = head

    @property
    def receptive_field(self):
        """Mel frames seen on each side, or None if unbounded."""
        if self.trunk.receptive_field is None:
            return None
        fine = self.trunk.receptive_field + self.stft_reach
        features = 3 - (-fine // self.upsample)
        return max(features, self.head.receptive_field(self.upsample))

    @property
    def source_reach(self):
        """Mel frames of the source that a sample needs on each side."""
        return self.head.source_reach(self.upsample)

    @property
    def stft_reach(self):
        """Head frames that a sample depends on, on each side."""
        return -(-self.head.stft.n_fft // self.head.stft.hop_length)

    def features(self, mel, mask=None):
        """Trunk features at the rate of the head.

        Arguments
        ---------
        mel : torch.Tensor
            Shape [B, N, M].
        mask : torch.Tensor or None
            Shape [B, N], True where valid.

        Returns
        -------
        tuple of torch.Tensor
            Features [B, F, D] and the mask at their rate (or None).
        """
        if mask is not None:
            mel = mel * mask.unsqueeze(-1)
        mel = mel.to(self.embed.weight.dtype)
        x = self.norm_in(self.embed(mel.mT).mT)
        x = self.split(x).unflatten(-1, (self.upsample, -1)).flatten(1, 2)
        fine = None
        if mask is not None:
            fine = mask.repeat_interleave(self.upsample, dim=1)
        return self.norm_out(self.trunk(x, fine)), fine

    def forward(self, mel, mask=None, state=None, f0=None):
        """Synthesises.

        Arguments
        ---------
        mel : torch.Tensor
            Log-mel, shape [B, N, M].
        mask : torch.Tensor or None
            Shape [B, N], True where valid; samples past an item's end are 0.
        state : SynthesisState or None
            Where in a longer signal the mel lies; None for a whole signal
            with seed 0.
        f0 : torch.Tensor or None
            In training, labels in Hz (0 where unvoiced), shape [B, F].

        Returns
        -------
        torch.Tensor or tuple
            Waveform [B, N * hop], float32; with `f0`, also a dict of losses
            that the head puts on its own predictions.
        """
        state = SynthesisState() if state is None else state
        features, fine = self.features(mel, mask)
        hint, losses = self.head.predict(mel, mask, f0)
        wav = self.head(features, hint, fine, state, self.upsample)
        return wav if f0 is None else (wav, losses)


class FreePhaseHead(nn.Module):
    """Magnitude and phase of every bin, as Vocos.

    Arguments
    ---------
    dim : int
        Width D of the features.
    stft : FramedSTFT
        Size and hop of the synthesis.

    Example
    -------
    >>> from speechbrain_flowmac.lobes.spectral import FramedSTFT
    >>> head = FreePhaseHead(8, FramedSTFT(64, 16))
    >>> head(torch.randn(2, 5, 8)).shape
    torch.Size([2, 80])
    """

    def __init__(self, dim, stft):
        super().__init__()
        self.stft = stft
        self.project = nn.Linear(dim, 2 * stft.num_bins)

    def receptive_field(self, upsample):
        """Mel frames that the head itself sees on each side."""
        return 0

    def source_reach(self, upsample):
        """There is no source."""
        return 0

    def predict(self, mel, mask=None, f0=None):
        """Nothing is predicted from the mel: no hint and no losses."""
        return None, {}

    def forward(self, features, hint=None, fine=None, state=None, upsample=1):
        """Features [B, F, D] to samples [B, F * hop]."""
        log_magnitude, turn = self.project(features).float().chunk(2, -1)
        magnitude = log_magnitude.clamp(max=MAX_LOG_MAGNITUDE).exp()
        spectrum = torch.polar(magnitude, self.phase(turn))
        return self.stft.inverse(spectrum, fine)

    def phase(self, turn):
        """Phase from what the features give for it: itself, unbounded."""
        return turn


class MultiBandHead(FreePhaseHead):
    """Magnitude and phase of every bin of sub-bands, as MB-iSTFT-VITS.

    Each sub-band has an inverse STFT at its own, lower rate; a synthesis
    filter bank joins them (Kawamura et al., arXiv 2210.15975).

    Arguments
    ---------
    dim : int
        Width D of the features.
    stft : FramedSTFT
        Size and hop at the rate of the sub-bands.
    synthesis : PQMF or LearnedSynthesis
        Joins the sub-bands.

    Example
    -------
    >>> from speechbrain_flowmac.lobes.pqmf import PQMF
    >>> from speechbrain_flowmac.lobes.spectral import FramedSTFT
    >>> head = MultiBandHead(8, FramedSTFT(64, 16), PQMF(num_bands=4))
    >>> head(torch.randn(2, 5, 8)).shape
    torch.Size([2, 320])
    """

    def __init__(self, dim, stft, synthesis):
        super().__init__(dim, SubBandSTFT(stft, synthesis))

    def phase(self, turn):
        """From -pi to pi: without the factor, two thirds were out of reach."""
        return math.pi * torch.sin(turn)


class HarmonicNoiseHead(nn.Module):
    """Filters a pulse train and noise by predicted gains.

    With S_h and S_n the spectra of the two sources,

        Y = exp(a + i b) S_h + exp(c) S_n

    where the features give a, b and c for every bin and frame. F0 and voicing
    come from the mel. With a free-phase branch, exp(d + i e) is added, as
    `FreePhaseHead` has it, for what pulses and noise cannot make: chords,
    clicks, two voices at once.

    Arguments
    ---------
    dim : int
        Width D of the features.
    stft : FramedSTFT
        Size and hop of analysis and synthesis.
    pitch : PitchPredictor
        Predicts F0 at the rate of the features.
    sample_rate : int
        In Hz.
    free_phase : bool
        Whether there is a free-phase branch.
    envelope : MelEnvelope or None
        Where exp(a) and exp(c) start from; None for a constant.

    Example
    -------
    >>> from speechbrain_flowmac.lobes.convnext import ConvNeXt
    >>> from speechbrain_flowmac.lobes.pitch import PitchPredictor
    >>> from speechbrain_flowmac.lobes.spectral import FramedSTFT
    >>> pitch = PitchPredictor(20, ConvNeXt(8, 1), upsample=2)
    >>> head = HarmonicNoiseHead(8, FramedSTFT(64, 16), pitch, 16000)
    >>> features, mel = torch.randn(2, 10, 8), torch.randn(2, 5, 20)
    >>> hint, _ = head.predict(mel)
    >>> head(features, hint, None, SynthesisState(), 2).shape
    torch.Size([2, 160])
    """

    def __init__(
        self,
        dim,
        stft,
        pitch,
        sample_rate,
        free_phase=False,
        envelope=None,
    ):
        super().__init__()
        self.stft = stft
        self.envelope = envelope
        self.pitch = pitch
        self.sample_rate = sample_rate
        # log magnitudes start at the level of quiet speech or at the envelope,
        # the free branch far below; phases at 0
        level = -3.0 if envelope is None else 0.0
        start = [level, 0.0, level] + [-5.0, 0.0] * free_phase
        bins = stft.num_bins
        self.project = nn.Linear(dim, len(start) * bins)
        bias = torch.tensor(start).repeat_interleave(bins)
        self.project.bias.data.copy_(bias)

    def receptive_field(self, upsample):
        """Mel frames that the head itself sees on each side."""
        if self.pitch.receptive_field is None:
            return None
        return self.pitch.receptive_field + self.source_reach(upsample)

    def source_reach(self, upsample):
        """Mel frames of the source that a sample needs on each side."""
        # analysis and synthesis each reach half a window; one frame more for
        # interpolation between pitch frames
        window = -(-self.stft.n_fft // self.stft.hop_length // upsample)
        return window + 1

    def predict(self, mel, mask=None, f0=None):
        """Pitch from the mel.

        Arguments
        ---------
        mel : torch.Tensor
            Log-mel, shape [B, N, M].
        mask : torch.Tensor or None
            Shape [B, N], True where valid.
        f0 : torch.Tensor or None
            Labels in Hz, 0 where unvoiced, shape [B, F].

        Returns
        -------
        tuple
            `Pitch` [B, F] and the log envelope [B, F, bins] or 0.0, and a
            dict with the pitch loss if there are labels.
        """
        logits = self.pitch.logits(mel, mask)
        envelope = 0.0
        if self.envelope is not None:
            envelope = self.envelope(mel).repeat_interleave(
                self.pitch.upsample, dim=1
            )
        losses = {}
        if f0 is not None:
            fine = None
            if mask is not None:
                fine = mask.repeat_interleave(self.pitch.upsample, dim=1)
            losses["pitch"] = self.pitch.loss(logits, f0, fine)
        return (self.pitch.read(logits), envelope), losses

    def forward(self, features, hint, fine, state, upsample):
        """Filters the sources.

        Arguments
        ---------
        features : torch.Tensor
            Shape [B, F, D].
        hint : tuple
            From `predict`.
        fine : torch.Tensor or None
            Shape [B, F], True where valid.
        state : SynthesisState
            Where the chunk lies.
        upsample : int
            Head frames per mel frame.

        Returns
        -------
        torch.Tensor
            Shape [B, F * hop].
        """
        hop = self.stft.hop_length
        pitch, envelope = hint
        if fine is not None:
            pitch = hold_last(pitch, fine)
        pulses = harmonic_source(pitch, self.sample_rate, hop, state, upsample)
        noise = noise_source(features.shape[1], hop, state, upsample)
        noise = noise.to(pulses).expand_as(pulses)
        if fine is not None:
            inside = fine.repeat_interleave(hop, dim=1)
            pulses, noise = pulses * inside, noise * inside
        gains = self.project(features).float()
        loud, turn, hiss, *free = gains.split(self.stft.num_bins, -1)
        loud = (loud + envelope).clamp(max=MAX_LOG_MAGNITUDE).exp()
        hiss = (hiss + envelope).clamp(max=MAX_LOG_MAGNITUDE).exp()
        spectrum = torch.polar(loud, turn) * self.stft(pulses)
        spectrum = spectrum + hiss * self.stft(noise)
        if free:
            level, phase = free
            level = level.clamp(max=MAX_LOG_MAGNITUDE).exp()
            spectrum = spectrum + torch.polar(level, phase)
        return self.stft.inverse(spectrum, fine)
