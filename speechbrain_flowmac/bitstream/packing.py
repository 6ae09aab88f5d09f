"""Codes of any number of bits, packed into bytes.

Most significant bit first, with nothing between the codes; zero bits fill up
the last byte.
"""

from operator import index as as_int

import numpy as np

from speechbrain_flowmac.bitstream.errors import BitstreamError

MAX_BITS_PER_CODE = 16


def check_range(name: str, value, low: int, high: int) -> int:
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


def ceil_div(value: int, divisor: int) -> int:
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
    bits = check_range("bits per code", bits, 1, MAX_BITS_PER_CODE)
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
    bits = check_range("bits per code", bits, 1, MAX_BITS_PER_CODE)
    count = check_range("count", count, 0, 2**62)
    expected = ceil_div(count * bits, 8)
    if len(data) != expected:
        raise BitstreamError(
            f"{count} codes of {bits} bits are {expected} bytes, "
            f"found {len(data)}"
        )
    stored = np.unpackbits(np.frombuffer(data, np.uint8), count=count * bits)
    wide = np.zeros((count, MAX_BITS_PER_CODE), np.uint8)
    wide[:, MAX_BITS_PER_CODE - bits :] = stored.reshape(count, bits)
    return np.packbits(wide).view(">u2").astype(np.int64)
