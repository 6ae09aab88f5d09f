"""What can be wrong with a stream."""


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
