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


@dataclass
class SynthesisState:
    """What synthesis of a chunk must know of what came before.

    A signal is synthesised chunk by chunk with one state; `phase` is carried
    from chunk to chunk, the rest says where the chunk lies.

    Arguments
    ---------
    seed : int
        Of the noise.
    start : int
        Absolute index of the first mel frame of the chunk.
    anchor : int
        Absolute mel frame at whose first sample `phase` holds.
    next_anchor : int
        Absolute mel frame where the next chunk wants its phase; the synthesis
        moves `anchor` and `phase` there.
    phase : torch.Tensor or None
        Cycles, float64 [B]; None is 0.
    """

    seed: int = 0
    start: int = 0
    anchor: int = 0
    next_anchor: int = 0
    phase: Tensor | None = None


def dirichlet_pulses(phase, f0, sample_rate):
    """Band-limited pulse train of unit power.

    The number of harmonics is a real number: the last one fades in, so that
    a moving F0 makes no clicks.

    Arguments
    ---------
    phase : torch.Tensor
        Cycles, shape [B, T].
    f0 : torch.Tensor
        In Hz, shape [B, T].
    sample_rate : int
        In Hz.

    Returns
    -------
    torch.Tensor
        Shape [B, T].

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
    """Interpolates frame values to samples; value f sits amid hop f.

    Arguments
    ---------
    frames : torch.Tensor
        Shape [B, F].
    hop_length : int
        Samples per frame.

    Returns
    -------
    torch.Tensor
        Shape [B, F * hop].

    Example
    -------
    >>> to_samples(torch.tensor([[0.0, 2.0]]), 2)
    tensor([[0.0000, 0.5000, 1.5000, 2.0000]])
    """
    return F.interpolate(
        frames.unsqueeze(1), scale_factor=hop_length, mode="linear"
    ).squeeze(1)


def harmonic_source(pitch, sample_rate, hop_length, state, upsample):
    """Pulse train that follows a pitch, silent where unvoiced.

    Arguments
    ---------
    pitch : Pitch
        Shape [B, F].
    sample_rate : int
        In Hz.
    hop_length : int
        Samples per pitch frame.
    state : SynthesisState
        Where the chunk lies; its phase is moved to `next_anchor`.
    upsample : int
        Pitch frames per mel frame, in which the state counts.

    Returns
    -------
    torch.Tensor
        Shape [B, F * hop].
    """
    f0 = to_samples(pitch.f0, hop_length)
    # float64: a phase of thousands of cycles has no decimals to spare
    cycles = (f0.double() / sample_rate).cumsum(1)
    # cycles[i] is the advance up to and including sample i
    before = F.pad(cycles, (1, 0))

    def advance(anchor):
        index = (anchor - state.start) * upsample * hop_length
        return before[:, min(max(index, 0), before.shape[1] - 1)]

    known = 0.0 if state.phase is None else state.phase
    offset = known - advance(state.anchor)
    state.phase = (advance(state.next_anchor) + offset).remainder(1.0)
    state.anchor = state.next_anchor
    phase = (before[:, :-1] + offset.unsqueeze(1)).remainder(1.0)
    pulses = dirichlet_pulses(phase.float(), f0, sample_rate)
    return pulses * to_samples(pitch.voiced.to(f0.dtype), hop_length)


def noise_source(num_frames, hop_length, state, upsample):
    """Seeded white noise of unit power, the same for every item of a batch.

    Arguments
    ---------
    num_frames : int
        Pitch frames F, a multiple of `upsample`.
    hop_length : int
        Samples per pitch frame.
    state : SynthesisState
        Its seed and start are used.
    upsample : int
        Pitch frames per mel frame.

    Returns
    -------
    torch.Tensor
        Shape [1, F * hop], on the CPU.
    """
    width = upsample * hop_length
    noise = seeded_noise(
        state.seed, 1, state.start, num_frames // upsample, width
    )
    return noise.reshape(1, -1)
