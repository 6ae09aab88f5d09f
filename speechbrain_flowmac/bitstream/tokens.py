"""Whole streams: read into memory, written at once, lowered in rate."""

from contextlib import contextmanager
from dataclasses import replace

import numpy as np

from speechbrain_flowmac.bitstream.chunk import StreamSummary
from speechbrain_flowmac.bitstream.conceal import conceal
from speechbrain_flowmac.bitstream.container import (
    BitstreamReader,
    BitstreamWriter,
)
from speechbrain_flowmac.bitstream.errors import BitstreamError
from speechbrain_flowmac.bitstream.header import StreamHeader
from speechbrain_flowmac.bitstream.packing import check_range
from speechbrain_flowmac.files import atomic_write

MAX_TOKENS_IN_MEMORY = 2**25
"""Most tokens that ``read_tokens`` returns: a day of mono at 3 kbit/s."""


@contextmanager
def _opened(source):
    """Give ``source`` if it is a file object, else open the path."""
    if hasattr(source, "read"):
        yield source
    else:
        with open(source, "rb") as fileobj:
            yield fileobj


@contextmanager
def _created(target):
    """Give ``target`` if it is a file object, else make a whole file."""
    if hasattr(target, "write"):
        yield target
    else:
        with atomic_write(target) as fileobj:
            yield fileobj


def read_tokens(source, on_damage: str = "raise"):
    """Read a whole stream into memory.

    Arguments
    ---------
    source : str or path-like or binary file object
        Where to read.
    on_damage : str
        As for `BitstreamReader`; damaged and missing chunks are filled as
        `conceal` does.

    Returns
    -------
    summary : StreamSummary
        Header, length and sizes.
    tokens : numpy.ndarray
        Tokens [C, N, K], int64.
    damaged : list of int
        Indices of the chunks that were filled.

    Raises
    ------
    BitstreamError
        Whatever `BitstreamReader` raises, or if the stream is longer than
        ``MAX_TOKENS_IN_MEMORY`` tokens, or has no frames.

    Example
    -------
    >>> import io
    >>> file = io.BytesIO()
    >>> with BitstreamWriter(file, StreamHeader(bytes(8))) as writer:
    ...     writer.write(np.full((1, 2, 8), 7))
    >>> _ = file.seek(0)
    >>> summary, tokens, damaged = read_tokens(file)
    >>> summary.num_samples, tokens.shape, damaged
    (1024, (1, 2, 8), [])
    """
    with _opened(source) as fileobj:
        reader = BitstreamReader(fileobj, on_damage)
        header = reader.header
        width = header.num_channels * header.num_codebooks
        most = MAX_TOKENS_IN_MEMORY // width
        parts, damaged = [], []
        for chunk in conceal(reader):
            parts.append(chunk.tokens)
            if not chunk.ok:
                damaged.append(chunk.index)
            if (header.num_frames or reader.summary.num_frames) > most:
                raise BitstreamError(
                    f"more than {most} frames are not read at once; read "
                    "them with BitstreamReader"
                )
    if not parts:
        raise BitstreamError("the stream has no frames")
    return reader.summary, np.concatenate(parts, axis=1), damaged


def write_tokens(
    path,
    header: StreamHeader,
    tokens: np.ndarray,
    num_samples: int | None = None,
) -> StreamSummary:
    """Write a whole file, or nothing if anything fails.

    Arguments
    ---------
    path : str or path-like
        Where to write; an existing file is replaced.
    header : StreamHeader
        What the file says about itself.
    tokens : numpy.ndarray
        Tokens [C, N, K] of any integer type.
    num_samples : int or None
        Samples per channel, see `BitstreamWriter.close`.

    Returns
    -------
    StreamSummary
        Length and sizes.

    Raises
    ------
    BitstreamError
        If the tokens do not fit the header.
    OSError
        If the file cannot be written.

    Example
    -------
    >>> import os, tempfile
    >>> tokens = np.zeros((1, 2, 8), np.int64)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = os.path.join(folder, "a.fmac")
    ...     summary = write_tokens(path, StreamHeader(bytes(8)), tokens, 600)
    ...     os.path.getsize(path) == summary.stream_bytes
    True
    """
    with atomic_write(path) as fileobj:
        with BitstreamWriter(fileobj, header) as writer:
            writer.write(tokens)
            writer.close(num_samples)
    return writer.summary


def transcode(source, target, num_codebooks: int) -> StreamSummary:
    """Lower the rate of a file by dropping codebooks from the end.

    No model is needed: the first codebooks of a residual quantizer are a
    coarser description of the same signal. Version and chunks stay as they
    are. Works chunk by chunk, in the memory of one.

    Arguments
    ---------
    source : str or path-like or binary file object
        What to read; any damage is refused.
    target : str or path-like or binary file object
        Where to write; under a path, nothing is left on failure. May be
        ``source``.
    num_codebooks : int
        Codebooks to keep, 1..those of the source.

    Returns
    -------
    StreamSummary
        Of the new file.

    Raises
    ------
    BitstreamError
        If the source is damaged or has fewer codebooks.

    Example
    -------
    >>> import os, tempfile
    >>> tokens = np.zeros((1, 2, 8), np.int64)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = os.path.join(folder, "a.fmac")
    ...     _ = write_tokens(path, StreamHeader(bytes(8)), tokens)
    ...     transcode(path, path, 2).header.bit_rate
    750.0
    """
    with _opened(source) as source_file:
        reader = BitstreamReader(source_file)
        kept = check_range(
            "num_codebooks", num_codebooks, 1, reader.header.num_codebooks
        )
        header = replace(reader.header, num_codebooks=kept)
        with _created(target) as target_file:
            with BitstreamWriter(target_file, header) as writer:
                for chunk in reader:
                    writer.write(chunk.tokens[:, :, :kept])
                    writer.flush()
                writer.close(reader.num_samples)
    return writer.summary
