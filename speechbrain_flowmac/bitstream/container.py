"""Streams written and read chunk by chunk, in either version."""

from collections.abc import Iterator

import numpy as np

from speechbrain_flowmac.bitstream.chunk import Chunk, StreamSummary
from speechbrain_flowmac.bitstream.errors import (
    BitstreamError,
    TrailingDataError,
    TruncatedStreamError,
)
from speechbrain_flowmac.bitstream.header import StreamHeader
from speechbrain_flowmac.bitstream.payload import pack_tokens, unpack_tokens
from speechbrain_flowmac.bitstream.source import Source, write_all
from speechbrain_flowmac.bitstream.version1 import Version1
from speechbrain_flowmac.bitstream.version2 import Version2

POLICIES = ("raise", "conceal", "conceal-all")
"""What to do about damage, see `BitstreamReader`."""
MAX_CLAIM = 10
"""How many times its own size a stream may claim and still be concealed."""

_LAYOUTS = {1: Version1, 2: Version2}


class BitstreamWriter:
    """Write a stream piece by piece, holding at most one chunk.

    The header goes out at once, each chunk as soon as it is full. The file
    object stays open: it belongs to the caller.

    Arguments
    ---------
    fileobj : binary file object
        Its ``write`` is used, and its ``flush`` if it has one.
    header : StreamHeader
        What will be written. If it states the length, that is version 1.

    Example
    -------
    >>> import io
    >>> file = io.BytesIO()
    >>> with BitstreamWriter(file, StreamHeader(bytes(8))) as writer:
    ...     writer.write(np.zeros((1, 2, 8), np.int64))
    ...     writer.close(num_samples=600)
    >>> writer.summary.num_samples
    600
    >>> len(file.getvalue()) == writer.summary.stream_bytes
    True
    """

    def __init__(self, fileobj, header: StreamHeader):
        self.header = header
        self._fileobj = fileobj
        self._layout = _LAYOUTS[header.version](header)
        self._tally = _Tally(header, self._layout)
        self._closed = False
        most = min(header.frames_per_chunk, self._layout.max_frames)
        self._buffer = np.zeros(header.chunk_shape(most), np.int64)
        self._held = 0
        self._send(header.to_bytes())

    @property
    def summary(self) -> StreamSummary:
        """What was written; complete when the writer is closed."""
        return self._tally.summary(self._layout.num_samples)

    def write(self, tokens: np.ndarray) -> None:
        """Append frames. A refused call writes none of its frames.

        Arguments
        ---------
        tokens : numpy.ndarray
            Tokens [C, n, K] of any integer type, 0..codebook_size - 1, any
            n, also 0.

        Raises
        ------
        BitstreamError
            If shape, type or values do not fit the header, if there are
            more frames than it allows, or if the writer is closed.
        """
        if self._closed:
            raise BitstreamError("the writer is closed")
        tokens = np.asarray(tokens)
        self._check(tokens)
        taken = 0
        while taken < tokens.shape[1]:
            left = self._layout.max_frames - self._tally.frames
            room = min(self._buffer.shape[1], left) - self._held
            piece = tokens[:, taken : taken + room]
            taken += piece.shape[1]
            filled = self._held + piece.shape[1]
            self._buffer[:, self._held : filled] = piece
            self._held = filled
            if piece.shape[1] == room:
                self._write_chunk()

    def flush(self) -> None:
        """Send what is held as a chunk of its own, if the version has that.

        A live stream is as late as its chunks are long.
        """
        if self.header.version > 1 and self._held:
            self._write_chunk()

    def close(self, num_samples: int | None = None) -> None:
        """End the stream; closing twice does nothing.

        Arguments
        ---------
        num_samples : int or None
            Samples per channel; None if the last frame is a full one, or if
            the header states it.

        Raises
        ------
        BitstreamError
            If the frames that were written are not those of the samples.
        """
        if self._closed:
            return
        self._closed = True
        if self._held:
            self._write_chunk()
        frames = self._tally.frames
        if num_samples is None:
            num_samples = self.header.num_samples
        if num_samples is None:
            num_samples = frames * self.header.hop_length
        self._send(self._layout.end(frames, num_samples))
        self._layout.num_samples = num_samples

    def __enter__(self) -> "BitstreamWriter":
        return self

    def __exit__(self, error_type, error, traceback) -> None:
        if error_type is None:
            self.close()
        # An error on its way must not be hidden by one about its result.
        self._closed = True

    def _check(self, tokens: np.ndarray) -> None:
        """Refuse tokens that do not fit the header."""
        header = self.header
        shape = (header.num_channels, header.num_codebooks)
        if tokens.ndim != 3 or tokens.shape[::2] != shape:
            raise BitstreamError(
                f"tokens must be [{shape[0]}, frames, {shape[1]}], found "
                f"{list(tokens.shape)}"
            )
        if not np.issubdtype(tokens.dtype, np.integer):
            raise BitstreamError(
                f"tokens must be integers, found {tokens.dtype}"
            )
        for book, bits in enumerate(header.code_bits if tokens.size else ()):
            codes = tokens[..., book]
            if not (0 <= codes.min() and codes.max() < 2**bits):
                raise BitstreamError(
                    f"tokens of codebook {book} must be 0..{2**bits - 1}, "
                    f"found {codes.min()}..{codes.max()}"
                )
        total = self._tally.frames + self._held + tokens.shape[1]
        if total > self._layout.max_frames:
            raise BitstreamError(
                f"there can be {self._layout.max_frames} frames, these make "
                f"{total}"
            )

    def _write_chunk(self) -> None:
        """Write what is held."""
        tokens = self._buffer[:, : self._held]
        payload = pack_tokens(self.header, tokens)
        tally = self._tally
        self._send(
            self._layout.chunk(tally.chunks, tally.frames, self._held, payload)
        )
        tally.add(self._held, len(payload))
        self._held = 0

    def _send(self, data: bytes) -> None:
        """Write bytes that a reader can use at once."""
        write_all(self._fileobj, data)
        if hasattr(self._fileobj, "flush"):
            self._fileobj.flush()


class BitstreamReader:
    """Read a stream chunk by chunk, holding at most one chunk.

    Reads forward only, so pipes and sockets will do. The stream begins
    where the file object stands and must be the last thing in it. The file
    object stays open: it belongs to the caller.

    Arguments
    ---------
    fileobj : binary file object
        Only its ``read`` is needed; if it can seek, its size or its trailer
        is checked before anything is decoded.
    on_damage : str
        "raise" refuses any fault. "conceal" yields damaged and missing
        chunks with ``ok=False`` and ignores what follows the end; a header
        must be whole all the same. The stream may claim ``MAX_CLAIM`` times
        what is there: a header may lie, and 40 bytes can claim years.
        "conceal-all" believes it.

    Raises
    ------
    NotAnFmacFileError, UnsupportedVersionError, HeaderDamagedError
        If there is no header that can be trusted.
    TruncatedStreamError, TrailingDataError
        If the size is wrong: here if the file can seek, else on iterating.
    ChunkDamagedError
        On iterating; the next call goes on with the next chunk.
    ValueError
        If ``on_damage`` is something else.

    Example
    -------
    >>> import io
    >>> file = io.BytesIO()
    >>> with BitstreamWriter(file, StreamHeader(bytes(8))) as writer:
    ...     writer.write(np.full((1, 2, 8), 7))
    ...     writer.close(num_samples=600)
    >>> _ = file.seek(0)
    >>> reader = BitstreamReader(file)
    >>> [(chunk.start_frame, chunk.tokens.shape) for chunk in reader]
    [(0, (1, 2, 8))]
    >>> reader.summary.num_samples
    600
    """

    def __init__(self, fileobj, on_damage: str = "raise"):
        if on_damage not in POLICIES:
            raise ValueError(
                f"on_damage must be one of {POLICIES}, found {on_damage!r}"
            )
        self._policy = on_damage
        self._source = Source(fileobj)
        self.header = StreamHeader.read(self._source.read)
        self._layout = _LAYOUTS[self.header.version](self.header)
        self._tally = _Tally(self.header, self._layout)
        if self._source.is_file:
            fault = self._layout.look_ahead(self._source, self._check_claim)
            self._refuse(fault)
        self._parts = self._layout.read(self._source, self._check_claim)

    @property
    def num_samples(self) -> int | None:
        """Samples per channel, or None as long as nothing has stated it."""
        return self._layout.num_samples

    @property
    def summary(self) -> StreamSummary:
        """What was read; complete when there are no more chunks."""
        return self._tally.summary(self._layout.num_samples)

    def __iter__(self) -> Iterator[Chunk]:
        return self

    def __next__(self) -> Chunk:
        for part in self._parts:
            index = self._tally.chunks
            if part.frames:
                self._count(part)
            self._refuse(part.fault)
            if part.frames:
                return self._chunk(index, part)
        if self._policy == "raise" and self._source.read(1):
            raise TrailingDataError(
                f"the stream is {self.summary.stream_bytes} bytes, found more"
            )
        raise StopIteration

    def _count(self, part) -> None:
        """Count a chunk; of one that is lost, what it had at least."""
        ok = part.payload is not None
        least = self.header.least_bytes(part.frames)
        size = len(part.payload) if ok else least
        self._tally.add(part.frames, size, ok)

    def _refuse(self, fault: BitstreamError | None) -> None:
        """Raise what is wrong, if that is wanted."""
        if fault is not None and self._policy == "raise":
            raise fault

    def _check_claim(self, claimed: int) -> None:
        """Refuse to conceal far more than a stream ever held."""
        found = self._source.size
        if self._policy == "conceal" and claimed > MAX_CLAIM * found:
            raise TruncatedStreamError(
                f"the stream claims {claimed} bytes, found {found}: more "
                f"than {MAX_CLAIM} times what is there is not concealed "
                "(--conceal-all does)"
            )

    def _chunk(self, index: int, part) -> Chunk:
        """Build a chunk, of zeros if there is no payload to trust."""
        if part.payload is None:
            tokens = np.zeros(self.header.chunk_shape(part.frames), np.int64)
        else:
            tokens = unpack_tokens(self.header, part.frames, part.payload)
        return Chunk(index, part.start, tokens, part.payload is not None)


class _Tally:
    """Counts the chunks of a stream.

    Arguments
    ---------
    header : StreamHeader
        Of the stream.
    layout : Version1 or Version2
        Says what frames its chunks.
    """

    def __init__(self, header, layout):
        self.header = header
        self.layout = layout
        self.frames = self.chunks = self.damaged = self.payload_bytes = 0

    def add(self, frames: int, payload_bytes: int, ok: bool = True) -> None:
        """Count a chunk."""
        self.frames += frames
        self.chunks += 1
        self.damaged += not ok
        self.payload_bytes += payload_bytes

    def summary(self, num_samples: int | None) -> StreamSummary:
        """What it comes to."""
        layout = self.layout
        framing = self.chunks * layout.chunk_overhead + layout.end_overhead
        if num_samples is None:
            num_samples = self.frames * self.header.hop_length
        return StreamSummary(
            self.header,
            num_samples,
            self.chunks,
            self.payload_bytes,
            framing,
            self.damaged,
            layout.complete,
        )
