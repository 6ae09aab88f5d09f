"""A run of frames, and what a whole stream came to."""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from speechbrain_flowmac.bitstream.errors import BitstreamError
from speechbrain_flowmac.bitstream.header import StreamHeader
from speechbrain_flowmac.bitstream.packing import ceil_div


class Part(NamedTuple):
    """What a version's reader finds next.

    Arguments
    ---------
    fault : BitstreamError or None
        What is wrong.
    start : int
        Index of the first frame.
    frames : int
        Number of frames; 0 if there is only a fault to tell.
    payload : bytes or None
        Packed codes, None if they are lost.
    """

    fault: BitstreamError | None = None
    start: int = 0
    frames: int = 0
    payload: bytes | None = None


@dataclass(frozen=True, eq=False)
class Chunk:
    """A run of frames as read from a file.

    Arguments
    ---------
    index : int
        Place of the chunk in the file, from 0.
    start_frame : int
        Index of its first frame.
    tokens : numpy.ndarray
        Tokens [C, n, K], int64. Zeros if the chunk is damaged or missing.
    ok : bool
        Whether the tokens are those that were written.
    """

    index: int
    start_frame: int
    tokens: np.ndarray
    ok: bool


@dataclass(frozen=True)
class StreamSummary:
    """What a stream came to: its length and its sizes, to the byte.

    Arguments
    ---------
    header : StreamHeader
        Of the stream.
    num_samples : int
        Samples per channel T.
    num_chunks : int
        Chunks, lost ones too.
    payload_bytes : int
        Bytes of all packed codes.
    framing_bytes : int
        Bytes of what frames them: heads, checksums, the end.
    damaged_chunks : int
        How many of the chunks were lost.
    complete : bool
        Whether the end was there; nobody knows what a stream without its end
        has lost.

    Example
    -------
    >>> StreamSummary(StreamHeader(bytes(8)), 600, 1, 16, 26).stream_bytes
    74
    """

    header: StreamHeader
    num_samples: int
    num_chunks: int
    payload_bytes: int
    framing_bytes: int
    damaged_chunks: int = 0
    complete: bool = True

    @property
    def num_frames(self) -> int:
        """Frames N = ceil(T / H)."""
        return ceil_div(self.num_samples, self.header.hop_length)

    @property
    def seconds(self) -> float:
        """How long the samples last."""
        return self.num_samples / self.header.sample_rate

    @property
    def stream_bytes(self) -> int:
        """Bytes of the whole stream."""
        sizes = self.payload_bytes + self.framing_bytes
        return self.header.header_bytes + sizes

    @property
    def payload_bit_rate(self) -> float:
        """Bits of the codes per second of samples."""
        return 8 * self.payload_bytes / self.seconds

    @property
    def stream_bit_rate(self) -> float:
        """Bits of the whole stream per second of samples."""
        return 8 * self.stream_bytes / self.seconds
