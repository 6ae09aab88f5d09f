"""The excitation of a source-filter vocoder: pulses and noise.

The pulse train holds every harmonic of F0 below half the sample rate, at
equal amplitude and zero phase, in closed form (the Dirichlet kernel): with
the phase p in cycles,

    sum_{k=1}^{K} cos(2 pi k p) = sin((2 K + 1) pi p) / (2 sin(pi p)) - 1/2.

Sources: harmonic-plus-noise model (Stylianou 2001), neural source-filter
models (Wang et al., 1904.12088), DDSP (2001.04643).
"""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from speechbrain_flowmac.lobes.noise import seeded_noise
from speechbrain_flowmac.lobes.vocoder import SynthesisState


@dataclass
class HarmonicState(SynthesisState):
    """A stream whose pulses have a phase that is carried along.

    Arguments
    ---------
    seed, first, end
        See `SynthesisState`.
    anchor : int
        Frame of the stream at whose first sample `phase` holds.
    phase : torch.Tensor or None
        Cycles, float64 [B]; None is 0.
    target : torch.Tensor or None
        In training, the waveform [B, T] whose fundamental the pulses follow:
        a loss that sees single pulses can only be met by pulses in place.
    """

    anchor: int = 0
    phase: Tensor | None = None
    target: Tensor | None = None


def dirichlet_pulses(phase, f0, sample_rate):
    """Band-limited pulse train of unit power.

    The number of harmonics is a real number: the last one fades in, so that
    a moving F0 makes no clicks.

    Phase in cycles and F0 in Hz, [B, T], give samples [B, T].

    Example
    -------
    >>> time = torch.arange(24000) / 24000
    >>> pulses = dirichlet_pulses(
    ...     100 * time[None], torch.full((1, 1), 100.0), 24000
    ... )
    >>> round(pulses.square().mean().item(), 1)
    1.0
    """
    nyquist = sample_rate / 2
    room = (nyquist / f0 - 1).clamp(min=1)
    whole = room.floor()
    phase = phase - phase.round()
    below = torch.sin(torch.pi * phase)
    above = torch.sin((2 * whole + 1) * torch.pi * phase)
    # at the pulse itself both vanish: the limit is 2 K + 1
    at_pulse = below.abs() < 1e-5
    ratio = torch.where(
        at_pulse, 2 * whole + 1, above / below.masked_fill(at_pulse, 1.0)
    )
    pulses = (ratio - 1) / 2
    last = torch.cos(2 * torch.pi * (whole + 1) * phase)
    pulses = pulses + (room - whole) * last
    return pulses * torch.sqrt(2 / room)


def to_samples(frames, hop_length):
    """Interpolates [B, F] to [B, F * hop]; value f sits amid hop f.

    Example
    -------
    >>> to_samples(torch.tensor([[0.0, 2.0]]), 2)
    tensor([[0.0000, 0.5000, 1.5000, 2.0000]])
    """
    return F.interpolate(
        frames.unsqueeze(1), scale_factor=hop_length, mode="linear"
    ).squeeze(1)


def fundamental_offset(phase, wav, window=1024, hop_length=64):
    """How far the fundamental of a waveform is ahead of a phase.

    The waveform is shifted down by the phase's own frequency, so that its
    fundamental A cos(2 pi (p + d)) becomes A / 2 exp(2 pi i d), and smoothed.

    Arguments
    ---------
    phase : torch.Tensor
        Cycles, shape [B, T]; so is what is returned.
    wav : torch.Tensor
        Shape [B, up to T]; silence follows.
    window : int
        Samples of the smoothing Hann window, even: two periods of the lowest
        fundamental, so that it hides the other harmonics.
    hop_length : int
        Samples between two smoothed values; between them is interpolated.

    Example
    -------
    >>> time = torch.arange(6000)[None] / 24000
    >>> wav = torch.cos(2 * torch.pi * (100 * time + 0.2))
    >>> offset = fundamental_offset(100 * time, wav)
    >>> round(offset[0, 3000].item(), 3)
    0.2
    """
    num_samples = phase.shape[1]
    wav = F.pad(wav, (0, num_samples - wav.shape[1]))
    angle = 2 * torch.pi * phase
    shifted = torch.stack([wav * angle.cos(), -wav * angle.sin()], dim=1)
    # up to a multiple of the hop, so that interpolation covers the end
    shifted = F.pad(shifted, (0, -num_samples % hop_length))
    kernel = torch.hann_window(window, device=wav.device).expand(2, 1, -1)
    smooth = F.conv1d(
        shifted, kernel, stride=hop_length, padding=window // 2, groups=2
    )
    smooth = F.interpolate(
        smooth,
        size=(smooth.shape[-1] - 1) * hop_length + 1,
        mode="linear",
        align_corners=True,
    )[..., :num_samples]
    return torch.atan2(smooth[:, 1], smooth[:, 0]) / (2 * torch.pi)


def source_phase(f0, sample_rate, frame_samples, state, reach):
    """Cycles in [0, 1), float64 [B, T]: the running sum of F0 in Hz, [B, T].

    Arguments
    ---------
    frame_samples : int
        Samples per mel frame, in which the state counts.
    state : HarmonicState
        Its phase is moved to where the next chunk first needs its source.
    reach : int
        Mel frames of the source that a sample needs on each side: so far
        before the end of the chunk this chunk and the next agree on F0.
    """
    # float64: a phase of thousands of cycles has no decimals to spare
    cycles = (f0.double() / sample_rate).cumsum(1)
    # cycles[i] is the advance up to and including sample i
    before = F.pad(cycles, (1, 0))

    def advance(anchor):
        index = (anchor - state.first) * frame_samples
        return before[:, min(max(index, 0), before.shape[1] - 1)]

    known = 0.0 if state.phase is None else state.phase
    offset = known - advance(state.anchor)
    state.anchor = max(state.end - reach, 0)
    state.phase = (advance(state.anchor) + offset).remainder(1.0)
    return (before[:, :-1] + offset.unsqueeze(1)).remainder(1.0)


def harmonic_source(pitch, sample_rate, hop_length, state, upsample, reach):
    """Pulses [B, F * hop] at a pitch [B, F], silent where unvoiced.

    There are `hop_length` samples to a pitch frame, and `upsample` of those
    frames to a mel frame; for `state` and `reach` see `source_phase`.
    """
    f0 = to_samples(pitch.f0, hop_length)
    width = upsample * hop_length
    phase = source_phase(f0, sample_rate, width, state, reach).float()
    if state.target is not None:
        phase = phase + fundamental_offset(phase, state.target)
    pulses = dirichlet_pulses(phase, f0, sample_rate)
    return pulses * to_samples(pitch.voiced.to(f0.dtype), hop_length)


def noise_source(num_frames, frame_samples, state):
    """White noise of unit power, [1, N * frame_samples], on the CPU.

    The state says its seed and where the N mel frames lie in the stream; it is
    the same for every item of a batch.
    """
    noise = seeded_noise(state.seed, 1, state.first, num_frames, frame_samples)
    return noise.reshape(1, -1)
