"""Version 2: an open length, chunks of one frame or more, a trailer.

Nothing needs to be known before it is there: a chunk can be written when its
frames are, and the trailer says how many there were. Everything behind the
header begins with a head that has a checksum of its own, so a head that is
whole says how much to skip if its codes are damaged. Where a head is damaged,
the reader looks for the next one, whose frame says how much was lost.
docs/fmac.md has the bytes.
"""

import re
import struct
import zlib
from typing import NamedTuple

from speechbrain_flowmac.bitstream.chunk import Part
from speechbrain_flowmac.bitstream.errors import (
    BitstreamError,
    ChunkDamagedError,
    TrailingDataError,
    TruncatedStreamError,
    UnsupportedVersionError,
)
from speechbrain_flowmac.bitstream.header import CRC, MAX_FRAMES
from speechbrain_flowmac.bitstream.packing import ceil_div
from speechbrain_flowmac.bitstream.payload import is_payload, payload_bytes

CHUNK = ord("C")
RUNS = ord("R")
END = ord("E")

_HEAD = struct.Struct(">BHI")
_HEAD_BYTES = _HEAD.size + CRC.size
_KINDS = re.compile(rb"[CRE]")
_SCAN_BYTES = 1 << 12


class Head(NamedTuple):
    """What a chunk or the end begins with.

    Arguments
    ---------
    kind : int
        `CHUNK`, `RUNS`, `END`, or one that is not known.
    count : int
        Frames of a chunk, or samples of the last frame.
    frame : int
        First frame of a chunk, or number of frames.
    crc : bytes
        The head's CRC-32.
    """

    kind: int
    count: int
    frame: int
    crc: bytes


class Version2:
    """How chunks of a stream of version 2 stand in a file.

    Arguments
    ---------
    header : StreamHeader
        That leaves the length open.

    Example
    -------
    >>> from speechbrain_flowmac.bitstream import StreamHeader
    >>> layout = Version2(StreamHeader(bytes(8)))
    >>> len(layout.chunk(0, 0, 1, bytes(8))), len(layout.end(1, 512))
    (23, 11)
    """

    chunk_overhead = _HEAD_BYTES + CRC.size
    end_overhead = _HEAD_BYTES
    complete = True
    max_frames = MAX_FRAMES

    def __init__(self, header):
        self.header = header
        self.num_samples = None
        self._kind = RUNS if header.runs else CHUNK
        self._tie = zlib.crc32(CRC.pack(header.crc))

    def _head(self, kind, count, frame):
        fields = _HEAD.pack(kind, count, frame)
        return fields + CRC.pack(zlib.crc32(fields, self._tie))

    def chunk(self, index, start, frames, payload):
        """The bytes of a chunk."""
        head = self._head(self._kind, frames, start)
        return head + payload + _payload_crc(head[_HEAD.size :], payload)

    def end(self, num_frames, num_samples):
        """The bytes that close the stream: the trailer."""
        hop = self.header.hop_length
        if num_frames < 1 or ceil_div(num_samples, hop) != num_frames:
            raise BitstreamError(
                f"{num_samples} samples at hop {hop} are "
                f"{ceil_div(num_samples, hop)} frames, {num_frames} were "
                "written"
            )
        return self._head(END, num_samples - (num_frames - 1) * hop, num_frames)

    def look_ahead(self, source, check_claim):
        """Looks for the trailer at the end of a file, see `Version1`."""
        tail = source.tail(_SCAN_BYTES)
        place = max(len(tail) - _HEAD_BYTES, 0)
        head = self._parse(tail[place:])
        if head is not None and head.kind == END:
            self.num_samples = self._samples(head)
            check_claim(self._stream_bytes(head.frame))
            return None
        for match in reversed(list(_KINDS.finditer(tail))):
            place = match.start()
            head = self._parse(tail[place : place + _HEAD_BYTES])
            if head is not None and head.kind == END:
                more = len(tail) - place - _HEAD_BYTES
                return TrailingDataError(
                    f"{more} bytes follow the end of the stream"
                )
        return TruncatedStreamError(
            f"the file has no trailer, it was cut: found {source.size} bytes"
        )

    def read(self, source, check_claim):
        """Chunks of a stream, see `Version1.read`."""
        expected, searching = 0, False
        while True:
            data = source.read(_HEAD_BYTES)
            head = self._parse(data)
            skipped = head is None
            if skipped:
                head = self._scan(source, data)
            if head is None:
                break
            if head.kind not in (self._kind, END):
                error = UnsupportedVersionError
                yield Part(
                    error(f"a chunk of kind {head.kind} cannot be read here")
                )
                continue
            if head.frame < expected:
                text = f"frame {head.frame} comes after frame {expected - 1}"
                yield Part(ChunkDamagedError(text))
                continue
            check_claim(self._stream_bytes(head.frame))
            if skipped and head.frame == expected and not searching:
                text = f"something that is no chunk is before frame {expected}"
                yield Part(ChunkDamagedError(text))
            yield from self._gap(expected, head.frame)
            expected = head.frame
            if head.kind == END:
                self.num_samples = self._samples(head)
                return
            part = self._chunk(source, head)
            # how long a damaged chunk of runs is, it does not say
            searching = part.payload is None and self.header.runs
            yield part
            expected += head.count
        self.complete, self.end_overhead = False, 0
        self.num_samples = expected * self.header.hop_length
        text = f"the stream ends after {expected} frames without its trailer"
        yield Part(TruncatedStreamError(text))

    def _gap(self, start, stop):
        """Parts that are lost, each as long as a chunk may be."""
        size = self.header.frames_per_chunk
        for first in range(start, stop, size):
            last = min(first + size, stop)
            text = f"frames {first}..{last - 1} are damaged or missing"
            yield Part(ChunkDamagedError(text), first, last - first)

    def _chunk(self, source, head):
        """The chunk that begins with a head."""
        header = self.header
        data = source.read(header.least_bytes(head.count))
        size = payload_bytes(header, head.count, data)
        data += source.read(size + CRC.size - len(data))
        payload = data[:size]
        place = f"the chunk of frame {head.frame}"
        fault = None
        if len(data) < size + CRC.size:
            fault = TruncatedStreamError(
                f"{place} is {self.chunk_overhead + size} bytes, found "
                f"{_HEAD_BYTES + len(data)}"
            )
        elif data[size:] != _payload_crc(head.crc, payload):
            fault = ChunkDamagedError(f"{place} does not match its CRC-32")
        elif not is_payload(header, head.count, payload):
            fault = ChunkDamagedError(f"{place} lacks its first frame")
        if fault is not None:
            payload = None
            if header.runs:
                source.unread(data)
        return Part(fault, head.frame, head.count, payload)

    def _scan(self, source, data):
        """The first head in or behind bytes that begin with none, or None."""
        while True:
            data += source.read(_SCAN_BYTES)
            for match in _KINDS.finditer(data):
                place = match.start()
                head = self._parse(data[place : place + _HEAD_BYTES])
                if head is not None:
                    source.unread(data[place + _HEAD_BYTES :])
                    return head
            if len(data) < _HEAD_BYTES:
                return None
            data = data[1 - _HEAD_BYTES :]

    def _parse(self, data):
        """A head, or None if these bytes are none."""
        fields, crc = data[: _HEAD.size], data[_HEAD.size :]
        if crc != CRC.pack(zlib.crc32(fields, self._tie)):
            return None
        kind, count, frame = _HEAD.unpack(fields)
        header = self.header
        if kind == self._kind:
            fits = 1 <= count <= header.frames_per_chunk
            fits = fits and frame + count <= MAX_FRAMES
        else:
            fits = kind != END or (frame and 1 <= count <= header.hop_length)
        return Head(kind, count, frame, crc) if fits else None

    def _stream_bytes(self, frames):
        """Bytes of a stream of so many frames in as few chunks as can be."""
        header = self.header
        full, rest = divmod(frames, header.frames_per_chunk)
        framing = (full + (rest > 0)) * self.chunk_overhead + _HEAD_BYTES
        payload = full * header.least_bytes(header.frames_per_chunk)
        if rest:
            payload += header.least_bytes(rest)
        return header.header_bytes + framing + payload

    def _samples(self, end):
        """T of a stream that ends so."""
        return (end.frame - 1) * self.header.hop_length + end.count


def _payload_crc(head_crc, payload):
    """CRC-32 that ties packed codes to their head."""
    return CRC.pack(zlib.crc32(payload, zlib.crc32(head_crc)))
