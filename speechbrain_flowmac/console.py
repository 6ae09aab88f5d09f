"""What all commands of the command line share: errors, signals, progress,
types of arguments.

It stands apart from the commands because `python -m speechbrain_flowmac.cli`
loads that module as `__main__`, whose classes nobody else could import.
"""

import argparse
import math
import signal
import sys
import traceback
from contextlib import suppress

PIPE = "-"

# Endings that are not the name of a format
MORE_ENDINGS = {".aif", ".aifc", ".oga", ".opus"}


class UsageError(ValueError):
    """A command that cannot be carried out as it was given."""


class Stopped(BaseException):
    """A signal asked to stop; its number is the argument."""


class Stops:
    """Turns signals into exceptions while it is entered.

    An exception that is raised while libsndfile calls back to read or write
    is lost there, so what was received is kept, and `check` raises it again.

    Example
    -------
    >>> with Stops() as stops:
    ...     stops.check()
    """

    names = ("SIGINT", "SIGTERM", "SIGHUP")

    def __init__(self):
        self.received = None
        self._before = {}

    def __enter__(self):
        for name in self.names:
            number = getattr(signal, name, None)
            # what is ignored (nohup, background jobs) stays ignored
            if number is None or signal.getsignal(number) == signal.SIG_IGN:
                continue
            with suppress(ValueError):  # not in the main thread
                self._before[number] = signal.signal(number, self._stop)
        return self

    def __exit__(self, *_):
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _stop(self, number, _):
        self.received = number
        self.check()

    def check(self):
        """Raises `Stopped` if a signal has come."""
        if self.received is not None:
            raise Stopped(self.received)


def printable(text, encoding="utf-8"):
    """A text as one that a terminal shows and does not obey.

    Arguments
    ---------
    text : str
        Such as a file's name: anything at all.
    encoding : str
        Of the terminal.

    Returns
    -------
    str
        With escapes for what cannot be encoded or is no visible character.

    Example
    -------
    >>> print(printable("b\\udcff\\x1b\\u00e9", "ascii"))
    b\\udcff\\x1b\\xe9
    """
    shown = "".join(
        c if c.isprintable() else c.encode("unicode_escape").decode()
        for c in text
    )
    return shown.encode(encoding, "backslashreplace").decode(encoding)


def say(line, file=None):
    """Prints a line beside any progress bar, escaped where it must be.

    Arguments
    ---------
    line : str
        Any text; it stays one line.
    file : text file object or None
        None for stdout.
    """
    file = sys.stdout if file is None else file
    encoding = getattr(file, "encoding", None) or "utf-8"
    write(printable(line, encoding), file)


def write(text, file, end="\n"):
    """Prints a text as it stands beside any progress bar."""
    from tqdm import tqdm  # takes a while: not for --help

    tqdm.write(text, file=file, end=end)


def audio_endings():
    """Endings of files that libsndfile reads.

    Returns
    -------
    set of str

    Example
    -------
    >>> {".wav", ".flac", ".aif"} <= audio_endings()
    True
    """
    import soundfile

    # files without a header do not say what they hold
    formats = set(soundfile.available_formats()) - {"RAW", "SD2"}
    return {f".{name.lower()}" for name in formats} | MORE_ENDINGS


def one_line(error):
    """The message of an exception, in one line.

    Arguments
    ---------
    error : BaseException
        Any.

    Returns
    -------
    str

    Example
    -------
    >>> one_line(ValueError("two\\n  lines")), one_line(KeyError("k"))
    ('two lines', "KeyError: 'k'")
    """
    if isinstance(error, OSError) and error.strerror:
        name = f": {error.filename}" if error.filename else ""
        return error.strerror + name
    text = " ".join(str(error).split())
    if isinstance(error, (ValueError, OSError, RuntimeError)) and text:
        return text
    return f"{type(error).__name__}: {text}"


def complain(error, debug, source=None):
    """Prints an error to stderr.

    Arguments
    ---------
    error : BaseException
        What went wrong.
    debug : bool
        Print the traceback, too.
    source : str or None
        The file it went wrong with.
    """
    if debug:
        lines = traceback.format_exception(error)
        write("".join(lines), sys.stderr, end="")
    text = one_line(error)
    if source is not None and source not in text:
        text = f"{'stdin' if source == PIPE else source}: {text}"
    say(f"flowmac: error: {text}", sys.stderr)


def add_command(commands, name, function, text, **options):
    """Adds a command to the command line.

    Arguments
    ---------
    commands : object
        What `add_subparsers` of the parser returned.
    name : str
        Of the command.
    function : callable
        Takes the parsed arguments, returns the exit code.
    text : str
        What it does, in a sentence.
    **options
        As `add_parser` takes them.

    Returns
    -------
    argparse.ArgumentParser
        For the command's own arguments.
    """
    options = {"description": text, **options}
    command = commands.add_parser(
        name, help=text, allow_abbrev=False, **options
    )
    command.add_argument("--debug", action="store_true", help="show tracebacks")
    command.set_defaults(run=function)
    return command


def bar(total, **options):
    """A progress bar on stderr; none if that is no terminal."""
    from tqdm import tqdm

    return tqdm(total=total, disable=None, leave=False, **options)


def whole_number(low, high):
    """A type for arguments that are integers of a range, both ends in.

    Arguments
    ---------
    low : int
        Lowest value.
    high : int
        Highest value.

    Returns
    -------
    callable

    Example
    -------
    >>> whole_number(0, 9)("7")
    7
    """

    def parse(text):
        try:
            value = int(text)
        except ValueError:
            value = None
        if value is None or not low <= value <= high:
            raise argparse.ArgumentTypeError(
                f"expected a whole number in {low}..{high}, found {text!r}"
            )
        return value

    return parse


def finite_number(text):
    """A type for arguments that are numbers of 0 or more."""
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 <= value < math.inf:
        raise argparse.ArgumentTypeError(
            f"expected a number of 0 or more, found {text!r}"
        )
    return value
