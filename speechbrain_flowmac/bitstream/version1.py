"""Version 1: a header that states the length, chunks of one size.

Every size follows from the header, so there are no length fields to go
wrong. Chunk ``i`` holds ``frames_per_chunk`` frames, the last one holds what
is left; its checksum covers ``i`` and the header's. docs/fmac.md has the bytes.
"""

import struct
import zlib

from speechbrain_flowmac.bitstream.chunk import Part
from speechbrain_flowmac.bitstream.errors import (
    BitstreamError,
    ChunkDamagedError,
    TrailingDataError,
    TruncatedStreamError,
)
from speechbrain_flowmac.bitstream.header import CRC
from speechbrain_flowmac.bitstream.packing import ceil_div

_PLACE = struct.Struct(">II")


class Version1:
    """How chunks of a stream of version 1 stand in a file.

    Arguments
    ---------
    header : StreamHeader
        That states the length.

    Example
    -------
    >>> from speechbrain_flowmac.bitstream import StreamHeader
    >>> layout = Version1(StreamHeader(bytes(8), num_samples=240_000))
    >>> layout.num_chunks, layout.stream_bytes
    (10, 3832)
    """

    chunk_overhead = CRC.size
    end_overhead = 0
    complete = True

    def __init__(self, header):
        self.header = header
        self.num_samples = header.num_samples
        self._header_crc = header.crc
        self.num_chunks = ceil_div(header.num_frames, header.frames_per_chunk)

    @property
    def max_frames(self):
        """Most frames that the stream may get."""
        return self.header.num_frames

    @property
    def stream_bytes(self):
        """Bytes of the whole stream."""
        full = self.chunk_bytes(0)
        last = self.chunk_bytes(self.num_chunks - 1)
        chunks = (self.num_chunks - 1) * full + last
        return self.header.header_bytes + chunks

    def chunk_frames(self, index):
        """Frames of chunk ``index``."""
        size = self.header.frames_per_chunk
        return min(size, self.header.num_frames - index * size)

    def chunk_bytes(self, index):
        """Bytes of chunk ``index`` with its checksum."""
        return CRC.size + self.header.packed_bytes(self.chunk_frames(index))

    def chunk(self, index, start, frames, payload):
        """The bytes of a chunk."""
        return CRC.pack(self._crc(index, payload)) + payload

    def end(self, num_frames, num_samples):
        """The bytes that close the stream: none, if it is complete."""
        header = self.header
        if num_frames != header.num_frames:
            raise BitstreamError(
                f"the header says {header.num_frames} frames, "
                f"{num_frames} were written"
            )
        if num_samples != header.num_samples:
            raise BitstreamError(
                f"the header says {header.num_samples} samples, "
                f"found {num_samples}"
            )
        return b""

    def look_ahead(self, source, check_claim):
        """Checks the size of a file before it is read.

        Arguments
        ---------
        source : Source
            Of which the header has been read.
        check_claim : callable
            Takes the bytes that the stream should have.

        Returns
        -------
        BitstreamError or None
            What a strict reader refuses.
        """
        found, expected = source.size, self.stream_bytes
        check_claim(expected)
        if found == expected:
            return None
        error = TruncatedStreamError if found < expected else TrailingDataError
        return error(f"the header says {expected} bytes, found {found}")

    def read(self, source, check_claim):
        """Chunks of a stream.

        Arguments
        ---------
        source : Source
            Of which the header has been read.
        check_claim : callable
            Takes the bytes that the stream should have, if it lacks some.

        Yields
        ------
        Part
        """
        for index in range(self.num_chunks):
            size = self.chunk_bytes(index)
            data = source.read(size)
            stored, payload = data[: CRC.size], data[CRC.size :]
            fault = None
            place = f"chunk {index} of 0..{self.num_chunks - 1}"
            if len(data) < size:
                check_claim(self.stream_bytes)
                fault = TruncatedStreamError(
                    f"{place} is {size} bytes, found {len(data)}"
                )
            elif stored != CRC.pack(self._crc(index, payload)):
                fault = ChunkDamagedError(f"{place} does not match its CRC-32")
            yield Part(
                fault,
                index * self.header.frames_per_chunk,
                self.chunk_frames(index),
                payload if fault is None else None,
            )

    def _crc(self, index, payload):
        """CRC-32 that ties a payload to its place and to its file."""
        place = zlib.crc32(_PLACE.pack(index, self._header_crc))
        return zlib.crc32(payload, place)
