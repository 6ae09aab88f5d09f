"""Packets of an Ogg stream, to count what a codec sent without its container.

Source: RFC 3533, "The Ogg Encapsulation Format Version 0", section 6.
"""

import struct

__all__ = ["packets"]

# capture pattern, version, flags, granule position, serial number, page
# number, checksum, segments; little-endian
_PAGE = struct.Struct("<4sBBqIIIB")
_CONTINUED = 1
_FULL_SEGMENT = 255


def packets(data):
    """Takes the packets out of an Ogg file of one stream, those with headers
    too, as a list of bytes.

        Checksums are not looked at: this counts, the decoder checks. ValueError
        if this is no Ogg file, ends too early, or lacks a page.

    Example
    -------
    >>> page = b"OggS" + bytes(22) + bytes([2, 3, 2]) + b"abcde"
    >>> packets(page)
    [b'abc', b'de']
    """
    found, begun, position = [], None, 0
    while position < len(data):
        if data[position : position + 4] != b"OggS":
            raise ValueError(f"no Ogg page begins at byte {position}")
        head = data[position : position + _PAGE.size]
        if len(head) < _PAGE.size:
            raise ValueError("the Ogg file ends within a page")
        _, _, flags, _, _, _, _, segments = _PAGE.unpack(head)
        position += _PAGE.size
        lacing = data[position : position + segments]
        position += segments
        if position + sum(lacing) > len(data) or len(lacing) < segments:
            raise ValueError("the Ogg file ends within a page")
        if bool(flags & _CONTINUED) != (begun is not None):
            raise ValueError("a page of the Ogg file is missing")
        for size in lacing:
            begun = (begun or b"") + data[position : position + size]
            position += size
            # a packet ends with the first segment that is not full, which
            # is an empty one after a multiple of 255 bytes
            if size < _FULL_SEGMENT:
                found.append(begun)
                begun = None
    if begun is not None:
        raise ValueError("the Ogg file ends within a packet")
    return found
