"""What every vocoder keeps to, and what is known of vocoders elsewhere.

A vocoder makes `hop_length` samples of each mel frame. A stream is made chunk
by chunk with one state; a chunk comes with frames on each side that were made
before or will be made after it, its context:

    mel    |--before--|=====chunk=====|--after--|
    wav               |===============|

With `receptive_field` frames of context (fewer at the ends of the stream),
the chunks join into what the whole would be.
"""

from dataclasses import dataclass

from torch import nn


@dataclass
class SynthesisState:
    """Where a stream is; callers keep it and look at nothing in it.

    Vocoders that carry more from chunk to chunk extend it.

    Arguments
    ---------
    seed : int
        Of all noise.
    first : int
        Frame of the stream that the mel starts with.
    end : int
        Frame of the stream at which the chunk ends and the next one starts.
    """

    seed: int = 0
    first: int = 0
    end: int = 0

    def move(self, num_frames, context):
        """To a mel of N frames, of which `context` were or will be made."""
        before, after = context
        if not 0 <= before <= self.end or not 0 <= after <= num_frames - before:
            raise ValueError(
                f"context must fit into the {num_frames} frames of the mel "
                f"and the {self.end} made so far, found {tuple(context)}"
            )
        self.first = self.end - before
        self.end = self.first + num_frames - after


class Vocoder(nn.Module):
    """Log-mel to waveform: a subclass has `receptive_field` and `synthesise`.

    Arguments
    ---------
    mel_settings : MelSettings
        The front end that this vocoder is for.

    Example
    -------
    >>> import torch
    >>> from speechbrain_flowmac.lobes.features import MelSettings
    >>> class Buzzer(Vocoder):
    ...     receptive_field = 0
    ...
    ...     def synthesise(self, mel, mask, state):
    ...         hop = self.mel_settings.hop_length
    ...         return mel.mean(-1).exp().repeat_interleave(hop, dim=1)
    >>> vocoder = Buzzer(MelSettings())
    >>> mel, state = torch.randn(1, 10, 128), vocoder.start(seed=7)
    >>> chunks = [vocoder(mel[:, :6], state=state, context=(0, 2))]
    >>> chunks += [vocoder(mel[:, 3:], state=state, context=(1, 0))]
    >>> torch.cat(chunks, dim=1).equal(vocoder(mel))
    True
    """

    # mel frames that a sample depends on, on each side; None if unbounded
    receptive_field: int | None

    def __init__(self, mel_settings):
        super().__init__()
        self.mel_settings = mel_settings

    def start(self, seed=0):
        """The state of a new stream; a seed always gives the same samples."""
        return SynthesisState(seed)

    def forward(self, mel, mask=None, state=None, context=(0, 0)):
        """Synthesises a chunk and moves the state on to the next.

        Arguments
        ---------
        mel : torch.Tensor
            Log-mel, shape [B, N, M].
        mask : torch.Tensor or None
            Shape [B, N], True where valid, up to the end of each item;
            samples past it are 0.
        state : SynthesisState or None
            From `start`; None for a whole signal with seed 0.
        context : tuple of int
            Frames of the mel before and after the chunk.

        Returns
        -------
        torch.Tensor
            float32, shape [B, (N - sum(context)) * hop].
        """
        state = self.start() if state is None else state
        state.move(mel.shape[1], context)
        wav = self.synthesise(mel, mask, state)
        hop = self.mel_settings.hop_length
        return wav[:, context[0] * hop : (mel.shape[1] - context[1]) * hop]

    def synthesise(self, mel, mask, state):
        """Samples of all frames, [B, N * hop], context and all; mel and mask
        are those of `forward`, the state says where in the stream they lie."""
        raise NotImplementedError

    def training_step(self, mel, generator, target=None, f0=None):
        """Synthesises with gradients, and what the vocoder says of itself.

        Arguments
        ---------
        mel : torch.Tensor
            Log-mel, shape [B, N, M].
        generator : torch.Generator
            Of all that is random.
        target : torch.Tensor or None
            The true waveform [B, T], which the synthesis may follow in what
            a mel does not tell (phase); None to judge what it does alone.
        f0 : torch.Tensor or None
            Labels in Hz, 0 where unvoiced, shape [B, F].

        Returns
        -------
        tuple
            Waveform [B, N * hop], and a dict of losses (scalars) on what the
            vocoder predicts besides.
        """
        state = self.start(generator.initial_seed())
        return self(mel, state=state), {}
