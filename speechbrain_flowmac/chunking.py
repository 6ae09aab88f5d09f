"""Streams cut into overlapping windows.

A chunk is coded together with as many frames of context on each side as the
networks see; the context's output is thrown away. So coding in chunks gives
what coding the whole would.

    frames    |--context--|=====chunk=====|--context--|
                          a               b
                 lo                                 hi

Shapes: C channels (as the batch), T samples, N token frames.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from speechbrain_flowmac.lobes.features import num_frames


class Window(NamedTuple):
    """A chunk with its context.

    Arguments
    ---------
    data : torch.Tensor
        Frames lo .. hi, shape [C, (hi - lo) * unit, ...].
    lo : int
        First frame of `data`.
    start : int
        First frame of the chunk.
    end : int
        Frame after the last of the chunk.
    """

    data: Tensor
    lo: int
    start: int
    end: int


def windows(blocks, chunk, context, unit=1):
    """Cuts a stream of blocks into overlapping windows.

    A window is given as soon as all of it is there; how long the stream is
    shows at its end.

    Arguments
    ---------
    blocks : iterable of torch.Tensor
        Consecutive parts of the stream, shape [C, n, ...], any n.
    chunk : int or None
        Frames of a chunk; None for the whole stream.
    context : int
        Frames of context on each side, fewer at the ends of the stream.
    unit : int
        Entries of a block per frame; the last frame may have fewer.

    Yields
    ------
    Window

    Example
    -------
    >>> stream = [torch.arange(10).reshape(1, 10)]
    >>> [w.data.tolist() for w in windows(stream, 2, 1, unit=2)]
    [[[0, 1, 2, 3, 4, 5]], [[2, 3, 4, 5, 6, 7, 8, 9]], [[6, 7, 8, 9]]]
    """
    blocks = iter(blocks)
    parts, first = [], 0  # what is kept of the stream, and its first frame
    have, start, total = 0, 0, None
    while True:
        wanted = None if chunk is None else start + chunk + context - first
        while total is None and (wanted is None or have < wanted * unit):
            block = next(blocks, None)
            if block is None:
                total = first + num_frames(have, unit)
            else:
                parts.append(block)
                have += block.shape[1]
        end = total if chunk is None else start + chunk
        hi = end + context
        if total is not None:
            end, hi = min(end, total), min(hi, total)
        if start >= end:
            return
        lo = max(start - context, 0)
        held = torch.cat(parts, 1)[:, (lo - first) * unit :]
        parts, first, have = [held], lo, held.shape[1]
        yield Window(held[:, : (hi - lo) * unit], lo, start, end)
        start = end
