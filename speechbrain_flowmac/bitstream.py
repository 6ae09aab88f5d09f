"""The ``.fmac`` file: tokens of the codec, packed, checksummed, streamable.

A file is one header and then chunks of about a second. Every size follows
from the header, so there are no length fields to go wrong: chunk ``i`` holds
``frames_per_chunk`` frames, the last one holds what is left. Chunks do not
depend on each other, so one damaged chunk costs one second of sound.

Header, version 1, big-endian, 40 bytes:

======  ====  ==========================================================
offset  size  field
======  ====  ==========================================================
0       4     magic, the ASCII letters ``FMAC``
4       1     version, 1
5       1     channels C, 1..255
6       1     codebooks K, 1..255
7       1     bits per code, 1..16 (codebook size = 2 ** bits)
8       8     model fingerprint, first 8 bytes of a SHA-256
16      4     sample rate in Hz, 1..2**32 - 1
20      2     hop length H in samples, 1..65535
22      2     frames per chunk F, 1..65535
24      8     samples per channel T, 1 or more
32      4     frames N = ceil(T / H), 1..2**32 - 1
36      4     CRC-32 of bytes 0..35
======  ====  ==========================================================

Chunk ``i`` of ``n`` frames, with ``n = F`` for all chunks but the last:

======  ====  ==========================================================
offset  size  field
======  ====  ==========================================================
0       4     CRC-32 of: ``i`` (4 bytes, big-endian), the header's
              CRC-32 (4 bytes, as in the file), the packed codes
4       P     packed codes, P = ceil(C * n * K * bits / 8)
======  ====  ==========================================================

Codes are packed most significant bit first, in the order channel, frame,
codebook, with nothing between them; zero bits fill up the last byte of the
chunk. A chunk holds at most ``MAX_CODES_PER_CHUNK`` codes, which bounds the
memory of every reader. CRC-32 is that of zlib and PNG. It finds accidents;
it does not protect against someone who changes a file on purpose.

Eight codebooks of 256 entries at 24 kHz and hop 512 make 8 bytes per frame:
3000 bit/s, plus 40 bytes per file and 4 bytes per chunk, about 32 bit/s.
"""

import os
import secrets
import struct
import zlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from operator import index as as_int

import numpy as np

__all__ = [
    "BitstreamError",
    "BitstreamReader",
    "BitstreamWriter",
    "Chunk",
    "ChunkDamagedError",
    "HeaderDamagedError",
    "NotAnFmacFileError",
    "StreamHeader",
    "TrailingDataError",
    "TruncatedStreamError",
    "UnsupportedVersionError",
    "atomic_write",
    "conceal",
    "pack_codes",
    "read_tokens",
    "transcode",
    "unpack_codes",
    "write_tokens",
]

MAGIC = b"FMAC"
VERSION = 1
FINGERPRINT_BYTES = 8
MAX_BITS_PER_CODE = 16
MAX_CODES_PER_CHUNK = 2**20
"""Largest C * F * K; a reader holds one chunk, so this bounds its memory."""
MAX_TOKENS_IN_MEMORY = 2**25
"""Most tokens that ``read_tokens`` returns: a day of mono at 3 kbit/s."""
MAX_CLAIM = 10
"""How many times its own size a file may claim and still be concealed."""
POLICIES = ("raise", "conceal", "conceal-all")
"""What to do about damage, see `BitstreamReader`."""

_FIELDS = struct.Struct(">4sBBBB8sIHHQI")
_CRC = struct.Struct(">I")
_CHUNK_PLACE = struct.Struct(">II")
_HEADER_BYTES = _FIELDS.size + _CRC.size


class BitstreamError(ValueError):
    """Something about a stream, or about what should become one, is wrong."""


class NotAnFmacFileError(BitstreamError):
    """The first bytes are not those of an ``.fmac`` file."""


class UnsupportedVersionError(BitstreamError):
    """The file says a format version that this program does not know."""


class HeaderDamagedError(BitstreamError):
    """The header fails its checksum or contradicts itself."""


class ChunkDamagedError(BitstreamError):
    """A chunk fails its checksum: changed, misplaced or of another file."""


class TruncatedStreamError(BitstreamError):
    """The stream ends before the bytes that its header promises."""


class TrailingDataError(BitstreamError):
    """The stream goes on after its last chunk."""


def _check_range(name: str, value, low: int, high: int) -> int:
    """Return ``value`` as int, or say what it is and what it may be."""
    try:
        number = as_int(value)
    except TypeError:
        raise BitstreamError(
            f"{name} must be a whole number, found {value!r}"
        ) from None
    if not low <= number <= high:
        raise BitstreamError(f"{name} must be {low}..{high}, found {number}")
    return number


def _ceil_div(value: int, divisor: int) -> int:
    """Integer division that rounds up (exact for any size)."""
    return -(-value // divisor)


def pack_codes(codes: np.ndarray, bits: int) -> bytes:
    """Pack codes to ``bits`` bits each, most significant bit first.

    Arguments
    ---------
    codes : numpy.ndarray
        Codes [n] of any integer type, each 0..2 ** bits - 1.
    bits : int
        Bits per code, 1..16.

    Returns
    -------
    bytes
        ceil(n * bits / 8) bytes; zero bits fill up the last one.

    Raises
    ------
    BitstreamError
        If ``codes`` is not one axis of integers or a code does not fit.

    Example
    -------
    >>> pack_codes(np.array([1, 2, 3]), 4).hex()
    '1230'
    """
    bits = _check_range("bits per code", bits, 1, MAX_BITS_PER_CODE)
    codes = np.asarray(codes)
    if codes.ndim != 1 or not np.issubdtype(codes.dtype, np.integer):
        raise BitstreamError(
            "codes must be one axis of integers, found "
            f"shape {codes.shape} of {codes.dtype}"
        )
    if codes.size and not (0 <= codes.min() and codes.max() < 2**bits):
        raise BitstreamError(
            f"codes of {bits} bits must be 0..{2**bits - 1}, "
            f"found {codes.min()}..{codes.max()}"
        )
    pairs = codes.astype(">u2").view(np.uint8).reshape(-1, 2)
    low_bits = np.unpackbits(pairs, axis=1)[:, MAX_BITS_PER_CODE - bits :]
    return np.packbits(low_bits).tobytes()


def unpack_codes(data: bytes, bits: int, count: int) -> np.ndarray:
    """Undo `pack_codes`.

    Arguments
    ---------
    data : bytes
        Packed codes, exactly ceil(count * bits / 8) bytes. What the fill
        bits of the last byte are is not looked at.
    bits : int
        Bits per code, 1..16.
    count : int
        Number of codes.

    Returns
    -------
    numpy.ndarray
        Codes [count], int64.

    Raises
    ------
    BitstreamError
        If the number of bytes is not that of ``count`` codes.

    Example
    -------
    >>> unpack_codes(bytes.fromhex("1230"), 4, 3)
    array([1, 2, 3])
    """
    bits = _check_range("bits per code", bits, 1, MAX_BITS_PER_CODE)
    count = _check_range("count", count, 0, 2**62)
    expected = _ceil_div(count * bits, 8)
    if len(data) != expected:
        raise BitstreamError(
            f"{count} codes of {bits} bits are {expected} bytes, "
            f"found {len(data)}"
        )
    stored = np.unpackbits(np.frombuffer(data, np.uint8), count=count * bits)
    wide = np.zeros((count, MAX_BITS_PER_CODE), np.uint8)
    wide[:, MAX_BITS_PER_CODE - bits :] = stored.reshape(count, bits)
    return np.packbits(wide).view(">u2").astype(np.int64)


@dataclass(frozen=True)
class StreamHeader:
    """What a file says about itself; all sizes follow from it.

    Arguments
    ---------
    num_samples : int
        Samples per channel T, at least 1. An empty signal has no frames and
        therefore no file.
    fingerprint : bytes
        8 bytes that name the model, the first ones of a SHA-256.
    sample_rate : int
        In Hz.
    hop_length : int
        Samples per frame.
    num_channels : int
        Channels C, 1..255.
    num_codebooks : int
        Codebooks K, 1..255.
    bits_per_code : int
        1..16; a codebook has 2 ** bits_per_code entries.
    frames_per_chunk : int
        Frames in every chunk but the last, 1..65535. The default is about
        one second at 24 kHz and hop 512.

    Raises
    ------
    BitstreamError
        If a value is out of range.

    Example
    -------
    >>> header = StreamHeader(num_samples=240_000, fingerprint=bytes(8))
    >>> header.num_frames, header.num_chunks
    (469, 10)
    >>> header.payload_bytes, header.file_bytes
    (3752, 3832)
    >>> header.bit_rate
    3000.0
    """

    num_samples: int
    fingerprint: bytes
    sample_rate: int = 24_000
    hop_length: int = 512
    num_channels: int = 1
    num_codebooks: int = 8
    bits_per_code: int = 8
    frames_per_chunk: int = 47

    def __post_init__(self):
        limits = {
            "num_samples": 2**64 - 1,
            "sample_rate": 2**32 - 1,
            "hop_length": 2**16 - 1,
            "num_channels": 2**8 - 1,
            "num_codebooks": 2**8 - 1,
            "bits_per_code": MAX_BITS_PER_CODE,
            "frames_per_chunk": 2**16 - 1,
        }
        for name, high in limits.items():
            value = _check_range(name, getattr(self, name), 1, high)
            # NumPy integers become plain ones; the class itself is frozen.
            object.__setattr__(self, name, value)
        _check_range("frames of a stream", self.num_frames, 1, 2**32 - 1)
        _check_range(
            "channels * frames_per_chunk * codebooks",
            self.num_channels * self.frames_per_chunk * self.num_codebooks,
            1,
            MAX_CODES_PER_CHUNK,
        )
        if (
            not isinstance(self.fingerprint, bytes)
            or len(self.fingerprint) != FINGERPRINT_BYTES
        ):
            raise BitstreamError(
                f"fingerprint must be {FINGERPRINT_BYTES} bytes, "
                f"found {self.fingerprint!r}"
            )

    @property
    def num_frames(self) -> int:
        """Frames N = ceil(T / hop_length)."""
        return _ceil_div(self.num_samples, self.hop_length)

    @property
    def codebook_size(self) -> int:
        """Entries of a codebook."""
        return 2**self.bits_per_code

    @property
    def bits_per_frame(self) -> int:
        """Bits of one frame of one channel."""
        return self.num_codebooks * self.bits_per_code

    @property
    def bit_rate(self) -> float:
        """Nominal rate of all channels in bit/s, without header and CRCs."""
        bits = self.bits_per_frame * self.num_channels
        return bits * self.sample_rate / self.hop_length

    @property
    def num_chunks(self) -> int:
        """Chunks of the file."""
        return _ceil_div(self.num_frames, self.frames_per_chunk)

    @property
    def header_bytes(self) -> int:
        """Size of the header itself."""
        return _HEADER_BYTES

    @property
    def payload_bytes(self) -> int:
        """Bytes of all packed codes, without header and CRCs."""
        last = self.num_chunks - 1
        full = self.chunk_payload_bytes(0) if last else 0
        return last * full + self.chunk_payload_bytes(last)

    @property
    def file_bytes(self) -> int:
        """Bytes of the whole file."""
        checksums = self.num_chunks * _CRC.size
        return self.header_bytes + checksums + self.payload_bytes

    def chunk_frames(self, index: int) -> int:
        """Frames of chunk ``index``."""
        left = self.num_frames - index * self.frames_per_chunk
        return min(self.frames_per_chunk, left)

    def chunk_payload_bytes(self, index: int) -> int:
        """Bytes of the packed codes of chunk ``index``."""
        bits = self.num_channels * self.bits_per_frame
        return _ceil_div(bits * self.chunk_frames(index), 8)

    def to_bytes(self) -> bytes:
        """Return the header as it stands in a file.

        Returns
        -------
        bytes
            ``header_bytes`` bytes, see the table of this module.

        Example
        -------
        >>> header = StreamHeader(num_samples=1, fingerprint=bytes(8))
        >>> StreamHeader.from_bytes(header.to_bytes()) == header
        True
        """
        fields = _FIELDS.pack(
            MAGIC,
            VERSION,
            self.num_channels,
            self.num_codebooks,
            self.bits_per_code,
            self.fingerprint,
            self.sample_rate,
            self.hop_length,
            self.frames_per_chunk,
            self.num_samples,
            self.num_frames,
        )
        return fields + _CRC.pack(zlib.crc32(fields))

    @classmethod
    def from_bytes(cls, data: bytes) -> "StreamHeader":
        """Parse a header; nothing is believed before its checksum matches.

        Arguments
        ---------
        data : bytes
            The first ``header_bytes`` bytes of a file, or all there are.

        Returns
        -------
        StreamHeader
            The header.

        Raises
        ------
        NotAnFmacFileError, UnsupportedVersionError, TruncatedStreamError
            If these bytes do not begin a version 1 file.
        HeaderDamagedError
            If the checksum is wrong or the fields contradict each other.
        """
        _check_beginning(data)
        fields, (stored,) = data[: _FIELDS.size], _CRC.unpack(data[-4:])
        if zlib.crc32(fields) != stored:
            raise HeaderDamagedError(
                f"header says CRC-32 {stored:08x}, its bytes have "
                f"{zlib.crc32(fields):08x}"
            )
        _, _, *shape, fingerprint, rate, hop, chunk, samples, frames = (
            _FIELDS.unpack(fields)
        )
        try:
            header = cls(samples, fingerprint, rate, hop, *shape, chunk)
        except BitstreamError as error:
            raise HeaderDamagedError(f"impossible header: {error}") from error
        if header.num_frames != frames:
            raise HeaderDamagedError(
                f"header says {frames} frames; {samples} samples at hop "
                f"{hop} are {header.num_frames}"
            )
        return header


def _check_beginning(data: bytes) -> None:
    """Check magic, version and length of what should be a header."""
    if data[: len(MAGIC)] != MAGIC[: len(data)]:
        raise NotAnFmacFileError(
            f"an .fmac file begins with {MAGIC!r}, found {data[: len(MAGIC)]!r}"
        )
    if len(data) > len(MAGIC) and data[len(MAGIC)] != VERSION:
        raise UnsupportedVersionError(
            f"file is of version {data[len(MAGIC)]}, this program reads "
            f"version {VERSION}"
        )
    if len(data) != _HEADER_BYTES:
        raise TruncatedStreamError(
            f"a header is {_HEADER_BYTES} bytes, found {len(data)}"
        )


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


def _read_up_to(fileobj, size: int) -> bytes:
    """Read ``size`` bytes, or fewer only if the stream ends.

    One read of a pipe may return less than was asked for.
    """
    pieces, missing = [], size
    while missing > 0:
        piece = fileobj.read(missing)
        if not isinstance(piece, (bytes, bytearray)):
            raise TypeError(
                "fileobj must be open for blocking reads of bytes, its "
                f"read() gave {type(piece).__name__}"
            )
        if not piece:
            break
        pieces.append(piece)
        missing -= len(piece)
    return b"".join(pieces)


def _write_all(fileobj, data: bytes) -> None:
    """Write all bytes; an unbuffered file may take fewer in one call."""
    view = memoryview(data)
    while view:
        taken = fileobj.write(view)
        if taken == 0:
            raise OSError(f"fileobj takes no more, {len(view)} bytes left")
        # Some file-like objects return nothing from a complete write.
        view = view[taken:] if taken is not None else view[:0]


def _bytes_left(fileobj) -> int | None:
    """Return how many bytes follow, or None if the file cannot tell."""
    try:
        if not fileobj.seekable():
            return None
        here = fileobj.tell()
        end = fileobj.seek(0, os.SEEK_END)
        fileobj.seek(here)
    except (AttributeError, OSError, ValueError):
        return None
    return end - here


def _chunk_crc(index: int, header_crc: int, payload: bytes) -> int:
    """CRC-32 that ties a payload to its place and to its file."""
    return zlib.crc32(payload, zlib.crc32(_CHUNK_PLACE.pack(index, header_crc)))


def _header_crc(header: StreamHeader) -> int:
    """Return the CRC-32 that ends the header."""
    return _CRC.unpack(header.to_bytes()[-_CRC.size :])[0]


class BitstreamWriter:
    """Write a stream piece by piece, holding at most one chunk.

    The header goes out at once, each chunk as soon as it is full. The file
    object stays open: it belongs to the caller.

    Arguments
    ---------
    fileobj : binary file object
        Only its ``write`` is used.
    header : StreamHeader
        What will be written.

    Example
    -------
    >>> import io
    >>> file = io.BytesIO()
    >>> header = StreamHeader(num_samples=1000, fingerprint=bytes(8))
    >>> with BitstreamWriter(file, header) as writer:
    ...     writer.write(np.zeros((1, 1, 8), np.int64))
    ...     writer.write(np.zeros((1, 1, 8), np.int64))
    >>> len(file.getvalue()) == header.file_bytes
    True
    """

    def __init__(self, fileobj, header: StreamHeader):
        self.header = header
        self._fileobj = fileobj
        self._header_crc = _header_crc(header)
        self._frames = 0
        self._closed = False
        self._buffer = np.zeros(
            (
                header.num_channels,
                min(header.frames_per_chunk, header.num_frames),
                header.num_codebooks,
            ),
            np.int64,
        )
        _write_all(fileobj, header.to_bytes())

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
            more frames than it says, or if the writer is closed.
        """
        if self._closed:
            raise BitstreamError("the writer is closed")
        tokens = np.asarray(tokens)
        self._check(tokens)
        taken = 0
        while taken < tokens.shape[1]:
            index, filled = divmod(self._frames, self.header.frames_per_chunk)
            size = self.header.chunk_frames(index)
            count = min(size - filled, tokens.shape[1] - taken)
            piece = tokens[:, taken : taken + count]
            self._buffer[:, filled : filled + count] = piece
            taken += count
            self._frames += count
            if filled + count == size:
                self._write_chunk(index, self._buffer[:, :size])

    def close(self) -> None:
        """End the stream; closing twice does nothing.

        Raises
        ------
        BitstreamError
            If fewer frames were written than the header says.
        """
        if self._closed:
            return
        self._closed = True
        if self._frames != self.header.num_frames:
            raise BitstreamError(
                f"the header says {self.header.num_frames} frames, "
                f"{self._frames} were written"
            )

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
        if tokens.size and not (
            0 <= tokens.min() and tokens.max() < header.codebook_size
        ):
            raise BitstreamError(
                f"tokens must be 0..{header.codebook_size - 1}, found "
                f"{tokens.min()}..{tokens.max()}"
            )
        total = self._frames + tokens.shape[1]
        if total > header.num_frames:
            raise BitstreamError(
                f"the header says {header.num_frames} frames, these make "
                f"{total}"
            )

    def _write_chunk(self, index: int, tokens: np.ndarray) -> None:
        """Write one whole chunk."""
        payload = pack_codes(tokens.ravel(), self.header.bits_per_code)
        crc = _chunk_crc(index, self._header_crc, payload)
        _write_all(self._fileobj, _CRC.pack(crc) + payload)


class BitstreamReader:
    """Read a stream chunk by chunk, holding at most one chunk.

    Reads forward only, so pipes and sockets will do. The stream begins
    where the file object stands and must be the last thing in it. The file
    object stays open: it belongs to the caller.

    Arguments
    ---------
    fileobj : binary file object
        Only its ``read`` is needed; if it can seek, its size is checked
        before anything is decoded.
    on_damage : str
        "raise" refuses any fault. "conceal" yields damaged and missing
        chunks with ``ok=False`` and ignores what follows the last chunk;
        a header must be whole all the same. What is missing may be
        ``MAX_CLAIM`` times what is there: a header may lie, and 40 bytes
        can claim years. "conceal-all" believes it.

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
    >>> header = StreamHeader(num_samples=600, fingerprint=bytes(8))
    >>> file = io.BytesIO()
    >>> with BitstreamWriter(file, header) as writer:
    ...     writer.write(np.full((1, 2, 8), 7))
    >>> _ = file.seek(0)
    >>> reader = BitstreamReader(file)
    >>> reader.header.num_samples
    600
    >>> [(chunk.start_frame, chunk.tokens.shape) for chunk in reader]
    [(0, (1, 2, 8))]
    """

    def __init__(self, fileobj, on_damage: str = "raise"):
        if on_damage not in POLICIES:
            raise ValueError(
                f"on_damage must be one of {POLICIES}, found {on_damage!r}"
            )
        self._fileobj = fileobj
        self._strict = on_damage == "raise"
        self._believes = on_damage == "conceal-all"
        self._next_index = 0
        self._received = 0
        self.header = StreamHeader.from_bytes(self._read(_HEADER_BYTES))
        self._header_crc = _header_crc(self.header)
        self._check_size()

    def __iter__(self) -> Iterator[Chunk]:
        return self

    def __next__(self) -> Chunk:
        index = self._next_index
        if index >= self.header.num_chunks:
            self._check_end()
            raise StopIteration
        size = _CRC.size + self.header.chunk_payload_bytes(index)
        data = self._read(size)
        if len(data) < size and not self._strict:
            self._check_claim(self._received)
        self._next_index += 1
        payload = data[_CRC.size :]
        crc = _chunk_crc(index, self._header_crc, payload)
        ok = len(data) == size and data[: _CRC.size] == _CRC.pack(crc)
        if self._strict and not ok:
            self._refuse(index, len(data), size)
        return self._chunk(index, payload if ok else None)

    def _read(self, size: int) -> bytes:
        """Read ``size`` bytes, or all there are, and count them."""
        data = _read_up_to(self._fileobj, size)
        self._received += len(data)
        return data

    def _chunk(self, index: int, payload: bytes | None) -> Chunk:
        """Build a chunk, of zeros if there is no payload to trust."""
        header = self.header
        shape = (
            header.num_channels,
            header.chunk_frames(index),
            header.num_codebooks,
        )
        start = index * header.frames_per_chunk
        if payload is None:
            return Chunk(index, start, np.zeros(shape, np.int64), False)
        count = shape[0] * shape[1] * shape[2]
        codes = unpack_codes(payload, header.bits_per_code, count)
        return Chunk(index, start, codes.reshape(shape), True)

    def _refuse(self, index: int, found: int, expected: int) -> None:
        """Raise the error that a bad chunk deserves."""
        place = f"chunk {index} of 0..{self.header.num_chunks - 1}"
        if found < expected:
            raise TruncatedStreamError(
                f"{place} is {expected} bytes, found {found}"
            )
        raise ChunkDamagedError(f"{place} does not match its CRC-32")

    def _check_size(self) -> None:
        """Compare the size of a seekable file with the header."""
        left = _bytes_left(self._fileobj)
        if left is None:
            return
        found, expected = self._received + left, self.header.file_bytes
        if not self._strict:
            self._check_claim(found)
        elif found != expected:
            raise (
                TruncatedStreamError if found < expected else TrailingDataError
            )(f"the header says {expected} bytes, found {found}")

    def _check_claim(self, found: int) -> None:
        """Refuse to conceal far more than a stream ever held."""
        claimed = self.header.file_bytes
        if claimed > MAX_CLAIM * found and not self._believes:
            raise TruncatedStreamError(
                f"the header says {claimed} bytes, found {found}: more than "
                f"{MAX_CLAIM} times what is there is not concealed "
                "(--conceal-all does)"
            )

    def _check_end(self) -> None:
        """Refuse bytes after the last chunk, if strict."""
        if self._strict and _read_up_to(self._fileobj, 1):
            raise TrailingDataError(
                f"the header says {self.header.file_bytes} bytes, found more"
            )


def conceal(chunks: Iterable[Chunk]) -> Iterator[Chunk]:
    """Fill damaged chunks with the nearest good frame in time.

    The last good frame is held across a gap. A gap at the very beginning
    takes the first good frame that comes; if none comes, zeros remain.

    Arguments
    ---------
    chunks : iterable of Chunk
        Consecutive chunks of one stream, as `BitstreamReader` gives them:
        all of one length but the last. Memory stays that of a few chunks,
        however long the gap is.

    Yields
    ------
    Chunk
        The same chunks; filled ones still say ``ok=False``.

    Example
    -------
    >>> good = Chunk(0, 0, np.array([[[1], [2]]]), True)
    >>> lost = Chunk(1, 2, np.array([[[0], [0]]]), False)
    >>> [chunk.tokens.ravel().tolist() for chunk in conceal([good, lost])]
    [[1, 2], [2, 2]]
    """
    held = None  # [C, 1, K], the last good frame
    first = latest = None  # ends of a gap at the beginning
    for chunk in chunks:
        if chunk.ok:
            if first is not None:
                yield from _fill_gap(first, latest, chunk.tokens[:, :1])
                first = None
            held = chunk.tokens[:, -1:].copy()
            yield chunk
        elif held is not None:
            yield from _fill_gap(chunk, chunk, held)
        else:
            first, latest = chunk if first is None else first, chunk
    if first is not None:
        yield from _fill_gap(first, latest, first.tokens[:, :1] * 0)


def _fill_gap(
    first: Chunk, latest: Chunk, frame: np.ndarray
) -> Iterator[Chunk]:
    """Yield the chunks ``first``..``latest``, each frame being ``frame``.

    Only the two ends are kept, because a gap can be of any length; those
    between are as long as the first.
    """
    length = first.tokens.shape[1]
    for index in range(first.index, latest.index + 1):
        start = first.start_frame + (index - first.index) * length
        size = latest.tokens.shape[1] if index == latest.index else length
        yield Chunk(index, start, np.repeat(frame, size, axis=1), False)


@contextmanager
def _opened(source):
    """Give ``source`` if it is a file object, else open the path."""
    if hasattr(source, "read"):
        yield source
    else:
        with open(source, "rb") as fileobj:
            yield fileobj


def read_tokens(source, on_damage: str = "raise"):
    """Read a whole stream into memory.

    Arguments
    ---------
    source : str or path-like or binary file object
        Where to read.
    on_damage : str
        As for `BitstreamReader`; damaged and missing chunks are filled as
        `conceal` does.

    Returns
    -------
    header : StreamHeader
        The header.
    tokens : numpy.ndarray
        Tokens [C, N, K], int64.
    damaged : list of int
        Indices of the chunks that were filled.

    Raises
    ------
    BitstreamError
        Whatever `BitstreamReader` raises, or if the stream is longer than
        ``MAX_TOKENS_IN_MEMORY`` tokens.

    Example
    -------
    >>> import io
    >>> header = StreamHeader(num_samples=600, fingerprint=bytes(8))
    >>> file = io.BytesIO()
    >>> with BitstreamWriter(file, header) as writer:
    ...     writer.write(np.full((1, 2, 8), 7))
    >>> _ = file.seek(0)
    >>> found, tokens, damaged = read_tokens(file)
    >>> found == header, tokens.shape, damaged
    (True, (1, 2, 8), [])
    """
    with _opened(source) as fileobj:
        reader = BitstreamReader(fileobj, on_damage)
        header = reader.header
        shape = (header.num_channels, header.num_frames, header.num_codebooks)
        count = shape[0] * shape[1] * shape[2]
        if count > MAX_TOKENS_IN_MEMORY:
            raise BitstreamError(
                f"stream of {count} tokens, at most {MAX_TOKENS_IN_MEMORY} "
                "are read at once; read it with BitstreamReader"
            )
        tokens = np.zeros(shape, np.int64)
        damaged = []
        for chunk in conceal(reader):
            stop = chunk.start_frame + chunk.tokens.shape[1]
            tokens[:, chunk.start_frame : stop] = chunk.tokens
            if not chunk.ok:
                damaged.append(chunk.index)
    return header, tokens, damaged


@contextmanager
def atomic_write(path, mode: str = "wb"):
    """Open a file that appears under its name only when it is complete.

    Writes to a temporary name in the same folder and renames at the end. If
    the body raises, the temporary file is removed and what was under
    ``path`` before is untouched. Permissions are those of a new file.

    Arguments
    ---------
    path : str or path-like
        Where the file shall be; links are followed.
    mode : str
        "wb", or "w" for UTF-8 text.

    Yields
    ------
    file object
        Open for writing.

    Raises
    ------
    FileNotFoundError
        If the folder does not exist.
    OSError
        If ``path`` is a folder, a device or a pipe.
    ValueError
        If ``mode`` is something else.

    Example
    -------
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     with atomic_write(f"{folder}/a.bin") as file:
    ...         _ = file.write(b"all of it")
    ...     os.listdir(folder)
    ['a.bin']
    """
    if mode not in ("wb", "w"):
        raise ValueError(f"mode must be 'wb' or 'w', found {mode!r}")
    target = os.path.realpath(path)
    folder, name = os.path.split(target)
    if not os.path.isdir(folder):
        raise FileNotFoundError(f"folder {folder} of {path} does not exist")
    if os.path.exists(target) and not os.path.isfile(target):
        raise OSError(f"{path} exists and is not a regular file")
    # Mode "x" lets the umask decide on permissions, as for any new file.
    partial = os.path.join(folder, f".{name[:32]}.{secrets.token_hex(8)}.tmp")
    encoding = "utf-8" if mode == "w" else None
    try:
        with open(partial, mode.replace("w", "x"), encoding=encoding) as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(partial, target)
    except BaseException:
        if os.path.exists(partial):
            os.unlink(partial)
        raise


def write_tokens(path, header: StreamHeader, tokens: np.ndarray) -> None:
    """Write a whole file, or nothing if anything fails.

    Arguments
    ---------
    path : str or path-like
        Where to write; an existing file is replaced.
    header : StreamHeader
        What the file says about itself.
    tokens : numpy.ndarray
        Tokens [C, N, K] of any integer type, with N = header.num_frames.

    Raises
    ------
    BitstreamError
        If the tokens do not fit the header.
    OSError
        If the file cannot be written.

    Example
    -------
    >>> import tempfile
    >>> header = StreamHeader(num_samples=600, fingerprint=bytes(8))
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = os.path.join(folder, "a.fmac")
    ...     write_tokens(path, header, np.zeros((1, 2, 8), np.int64))
    ...     os.path.getsize(path) == header.file_bytes
    True
    """
    with atomic_write(path) as fileobj:
        with BitstreamWriter(fileobj, header) as writer:
            writer.write(tokens)


def transcode(source, target, num_codebooks: int) -> StreamHeader:
    """Lower the rate of a file by dropping codebooks from the end.

    No model is needed: the first codebooks of a residual quantizer are a
    coarser description of the same signal. Works chunk by chunk, in the
    memory of one.

    Arguments
    ---------
    source : str or path-like or binary file object
        What to read; any damage is refused.
    target : str or path-like
        Where to write; nothing is left there on failure. May be ``source``.
    num_codebooks : int
        Codebooks to keep, 1..those of the source.

    Returns
    -------
    StreamHeader
        The header of the new file.

    Raises
    ------
    BitstreamError
        If the source is damaged or has fewer codebooks.

    Example
    -------
    >>> import tempfile
    >>> header = StreamHeader(num_samples=600, fingerprint=bytes(8))
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = os.path.join(folder, "a.fmac")
    ...     write_tokens(path, header, np.zeros((1, 2, 8), np.int64))
    ...     transcode(path, path, 2).bit_rate
    750.0
    """
    with _opened(source) as source_file:
        reader = BitstreamReader(source_file)
        kept = _check_range(
            "num_codebooks", num_codebooks, 1, reader.header.num_codebooks
        )
        header = replace(reader.header, num_codebooks=kept)
        with atomic_write(target) as target_file:
            with BitstreamWriter(target_file, header) as writer:
                for chunk in reader:
                    writer.write(chunk.tokens[:, :, :kept])
    return header
