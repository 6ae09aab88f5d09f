"""The header of a stream: what a file says about itself."""

import struct
import zlib
from dataclasses import dataclass

from speechbrain_flowmac.bitstream.errors import (
    BitstreamError,
    HeaderDamagedError,
    NotAnFmacFileError,
    TruncatedStreamError,
    UnsupportedVersionError,
)
from speechbrain_flowmac.bitstream.packing import (
    MAX_BITS_PER_CODE,
    ceil_div,
    check_range,
)

MAGIC = b"FMAC"
FINGERPRINT_BYTES = 8
MAX_CODES_PER_CHUNK = 2**20
"""Largest C * F * K; a reader holds one chunk, so this bounds its memory."""
MAX_FRAMES = 2**32 - 1
"""Most frames of a stream."""
RUNS = 1
"""Feature: chunks hold runs of frames."""
FIRST_CODE_BITS = 0xFF00
"""Feature: bits per code of the first codebook, 0 for those of the others."""

CRC = struct.Struct(">I")
_SHAPE = ">4sBBBB8sIHH"  # up to frames per chunk
_FIELDS = {1: struct.Struct(_SHAPE + "QI"), 2: struct.Struct(_SHAPE + "I")}
_BEGINNING = len(MAGIC) + 1


@dataclass(frozen=True)
class StreamHeader:
    """What a file says about itself.

    Arguments
    ---------
    fingerprint : bytes
        8 bytes that name the model, the first ones of a SHA-256.
    sample_rate : int
        In Hz.
    hop_length : int
        Samples per frame H.
    num_channels : int
        Channels C, 1..255.
    num_codebooks : int
        Codebooks K, 1..255.
    bits_per_code : int
        1..16; a codebook has 2 ** bits_per_code entries.
    frames_per_chunk : int
        Most frames of a chunk F, 1..65535. The default is about one second
        at 24 kHz and hop 512.
    num_samples : int or None
        Samples per channel T, 1 or more, where they were known when the
        stream began: that is version 1. None, version 2, leaves it open.
    runs : bool
        Whether frames like the one before are left out, see `payload`.
        Version 2 alone.
    first_code_bits : int
        Bits per code of the first codebook, 1..16; 0 for `bits_per_code`.
        Version 2 alone.

    Raises
    ------
    BitstreamError
        If a value is out of range.

    Example
    -------
    >>> header = StreamHeader(bytes(8))
    >>> header.version, header.bit_rate
    (2, 3000.0)
    >>> StreamHeader(bytes(8), num_samples=600).num_frames
    2
    """

    fingerprint: bytes
    sample_rate: int = 24_000
    hop_length: int = 512
    num_channels: int = 1
    num_codebooks: int = 8
    bits_per_code: int = 8
    frames_per_chunk: int = 47
    num_samples: int | None = None
    runs: bool = False
    first_code_bits: int = 0

    def __post_init__(self):
        limits = {
            "sample_rate": 2**32 - 1,
            "hop_length": 2**16 - 1,
            "num_channels": 2**8 - 1,
            "num_codebooks": 2**8 - 1,
            "bits_per_code": MAX_BITS_PER_CODE,
            "frames_per_chunk": 2**16 - 1,
        }
        if self.num_samples is not None:
            limits["num_samples"] = 2**64 - 1
        for name, high in limits.items():
            value = check_range(name, getattr(self, name), 1, high)
            # NumPy integers become plain ones; the class itself is frozen.
            object.__setattr__(self, name, value)
        if self.num_samples is not None:
            check_range("frames of a stream", self.num_frames, 1, MAX_FRAMES)
        first = check_range(
            "first_code_bits", self.first_code_bits, 0, MAX_BITS_PER_CODE
        )
        object.__setattr__(self, "first_code_bits", first)
        object.__setattr__(self, "runs", bool(self.runs))
        if self.features and self.version == 1:
            raise BitstreamError(
                "runs and first_code_bits are not for version 1, which "
                "states num_samples"
            )
        check_range(
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
    def version(self) -> int:
        """Version of the format."""
        return 2 if self.num_samples is None else 1

    @property
    def num_frames(self) -> int | None:
        """Frames N = ceil(T / H), or None if the length is open."""
        if self.num_samples is None:
            return None
        return ceil_div(self.num_samples, self.hop_length)

    @property
    def features(self) -> int:
        """What a reader must know of, as version 2 states it."""
        return RUNS * self.runs | self.first_code_bits << 8

    @property
    def codebook_size(self) -> int:
        """Entries of a codebook, the first of which may have others."""
        return 2**self.bits_per_code

    @property
    def code_bits(self) -> tuple[int, ...]:
        """Bits per code of each codebook."""
        first = self.first_code_bits or self.bits_per_code
        return (first, *[self.bits_per_code] * (self.num_codebooks - 1))

    @property
    def bits_per_frame(self) -> int:
        """Bits of one frame of all channels; of a new one, in runs."""
        return self.num_channels * (sum(self.code_bits) + self.runs)

    @property
    def bit_rate(self) -> float:
        """Nominal rate of all channels in bit/s; the highest, in runs."""
        return self.bits_per_frame * self.sample_rate / self.hop_length

    @property
    def header_bytes(self) -> int:
        """Size of the header itself."""
        return _FIELDS[self.version].size + CRC.size

    @property
    def crc(self) -> int:
        """The CRC-32 that ends the header; it ties chunks to their file."""
        return CRC.unpack(self.to_bytes()[-CRC.size :])[0]

    def chunk_shape(self, frames: int) -> tuple[int, int, int]:
        """Shape [C, n, K] of the tokens of so many frames."""
        return self.num_channels, frames, self.num_codebooks

    def packed_bytes(self, frames: int) -> int:
        """Bytes of the payload of so many frames; the most, in runs."""
        return ceil_div(self.bits_per_frame * frames, 8)

    def least_bytes(self, frames: int) -> int:
        """The fewest that they can be: in runs, one run for each channel."""
        if not self.runs:
            return self.packed_bytes(frames)
        bits = frames + sum(self.code_bits)
        return ceil_div(self.num_channels * bits, 8)

    def to_bytes(self) -> bytes:
        """Return the header as it stands in a file.

        Returns
        -------
        bytes
            ``header_bytes`` bytes, see docs/fmac.md.

        Example
        -------
        >>> header = StreamHeader(bytes(8), num_samples=1)
        >>> StreamHeader.from_bytes(header.to_bytes()) == header
        True
        """
        length = (self.features,)
        if self.version == 1:
            length = (self.num_samples, self.num_frames)
        fields = _FIELDS[self.version].pack(
            MAGIC,
            self.version,
            self.num_channels,
            self.num_codebooks,
            self.bits_per_code,
            self.fingerprint,
            self.sample_rate,
            self.hop_length,
            self.frames_per_chunk,
            *length,
        )
        return fields + CRC.pack(zlib.crc32(fields))

    @classmethod
    def read(cls, read) -> "StreamHeader":
        """Read the header that a stream begins with.

        Arguments
        ---------
        read : callable
            Takes a number of bytes, returns as many or all that are left.

        Returns
        -------
        StreamHeader
            The header.

        Raises
        ------
        BitstreamError
            As `from_bytes`.
        """
        data = read(_BEGINNING)
        missing = _header_size(data) - len(data)
        return cls.from_bytes(data + read(missing))

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
            If these bytes do not begin a file of a known version.
        HeaderDamagedError
            If the checksum is wrong or the fields contradict each other.
        """
        size = _header_size(data)
        if len(data) != size:
            raise TruncatedStreamError(
                f"a header is {size} bytes, found {len(data)}"
            )
        fields, (stored,) = data[: -CRC.size], CRC.unpack(data[-CRC.size :])
        if zlib.crc32(fields) != stored:
            raise HeaderDamagedError(
                f"header says CRC-32 {stored:08x}, its bytes have "
                f"{zlib.crc32(fields):08x}"
            )
        values = _FIELDS[data[len(MAGIC)]].unpack(fields)
        _, version, *shape, fingerprint, rate, hop, chunk = values[:9]
        samples = frames = None
        features = 0
        if version == 1:
            samples, frames = values[9:]
        else:
            features = values[9]
        if features & ~(RUNS | FIRST_CODE_BITS):
            raise UnsupportedVersionError(
                f"header asks for the features {features:08x}, those that are "
                f"known are {RUNS | FIRST_CODE_BITS:08x}"
            )
        new = (bool(features & RUNS), (features & FIRST_CODE_BITS) >> 8)
        try:
            header = cls(fingerprint, rate, hop, *shape, chunk, samples, *new)
        except BitstreamError as error:
            raise HeaderDamagedError(f"impossible header: {error}") from error
        if header.num_frames != frames:
            raise HeaderDamagedError(
                f"header says {frames} frames; {samples} samples at hop "
                f"{hop} are {header.num_frames}"
            )
        return header


def _header_size(data: bytes) -> int:
    """Bytes of the header that begins so, by its version."""
    if data[: len(MAGIC)] != MAGIC[: len(data)]:
        raise NotAnFmacFileError(
            f"an .fmac file begins with {MAGIC!r}, found {data[: len(MAGIC)]!r}"
        )
    version = data[len(MAGIC)] if len(data) >= _BEGINNING else max(_FIELDS)
    if version not in _FIELDS:
        raise UnsupportedVersionError(
            f"file is of version {version}, this program reads versions "
            f"{', '.join(map(str, _FIELDS))}"
        )
    return _FIELDS[version].size + CRC.size
