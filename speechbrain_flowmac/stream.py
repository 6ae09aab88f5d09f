"""Signals and tokens of any length, coded in bounded memory.

There is one way from tokens to samples, `Decoder`: a batch is decoded as one
part, a stream as many. `StreamCoder` cuts streams so that their parts give
what the whole would; `write_stream` and `read_stream` join it to the bytes of
`bitstream`, and all that codes files is thin over them.

Shapes: C channels (as the batch), T samples, N token frames, K codebooks.
"""

from dataclasses import dataclass

import numpy as np
import torch

from speechbrain_flowmac.bitstream import (
    BitstreamError,
    BitstreamWriter,
    conceal,
)
from speechbrain_flowmac.chunking import windows
from speechbrain_flowmac.lobes.features import num_frames
from speechbrain_flowmac.lobes.lengths import length_mask
from speechbrain_flowmac.lobes.merging import Merging

MIN_CHUNK_FRAMES = 512
MAX_CHANNELS_AT_ONCE = 8


class StreamMismatchError(ValueError):
    """A stream that the model cannot have written."""


class FingerprintMismatchError(StreamMismatchError):
    """A stream that another model wrote."""


class Decoder:
    """Turns tokens into samples, a part of a signal at a time.

    Arguments
    ---------
    codec : FlowMAC
        Tokens to mel.
    vocoder : Vocoder
        Mel to waveform, see `lobes.vocoder`.
    sampling : Sampling
        How mels are sampled.
    seed : int
        Of all noise.
    """

    def __init__(self, codec, vocoder, sampling, seed=0):
        self.codec = codec
        self.vocoder = vocoder
        self.sampling = sampling
        self.seed = seed
        self.state = vocoder.start(seed)

    @torch.no_grad()
    def __call__(self, tokens, lengths=None, start=0, context=(0, 0)):
        """Decodes a part; parts must come in their order.

        Arguments
        ---------
        tokens : torch.Tensor
            int64, shape [B, N, k].
        lengths : torch.Tensor or None
            Exact numbers of frames, int64 [B]; None if all are N.
        start : int
            Index in the signal of the first frame.
        context : tuple of int
            Frames before and after the part that it only depends on.

        Returns
        -------
        torch.Tensor
            Shape [B, (N - sum(context)) * hop]; 0 past an item's end.
        """
        stride = self.codec.stride
        mel = self.codec.decode(
            tokens, lengths, self.sampling, self.seed, start
        )
        mask = None
        if lengths is not None:
            mask = length_mask(lengths, tokens.shape[1])
            mask = mask.repeat_interleave(stride, dim=1)
        before, after = (frames * stride for frames in context)
        return self.vocoder(mel, mask, self.state, (before, after))


@dataclass(frozen=True)
class StreamCoder:
    """Codes streams with a codec and a vocoder.

    Arguments
    ---------
    codec : FlowMAC
        Waveform to tokens to mel.
    vocoder : Vocoder or None
        Mel to waveform; None if nothing is to be decoded.
    chunk_frames : int or None
        Token frames of a chunk; None for twice the context, at least 512.
    merging : Merging or None
        Of a codec with a dynamic frame rate.
    """

    codec: torch.nn.Module
    vocoder: torch.nn.Module | None = None
    chunk_frames: int | None = None
    merging: Merging | None = None

    def _plan(self, context, alignment=1):
        """Chunk and context in frames; one chunk if context is unbounded."""
        if context is None:
            return None, 0
        chunk = self.chunk_frames or max(MIN_CHUNK_FRAMES, 2 * context)
        return (
            num_frames(chunk, alignment) * alignment,
            num_frames(context, alignment) * alignment,
        )

    @torch.no_grad()
    def encode(self, blocks, num_codebooks=None):
        """Tokens of a stream of samples.

        Arguments
        ---------
        blocks : iterable of torch.Tensor
            Shape [C, n], any n.
        num_codebooks : int or None
            See `FlowMAC.encode`.

        Yields
        ------
        torch.Tensor
            int64, shape [C, n, K], one for each chunk.
        """
        hop = self.codec.hop_length
        chunk, context = self._plan(self.codec.encoder_receptive_field)
        options = {} if self.merging is None else {"merging": self.merging}
        for window in windows(blocks, chunk, context, unit=hop):
            keep = slice(window.start - window.lo, window.end - window.lo)
            yield torch.cat(
                [
                    self.codec.encode(
                        part, num_codebooks=num_codebooks, **options
                    )[0]
                    for part in window.data.split(MAX_CHANNELS_AT_ONCE)
                ]
            )[:, keep]

    def decode(self, blocks, sampling, seed=0):
        """Waveform of a stream of tokens.

        Arguments
        ---------
        blocks : iterable of torch.Tensor
            int64, shape [C, n, K], any n.
        sampling : Sampling
            How mels are sampled.
        seed : int
            Of all noise.

        Yields
        ------
        torch.Tensor
            Shape [C, n * hop], one for each chunk.
        """
        chunk, context = self._plan(
            self._decoder_context(sampling), self.codec.alignment
        )
        decoders = {}
        for window in windows(blocks, chunk, context):
            last = window.lo + window.data.shape[1]
            context_here = (window.start - window.lo, last - window.end)
            wavs = []
            for i, part in enumerate(window.data.split(MAX_CHANNELS_AT_ONCE)):
                if i not in decoders:
                    decoders[i] = Decoder(
                        self.codec, self.vocoder, sampling, seed
                    )
                wavs.append(
                    decoders[i](part, start=window.lo, context=context_here)
                )
            yield torch.cat(wavs)

    def _decoder_context(self, sampling):
        """Token frames on each side that a sample depends on, or None."""
        codec_reach = self.codec.decoder_receptive_field(sampling)
        vocoder_reach = self.vocoder.receptive_field
        if codec_reach is None or vocoder_reach is None:
            return None
        return codec_reach + num_frames(vocoder_reach, self.codec.stride)


def write_stream(coder, audio, file, header, progress=None):
    """Codes audio into an open file.

    Arguments
    ---------
    coder : StreamCoder
        Of the model.
    audio : AudioReader
        Or anything that has its `blocks` and, after them, `num_samples`.
    file : binary file object
        Gets the stream, each chunk as soon as it is there.
    header : StreamHeader
        What the stream says about itself.
    progress : callable or None
        Called with the number of samples coded after each chunk.

    Returns
    -------
    StreamSummary
    """
    device = next(coder.codec.parameters()).device
    blocks = (block.to(device) for block in audio.blocks())
    with BitstreamWriter(file, header) as writer:
        for tokens in coder.encode(blocks, header.num_codebooks):
            writer.write(tokens.cpu().numpy())
            if progress is not None:
                progress(tokens.shape[1] * header.hop_length)
        writer.close(audio.num_samples)
    return writer.summary


def read_stream(coder, reader, sampling, seed=0):
    """Decodes an open stream.

    Arguments
    ---------
    coder : StreamCoder
        Of the model.
    reader : BitstreamReader
        Its damaged chunks are concealed if it was told so.
    sampling : Sampling
        How mels are sampled.
    seed : int
        Of all noise.

    Yields
    ------
    numpy.ndarray
        float32, shape [n, channels]; as many samples as `reader.summary`
        says at the end.
    """
    device = next(coder.codec.parameters()).device
    hop = reader.header.hop_length
    blocks = (
        torch.from_numpy(chunk.tokens).to(device) for chunk in conceal(reader)
    )
    # how much of the last frame sounds is known when there is no other
    last, done = None, 0
    for wav in coder.decode(blocks, sampling, seed):
        wav = wav if last is None else torch.cat([last, wav], 1)
        last = wav[:, -hop:]
        if wav.shape[1] > hop:
            yield _samples(wav[:, :-hop])
            done += wav.shape[1] - hop
    if last is None:
        raise BitstreamError("the stream has no frames")
    yield _samples(last[:, : reader.summary.num_samples - done])


def _samples(wav):
    """float32 [n, channels], within full scale, for a file."""
    return np.ascontiguousarray(wav.clamp(-1, 1).T.cpu().numpy())
