"""Gaps of a damaged stream, filled."""

from collections.abc import Iterable, Iterator

import numpy as np

from speechbrain_flowmac.bitstream.chunk import Chunk


def conceal(chunks: Iterable[Chunk]) -> Iterator[Chunk]:
    """Fill damaged chunks with the nearest good frame in time.

    The last good frame is held across a gap. A gap at the very beginning
    takes the first good frame that comes; if none comes, zeros remain.

    Arguments
    ---------
    chunks : iterable of Chunk
        Consecutive chunks of one stream, as `BitstreamReader` gives them.
        Memory stays that of a few chunks, however long the gap is.

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
    gap = []  # [frames, how many such chunks], of a gap at the beginning
    for chunk in chunks:
        if chunk.ok:
            yield from _fill(gap, chunk.tokens[:, :1])
            gap = []
            held = chunk.tokens[:, -1:].copy()
            yield chunk
        elif held is not None:
            filled = np.repeat(held, chunk.tokens.shape[1], axis=1)
            yield Chunk(chunk.index, chunk.start_frame, filled, False)
        else:
            frames = chunk.tokens.shape[1]
            if gap and gap[-1][0] == frames:
                gap[-1][1] += 1
            else:
                gap.append([frames, 1])
            nothing = chunk.tokens[:, :1]
    if gap:
        yield from _fill(gap, nothing)


def _fill(gap: list, frame: np.ndarray) -> Iterator[Chunk]:
    """Yield the chunks of a gap at the beginning, each frame ``frame``."""
    index = start = 0
    for frames, count in gap:
        for _ in range(count):
            tokens = np.repeat(frame, frames, axis=1)
            yield Chunk(index, start, tokens, False)
            index, start = index + 1, start + frames
