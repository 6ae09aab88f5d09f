"""Coding of signals of any length in bounded memory.

A chunk is coded together with as many frames of context on each side as the
networks see; the context's output is thrown away. So coding in chunks gives
what coding the whole would.

    frames    |--context--|=====chunk=====|--context--|
                          a               b
                 lo                                 hi

Shapes: C channels (as the batch), T samples, N token frames, K codebooks.
"""

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from speechbrain_flowmac.lobes.features import num_frames

MIN_CHUNK_FRAMES = 512


class Window(NamedTuple):
    """A chunk with its context.

    Arguments
    ---------
    data : torch.Tensor
        Frames lo .. hi, shape [C, (hi - lo) * unit, ...].
    lo : int
        First frame of `data`.
    start : int
        First frame of the chunk.
    end : int
        Frame after the last of the chunk.
    """

    data: Tensor
    lo: int
    start: int
    end: int


def windows(blocks, total, chunk, context, unit=1):
    """Cuts a stream of blocks into overlapping windows.

    Arguments
    ---------
    blocks : iterable of torch.Tensor
        Consecutive parts of the stream, shape [C, n, ...], any n.
    total : int
        Frames of the stream.
    chunk : int
        Frames of a chunk.
    context : int
        Frames of context on each side, fewer at the ends of the stream.
    unit : int
        Entries of a block per frame; the last frame may have fewer.

    Yields
    ------
    Window

    Example
    -------
    >>> stream = [torch.arange(10).reshape(1, 10)]
    >>> [w.data.tolist() for w in windows(stream, 5, 2, 1, unit=2)]
    [[[0, 1, 2, 3, 4, 5]], [[2, 3, 4, 5, 6, 7, 8, 9]], [[6, 7, 8, 9]]]
    """
    blocks = iter(blocks)
    held, first = None, 0
    for start in range(0, total, chunk):
        end = min(start + chunk, total)
        lo, hi = max(start - context, 0), min(end + context, total)
        parts = [] if held is None else [held]
        have = 0 if held is None else held.shape[1]
        while first * unit + have < hi * unit:
            block = next(blocks, None)
            if block is None:
                break
            parts.append(block)
            have += block.shape[1]
        held = torch.cat(parts, dim=1)[:, (lo - first) * unit :]
        first = lo
        yield Window(held[:, : (hi - lo) * unit], lo, start, end)


@dataclass(frozen=True)
class ChunkedCoder:
    """Codes streams with a codec and a vocoder.

    Arguments
    ---------
    codec : FlowMAC
        Waveform to tokens to mel.
    vocoder : Vocoder
        Mel to waveform, see `lobes.vocoder`.
    chunk_frames : int or None
        Token frames of a chunk; None for twice the context, at least 512.
    """

    codec: torch.nn.Module
    vocoder: torch.nn.Module
    chunk_frames: int | None = None

    def _plan(self, total, context, alignment=1):
        """Chunk and context in frames; one chunk if context is unbounded."""
        if context is None:
            return max(total, 1), 0
        chunk = self.chunk_frames or max(MIN_CHUNK_FRAMES, 2 * context)
        return (
            num_frames(chunk, alignment) * alignment,
            num_frames(context, alignment) * alignment,
        )

    def encode(self, blocks, num_samples, num_codebooks=None):
        """Tokens of a stream of samples.

        Arguments
        ---------
        blocks : iterable of torch.Tensor
            Shape [C, n], any n, `num_samples` in all.
        num_samples : int
            T.
        num_codebooks : int or None
            See `FlowMAC.encode`.

        Yields
        ------
        torch.Tensor
            int64, shape [C, n, K], one for each chunk.
        """
        hop = self.codec.hop_length
        total = num_frames(num_samples, hop)
        chunk, context = self._plan(total, self.codec.encoder_receptive_field)
        for window in windows(blocks, total, chunk, context, unit=hop):
            tokens, _ = self.codec.encode(
                window.data, num_codebooks=num_codebooks
            )
            keep = slice(window.start - window.lo, window.end - window.lo)
            yield tokens[:, keep]

    def decode(self, blocks, total, sampling, seed=0):
        """Waveform of a stream of tokens.

        Arguments
        ---------
        blocks : iterable of torch.Tensor
            int64, shape [C, n, K], any n, `total` frames in all.
        total : int
            Token frames N.
        sampling : Sampling
            How mels are sampled.
        seed : int
            Of all noise.

        Yields
        ------
        torch.Tensor
            Shape [C, n * hop], one for each chunk.
        """
        stride = self.codec.encoder.stride
        reach = self.vocoder.receptive_field
        vocoder_context = None if reach is None else num_frames(reach, stride)
        context = self.codec.decoder_receptive_field(sampling)
        if context is not None and vocoder_context is not None:
            context += vocoder_context
        else:
            context = None
        chunk, context = self._plan(total, context, self.codec.alignment)
        state = self.vocoder.start(seed)
        for window in windows(blocks, total, chunk, context):
            mel = self.codec.decode(
                window.data, sampling=sampling, seed=seed, start=window.lo
            )
            before = (window.start - window.lo) * stride
            after = mel.shape[1] - (window.end - window.lo) * stride
            with torch.no_grad():
                yield self.vocoder(mel, state=state, context=(before, after))
