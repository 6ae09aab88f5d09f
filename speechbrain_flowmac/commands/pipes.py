"""Where bytes come from and go to: files, stdin and stdout."""

import sys
from contextlib import contextmanager
from pathlib import Path

from speechbrain_flowmac.console import PIPE
from speechbrain_flowmac.files import atomic_write, new_folder


@contextmanager
def opened(source):
    """A source as a binary file object.

    Arguments
    ---------
    source : str
        Path, or "-" for stdin.

    Yields
    ------
    binary file object
    """
    if source == PIPE:
        yield sys.stdin.buffer
    else:
        with open(source, "rb") as file:
            yield file


@contextmanager
def output(target, stops):
    """A file that appears only when it is complete.

    Arguments
    ---------
    target : str
        Path, whose folder is made if needed, or "-" for stdout.
    stops : Stops
        A signal that came on the way leaves nothing behind.

    Yields
    ------
    binary file object
        Can seek, but for stdout, which gets all at once.
    """
    if target == PIPE:
        yield sys.stdout.buffer
        stops.check()
        sys.stdout.buffer.flush()
        return
    with new_folder(Path(target).parent), atomic_write(target) as file:
        yield file
        stops.check()
