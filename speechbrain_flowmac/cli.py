"""The command line: `flowmac encode`, `decode`, `reconstruct`, `transcode`,
`info`, `demo`, `export`, `recipe`, `evaluate`, `mushra` and `mushra-results`.

Exit codes: 0 if all went well, 1 if any file failed, 2 for a command that
cannot be carried out as it was given (nothing is touched then), 128 + n when
stopped by signal n. Every error is one line on stderr.

Packages are imported only by what needs them, so `--help` and `info` are
quick.
"""

import argparse
import os
import sys
from contextlib import suppress

from speechbrain_flowmac import __version__
from speechbrain_flowmac.commands import (
    decode,
    demo,
    encode,
    export,
    info,
    recipe,
    reconstruct,
    transcode,
)
from speechbrain_flowmac.console import Stopped, Stops, UsageError, complain
from speechbrain_flowmac.evaluation import mushra_command
from speechbrain_flowmac.evaluation.command import add_command

COMMANDS = (encode, decode, reconstruct, transcode, info, demo, export, recipe)


class Parser(argparse.ArgumentParser):
    """A parser whose errors are one line."""

    def error(self, message):
        """Prints the message and exits with 2."""
        self.exit(2, f"flowmac: error: {message} (see {self.prog} --help)\n")


def build_parser():
    """The parser of the command line.

    Returns
    -------
    argparse.ArgumentParser

    Example
    -------
    >>> build_parser().parse_args(["encode", "a.wav"]).channels
    'mix'
    """
    parser = Parser(
        prog="flowmac",
        description="FlowMAC, a neural audio codec: 24 kHz at 3 kbps.",
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=__version__)
    commands = parser.add_subparsers(metavar="COMMAND", required=True)
    for command in COMMANDS:
        command.add(commands)
    add_command(commands)
    mushra_command.add_commands(commands)
    return parser


def main(argv=None):
    """Runs the command line.

    Arguments
    ---------
    argv : list of str or None
        Arguments; None for those of the process.

    Returns
    -------
    int
        Exit code.
    """
    try:
        args = build_parser().parse_args(argv)
    except SystemExit as stop:
        return stop.code or 0
    args.argv = sys.argv[1:] if argv is None else argv
    try:
        with Stops() as args.stops:
            code = args.run(args)
            sys.stdout.flush()
            return code
    except UsageError as error:
        complain(error, args.debug)
        return 2
    except Stopped as stop:
        return 128 + stop.args[0]
    except BrokenPipeError:
        # whoever read stdout has seen enough; what is left goes nowhere
        with suppress(OSError):
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, sys.stdout.fileno())
        return 1
    except Exception as error:
        complain(error, args.debug)
        return 1


if __name__ == "__main__":
    sys.exit(main())
