"""Heads of frame-rate vocoders: features to spectra to samples.

Shapes: B items, F frames, D features, hop samples a frame.
"""

import math

import torch
from torch import nn

from speechbrain_flowmac.lobes.harmonic_source import (
    HarmonicState,
    harmonic_source,
    noise_source,
)
from speechbrain_flowmac.lobes.pitch import hold_last
from speechbrain_flowmac.lobes.pqmf import SubBandSTFT
from speechbrain_flowmac.lobes.vocoder import SynthesisState

# of a log magnitude: e^5 is far above what full-scale signals need
MAX_LOG_MAGNITUDE = 5.0


class Head(nn.Module):
    """Features at the rate of its `stft` to samples.

    `head(features [B, F, D], mask [B, F] or None, *excitation) -> [B, F * hop]`,
    where the excitation is what the head filters, if it filters.
    """

    # frames per mel frame, where the head is made for a certain number
    upsample = None
    # mel frames that the excitation sees on each side, or None
    receptive_field = 0

    def start(self, seed):
        """See `Vocoder.start`."""
        return SynthesisState(seed)

    def excitation(self, mel, mask, state):
        """A tuple: what there is besides features, see `Vocoder.synthesise`."""
        return ()

    def training_excitation(self, mel, generator, target, f0):
        """The excitation and a dict of losses, see `Vocoder.training_step`."""
        return (), {}


class FreePhaseHead(Head):
    """Magnitude and phase of every bin, as Vocos (2306.00814).

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

    def forward(self, features, mask=None):
        """Features [B, F, D] to samples [B, F * hop]."""
        log_magnitude, phase = self.project(features).float().chunk(2, -1)
        spectrum = _polar(log_magnitude, self.bounded(phase))
        return self.stft.inverse(spectrum, mask)

    def bounded(self, phase):
        """The phase as predicted: unbounded."""
        return phase


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

    def bounded(self, phase):
        """From -pi to pi: without the factor, two thirds were out of reach."""
        return math.pi * torch.sin(phase)


class HarmonicNoiseHead(Head):
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
    >>> head(features, None, *head.excitation(mel, None, head.start(0))).shape
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

    @property
    def upsample(self):
        """Frames of the head per mel frame."""
        return self.pitch.upsample

    @property
    def source_reach(self):
        """Mel frames of the source that a sample needs on each side."""
        # analysis and synthesis each reach half a window; one frame more for
        # interpolation between pitch frames
        return 1 - (-self.stft.n_fft // self.stft.hop_length // self.upsample)

    @property
    def receptive_field(self):
        """Mel frames that the sources see on each side, or None."""
        if self.pitch.receptive_field is None:
            return None
        return self.pitch.receptive_field + self.source_reach

    def start(self, seed):
        """Phase 0, see `Vocoder.start`."""
        return HarmonicState(seed)

    def excitation(self, mel, mask, state):
        """Pulses and noise, each [B, F * hop], and where their log gains
        start from, [B, F, bins] or 0.0."""
        return self._excitation(self.pitch.logits(mel, mask), mel, mask, state)

    def training_excitation(self, mel, generator, target, f0):
        """Starts at any phase; with labels, there is a loss on the pitch."""
        logits = self.pitch.logits(mel)
        phase = torch.rand(len(mel), generator=generator, device=mel.device)
        state = HarmonicState(
            generator.initial_seed(), phase=phase.double(), target=target
        )
        state.move(mel.shape[1], (0, 0))
        losses = {}
        if f0 is not None:
            losses["pitch"] = self.pitch.loss(logits, f0)
        return self._excitation(logits, mel, None, state), losses

    def _excitation(self, logits, mel, mask, state):
        hop, upsample = self.stft.hop_length, self.upsample
        pitch = self.pitch.read(logits)
        if mask is not None:
            pitch = hold_last(pitch, mask.repeat_interleave(upsample, dim=1))
        pulses = harmonic_source(
            pitch, self.sample_rate, hop, state, upsample, self.source_reach
        )
        noise = noise_source(mel.shape[1], upsample * hop, state)
        noise = noise.to(pulses).expand_as(pulses)
        if mask is not None:
            inside = mask.repeat_interleave(upsample * hop, dim=1)
            pulses, noise = pulses * inside, noise * inside
        if self.envelope is None:
            return pulses, noise, 0.0
        envelope = self.envelope(mel).repeat_interleave(upsample, dim=1)
        return pulses, noise, envelope

    def forward(self, features, mask, pulses, noise, envelope):
        """Filters what `excitation` gave; samples [B, F * hop]."""
        gains = self.project(features).float()
        pulse_gain, pulse_phase, noise_gain, *free = gains.split(
            self.stft.num_bins, -1
        )
        pulse_filter = _polar(pulse_gain + envelope, pulse_phase)
        noise_filter = _magnitude(noise_gain + envelope)
        spectrum = pulse_filter * self.stft(pulses)
        spectrum = spectrum + noise_filter * self.stft(noise)
        if free:
            spectrum = spectrum + _polar(*free)
        return self.stft.inverse(spectrum, mask)


def _magnitude(log_magnitude):
    return log_magnitude.clamp(max=MAX_LOG_MAGNITUDE).exp()


def _polar(log_magnitude, phase):
    return torch.polar(_magnitude(log_magnitude), phase)
