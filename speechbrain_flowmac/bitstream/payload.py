"""Tokens of a chunk as its payload: frame by frame, or in runs.

In runs, frames that are like the one before are not written again. One bit for
each frame says whether it is new; behind these bits stand the codes of the new
ones alone.

    tokens  7 7 7 2 2 9        new  1 0 0 1 0 1        codes  7 2 9

Shapes: C channels, n frames, K codebooks.
"""

import numpy as np

from speechbrain_flowmac.bitstream.header import StreamHeader
from speechbrain_flowmac.bitstream.packing import (
    bits_to_codes,
    ceil_div,
    codes_to_bits,
    pack_codes,
    unpack_codes,
)


def pack_tokens(header: StreamHeader, tokens: np.ndarray) -> bytes:
    """Payload of tokens [C, n, K] that fit the header.

    Example
    -------
    >>> header = StreamHeader(bytes(8), num_codebooks=1, runs=True)
    >>> pack_tokens(header, np.array([[[7], [7], [2], [2]]])).hex()
    'a07020'
    """
    if not header.runs:
        return pack_codes(tokens.ravel(), header.code_bits)
    new = np.ones(tokens.shape[:2], bool)
    new[:, 1:] = (tokens[:, 1:] != tokens[:, :-1]).any(2)
    codes = codes_to_bits(tokens[new].ravel(), header.code_bits)
    return np.packbits(np.concatenate([new.ravel(), codes])).tobytes()


def payload_bytes(header: StreamHeader, frames: int, beginning: bytes) -> int:
    """Size of the payload that begins so, ``least_bytes`` of it or more.

    Example
    -------
    >>> header = StreamHeader(bytes(8), num_codebooks=1, runs=True)
    >>> payload_bytes(header, 4, bytes.fromhex("a070"))
    3
    """
    if not header.runs:
        return header.least_bytes(frames)
    new = _new_frames(header, frames, beginning)
    bits = new.size + int(new.sum()) * sum(header.code_bits)
    # one that is damaged may have fewer new frames than channels
    return max(ceil_div(bits, 8), header.least_bytes(frames))


def is_payload(header: StreamHeader, frames: int, beginning: bytes) -> bool:
    """Whether every channel has a first frame."""
    return not header.runs or bool(
        _new_frames(header, frames, beginning)[:, 0].all()
    )


def unpack_tokens(
    header: StreamHeader, frames: int, payload: bytes
) -> np.ndarray:
    """Undo `pack_tokens`: tokens [C, n, K], int64.

    Example
    -------
    >>> header = StreamHeader(bytes(8), num_codebooks=1, runs=True)
    >>> unpack_tokens(header, 4, bytes.fromhex("a07020")).ravel()
    array([7, 7, 2, 2])
    """
    shape = header.chunk_shape(frames)
    if not header.runs:
        count = shape[0] * shape[1] * shape[2]
        return unpack_codes(payload, header.code_bits, count).reshape(shape)
    new = _new_frames(header, frames, payload)
    size = int(new.sum()) * sum(header.code_bits)
    bits = np.unpackbits(np.frombuffer(payload, np.uint8))
    codes = bits_to_codes(bits[new.size : new.size + size], header.code_bits)
    runs = codes.reshape(-1, header.num_codebooks)
    return runs[new.ravel().cumsum() - 1].reshape(shape)


def _new_frames(header, frames, beginning):
    """Which frames are new, bool [C, n]."""
    count = header.num_channels * frames
    bits = np.unpackbits(np.frombuffer(beginning, np.uint8), count=count)
    return bits.reshape(-1, frames).astype(bool)
