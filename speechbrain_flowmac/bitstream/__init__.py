"""The ``.fmac`` stream: tokens of the codec, packed, checksummed, streamable.

A stream is a header and then chunks of tokens, each with its checksum, that do
not depend on each other: a damaged one costs its own sound and no more.
docs/fmac.md describes the bytes of both versions.
"""

from speechbrain_flowmac.bitstream.chunk import Chunk, StreamSummary
from speechbrain_flowmac.bitstream.conceal import conceal
from speechbrain_flowmac.bitstream.container import (
    MAX_CLAIM,
    BitstreamReader,
    BitstreamWriter,
)
from speechbrain_flowmac.bitstream.errors import (
    BitstreamError,
    ChunkDamagedError,
    HeaderDamagedError,
    NotAnFmacFileError,
    TrailingDataError,
    TruncatedStreamError,
    UnsupportedVersionError,
)
from speechbrain_flowmac.bitstream.header import StreamHeader
from speechbrain_flowmac.bitstream.packing import pack_codes, unpack_codes
from speechbrain_flowmac.bitstream.tokens import (
    MAX_TOKENS_IN_MEMORY,
    read_tokens,
    transcode,
    write_tokens,
)
from speechbrain_flowmac.files import atomic_write

__all__ = [
    "MAX_CLAIM",
    "MAX_TOKENS_IN_MEMORY",
    "BitstreamError",
    "BitstreamReader",
    "BitstreamWriter",
    "Chunk",
    "ChunkDamagedError",
    "HeaderDamagedError",
    "NotAnFmacFileError",
    "StreamHeader",
    "StreamSummary",
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
