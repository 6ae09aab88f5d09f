"""Reads damaged, forged and random `.fmac` streams, and counts what happens.

Each stream is small and valid, then attacked in one way, then read with one
of the reader's policies, as a file or as a pipe. Whatever comes, the reader
must end within a second of processor time, raise nothing but `BitstreamError`,
and give no token that was not written.

    python benchmarks/fuzz_bitstream.py --streams 1000000
"""

import argparse
import io
import struct
import time
import zlib
from collections import Counter

import numpy as np
from tqdm import tqdm

from speechbrain_flowmac.bitstream import (
    BitstreamError,
    BitstreamReader,
    BitstreamWriter,
    StreamHeader,
    conceal,
)

HEADER_BYTES = {1: 40, 2: 32}
# offset and size of every number in a header
SHAPE = ((5, 1), (6, 1), (7, 1), (16, 4), (20, 2), (22, 2))
FIELDS = {1: (*SHAPE, (24, 8), (32, 4)), 2: (*SHAPE, (24, 4))}


class FuzzError(AssertionError):
    """A stream was read that should not have been, or took too long."""


class Pipe(io.BytesIO):
    """Reads forward only."""

    def seekable(self):
        """No."""
        return False


def make_stream(rng):
    """Tokens [C, N, K] and a stream of them, of any kind."""
    samples = int(rng.integers(1, 6000))
    hop = int(rng.integers(100, 700))
    kind = rng.integers(4)
    new = {}
    if kind > 1:
        new = {"runs": True, "first_code_bits": int(rng.integers(0, 17))}
    header = StreamHeader(
        fingerprint=rng.bytes(8),
        hop_length=hop,
        num_channels=int(rng.integers(1, 3)),
        num_codebooks=int(rng.integers(1, 9)),
        bits_per_code=int(rng.integers(1, 12)),
        frames_per_chunk=int(rng.integers(1, 20)),
        num_samples=samples if kind == 0 else None,
        **new,
    )
    frames = -(-samples // hop)
    shape = header.chunk_shape(frames)
    tokens = rng.integers(0, 2 ** np.array(header.code_bits), shape)
    if header.runs:
        tokens = np.repeat(tokens, rng.integers(1, 9, frames), 1)[:, :frames]
    file = io.BytesIO()
    with BitstreamWriter(file, header) as writer:
        for start in range(0, frames, size := int(rng.integers(1, 20))):
            writer.write(tokens[:, start : start + size])
            writer.flush()
        writer.close(samples)
    return tokens, file.getvalue()


# Attacks: bytes of a stream to other bytes


def flip(rng, data):
    """Changes up to four bytes."""
    data = bytearray(data)
    for place in rng.integers(0, len(data), rng.integers(1, 5)):
        data[place] ^= int(rng.integers(1, 256))
    return bytes(data)


def cut(rng, data):
    """Loses the end."""
    return data[: rng.integers(0, len(data))]


def remove(rng, data):
    """Loses a part."""
    first, last = np.sort(rng.integers(0, len(data) + 1, 2))
    return data[:first] + data[last:]


def insert(rng, data):
    """Gets random bytes somewhere."""
    place = rng.integers(0, len(data) + 1)
    return data[:place] + rng.bytes(rng.integers(1, 60)) + data[place:]


def repeat(rng, data):
    """Has a part twice, or in another place."""
    first, last, place = np.sort(rng.integers(0, len(data) + 1, 3))
    return data[:place] + data[first:last] + data[place:]


def noise(rng, data):
    """Random bytes behind a magic and a version."""
    return data[:5] + rng.bytes(rng.integers(0, len(data)))


def forge(rng, data):
    """A header that lies, with a checksum that is right."""
    size = HEADER_BYTES[data[4]]
    fields = bytearray(data[: size - 4])
    for _ in range(rng.integers(1, 4)):
        change(
            rng, fields, *FIELDS[data[4]][rng.integers(len(FIELDS[data[4]]))]
        )
    return seal(fields) + data[size:]


def claim(rng, data):
    """A length that is a lie, by a header or an end that are right."""
    frames = int(rng.integers(1, 2 ** int(rng.integers(1, 33))))
    size = HEADER_BYTES[data[4]]
    if data[4] == 2:
        return data[:-11] + head(data, ord("E"), 1, frames)
    hop = 2 ** int(rng.integers(0, 16))
    fields = bytearray(data[: size - 4])
    fields[20:22] = struct.pack(">H", hop)
    fields[24:36] = struct.pack(">QI", frames * hop, frames)
    return seal(fields) + data[size:]


def heads(rng, data):
    """Heads that lie, with checksums that are right, anywhere."""
    data = bytearray(data)
    for _ in range(rng.integers(1, 9)):
        fields = bytearray(7)
        fields[0] = b"CREX"[rng.integers(4)]
        change(rng, fields, 1, 2)
        change(rng, fields, 3, 4)
        kind, count, frame = struct.unpack(">BHI", fields)
        place = rng.integers(HEADER_BYTES[data[4]], len(data) + 1)
        data[place : place + 11] = head(data, kind, count, frame)
    return bytes(data)


def change(rng, fields, offset, size):
    """Puts a number in place of another: any, or one of the extremes."""
    number = rng.bytes(size)
    if rng.random() < 0.5:
        extreme = (0, 1, 2 ** (8 * size - 1), 2 ** (8 * size) - 1)
        number = extreme[rng.integers(4)].to_bytes(size, "big")
    fields[offset : offset + size] = number


def head(data, kind, count, frame):
    """A head of version 2 with its CRC-32, for a stream."""
    fields = struct.pack(">BHI", kind, count, frame)
    size = HEADER_BYTES[data[4]]
    tie = zlib.crc32(data[size - 4 : size])
    return fields + struct.pack(">I", zlib.crc32(fields, tie))


def seal(fields):
    """Header bytes with the CRC-32 of whatever they say."""
    return bytes(fields) + struct.pack(">I", zlib.crc32(fields))


FORGERIES = (forge, claim, heads)
ATTACKS = (flip, cut, remove, insert, repeat, noise, *FORGERIES)


def read(data, policy, pipe):
    """Good chunks of a stream, or the exception that it deserved.

    Arguments
    ---------
    data : bytes
        The stream.
    policy : str
        "raise" or "conceal".
    pipe : bool
        Whether the reader may not seek.

    Returns
    -------
    list of Chunk or BitstreamError
    """
    try:
        reader = BitstreamReader((Pipe if pipe else io.BytesIO)(data), policy)
        return [chunk for chunk in conceal(reader) if chunk.ok]
    except BitstreamError as error:
        return error


def attack(rng, limit_seconds=1.0):
    """Makes a stream, attacks it, reads it and checks what came of it.

    Arguments
    ---------
    rng : numpy.random.Generator
        Decides on everything.
    limit_seconds : float
        Most processor time that reading may take.

    Returns
    -------
    tuple
        Name of the attack, what happened, and seconds of reading.
    """
    tokens, data = make_stream(rng)
    way = ATTACKS[rng.integers(len(ATTACKS))]
    policy = ("raise", "conceal")[rng.integers(2)]
    bad = way(rng, data)
    start = time.process_time()
    found = read(bad, policy, pipe=rng.random() < 0.5)
    seconds = time.process_time() - start
    if seconds > limit_seconds:
        raise FuzzError(f"{way.__name__}: {seconds:.1f} s for {bad.hex()}")
    if isinstance(found, BitstreamError):
        return way.__name__, "refused", seconds
    for chunk in found:
        stop = chunk.start_frame + chunk.tokens.shape[1]
        if not np.array_equal(
            chunk.tokens, tokens[:, chunk.start_frame : stop]
        ):
            raise FuzzError(f"{way.__name__}: wrong tokens in {bad.hex()}")
    if bad == data:
        return way.__name__, "unchanged", seconds
    if policy == "conceal":
        return way.__name__, "concealed", seconds
    # who forges the end may choose how much of the last frame sounds
    same = sum(chunk.tokens.shape[1] for chunk in found) == tokens.shape[1]
    if way in FORGERIES and same:
        return way.__name__, "unchanged", seconds
    raise FuzzError(f"{way.__name__}: nothing noticed in {bad.hex()}")


def main(argv=None):
    """Runs the attacks and prints a table of what happened."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--streams", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args(argv)
    rng = np.random.default_rng(args.seed)
    counts, slowest = Counter(), 0.0
    for _ in tqdm(range(args.streams), unit="stream", disable=None):
        name, outcome, seconds = attack(rng)
        counts[name, outcome] += 1
        slowest = max(slowest, seconds)
    outcomes = ("refused", "concealed", "unchanged")
    print("| attack |", " | ".join(outcomes), "|")
    print("|---|---|---|---|")
    for way in ATTACKS:
        cells = [str(counts[way.__name__, outcome]) for outcome in outcomes]
        print(f"| {way.__name__} |", " | ".join(cells), "|")
    print(
        f"{args.streams} streams: 0 crashes, 0 undetected, "
        f"the slowest took {slowest:.3f} s"
    )


if __name__ == "__main__":
    main()
