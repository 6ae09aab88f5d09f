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


def _widths(bits) -> np.ndarray:
    """Bits of each code of a cycle, from one number or a sequence."""
    widths = [bits] if np.ndim(bits) == 0 else list(bits)
    checked = [
        check_range("bits per code", width, 1, MAX_BITS_PER_CODE)
        for width in widths
    ]
    return np.array(checked, np.int64)


def _places(widths: np.ndarray) -> np.ndarray:
    """Which of its 16 bits each code of a cycle has in a stream."""
    return np.arange(MAX_BITS_PER_CODE) >= MAX_BITS_PER_CODE - widths[:, None]


def codes_to_bits(codes: np.ndarray, bits) -> np.ndarray:
    """Bits of codes, most significant first: `pack_codes` before packing."""
    widths = _widths(bits)
    codes = np.asarray(codes)
    if codes.ndim != 1 or not np.issubdtype(codes.dtype, np.integer):
        raise BitstreamError(
            "codes must be one axis of integers, found "
            f"shape {codes.shape} of {codes.dtype}"
        )
    if codes.size % len(widths):
        raise BitstreamError(
            f"codes must be a multiple of {len(widths)}, found {codes.size}"
        )
    rows = codes.reshape(-1, len(widths))
    wrong = ((rows < 0) | (rows >= 2**widths)).any(0)
    if wrong.any():
        column, width = rows[:, wrong][:, 0], widths[wrong][0]
        raise BitstreamError(
            f"codes of {width} bits must be 0..{2**width - 1}, "
            f"found {column.min()}..{column.max()}"
        )
    pairs = rows.astype(">u2").view(np.uint8)
    wide = np.unpackbits(pairs).reshape(-1, *_places(widths).shape)
    return wide[:, _places(widths)].ravel()


def bits_to_codes(stored: np.ndarray, bits) -> np.ndarray:
    """Undo `codes_to_bits`: whole cycles of codes, int64."""
    places = _places(_widths(bits))
    stored = stored.reshape(-1, np.count_nonzero(places))
    wide = np.zeros((len(stored), *places.shape), np.uint8)
    wide[:, places] = stored
    return np.packbits(wide).view(">u2").astype(np.int64)


def pack_codes(codes: np.ndarray, bits) -> bytes:
    """Pack codes, most significant bit first.

    Arguments
    ---------
    codes : numpy.ndarray
        Codes [n] of any integer type, each 0..2 ** bits - 1.
    bits : int or sequence of int
        Bits per code, 1..16; a sequence is gone through again and again.

    Returns
    -------
    bytes
        As many as the bits need; zero bits fill up the last one.

    Raises
    ------
    BitstreamError
        If ``codes`` is not one axis of integers or a code does not fit.

    Example
    -------
    >>> pack_codes(np.array([1, 2, 3]), 4).hex()
    '1230'
    >>> pack_codes(np.array([1, 2, 3, 4]), [4, 8]).hex()
    '102304'
    """
    return np.packbits(codes_to_bits(codes, bits)).tobytes()


def unpack_codes(data: bytes, bits, count: int) -> np.ndarray:
    """Undo `pack_codes`.

    Arguments
    ---------
    data : bytes
        Packed codes, exactly as many bytes as these need. What the fill
        bits of the last byte are is not looked at.
    bits : int or sequence of int
        As for `pack_codes`.
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
    widths = _widths(bits)
    count = check_range("count", count, 0, 2**62)
    # not by NumPy, whose integers overflow
    size = count // len(widths) * int(widths.sum())
    expected = ceil_div(size, 8)
    if count % len(widths) or len(data) != expected:
        raise BitstreamError(
            f"{count} codes of {bits} bits are {expected} bytes, "
            f"found {len(data)}"
        )
    stored = np.unpackbits(np.frombuffer(data, np.uint8), count=size)
    return bits_to_codes(stored, widths)
