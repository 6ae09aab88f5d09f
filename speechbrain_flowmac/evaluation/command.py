"""`flowmac evaluate`: its options, what it checks, what it prints.

What computes is imported once the command runs, so `--help` is quick.
"""

import argparse
import importlib.util
import math
import os
import shlex
import sys
from pathlib import Path

from speechbrain_flowmac import console
from speechbrain_flowmac.console import (
    UsageError,
    complain,
    whole_number,
    write,
)

DEFAULT_SYSTEMS = (
    "flowmac:8",
    "flowmac:4",
    "flowmac:2",
    "flowmac:1",
    "opus:6",
    "amrwb:6.60",
    "speex:0",
    "codec2:3200",
    "lowpass:3.5",
)
MAX_JOBS = 8  # unless asked for: every process has models in memory
NEEDED = ("jinja2", "matplotlib")  # of the extra "eval"
PACKAGES = ("speechbrain-flowmac", "torch", "speechbrain", "numpy", "soxr")

DESCRIPTION = """\
Compare codecs: code every audio file of a folder with every system, at bit
rates that are measured, decode, and score with objective metrics.

Files are mixed down and brought to one level first, because codecs differ in
how they take a level; what comes back is brought to the reference's time and
level. Kept in OUTPUT/cache, nothing is computed twice: a run that was stopped
goes on, one with another system or metric adds only that.

systems:
  flowmac:CODEBOOKS[:steps=N][:solver=NAME][:model=SOURCE][:rate=HZ]
  opus:KBPS  codec2:MODE  amrwb:KBPS  speex:QUALITY  lc3:KBPS  (programs)
  encodec:KBPS  dac:MODEL  mimi:CODEBOOKS                (transformers)
  lowpass:KHZ             an anchor of listening tests
  folder:PATH[:label=NAME][:kbps=RATE]     decoded by someone else
"""


def add_command(commands):
    """Adds `flowmac evaluate` to what `add_subparsers` returned.

    Example
    -------
    >>> parser = argparse.ArgumentParser()
    >>> add_command(parser.add_subparsers())
    >>> line = "evaluate --data speech --output report --level none"
    >>> parser.parse_args(line.split()).systems[0]
    'flowmac:8'
    """
    command = console.add_command(
        commands,
        "evaluate",
        evaluate,
        "Compare codecs: rates, scores, speeds, and a page to listen.",
        description=DESCRIPTION,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    _add_what(command)
    _add_how(command)


def _add_what(command):
    """Options of what is compared, and shown."""
    command.add_argument(
        "--data",
        required=True,
        type=Path,
        metavar="FOLDER",
        help="audio files of any kind and rate; searched",
    )
    command.add_argument(
        "--output",
        required=True,
        type=Path,
        metavar="FOLDER",
        help="new, or that of an earlier evaluation, which is added to",
    )
    command.add_argument(
        "--systems",
        nargs="+",
        default=DEFAULT_SYSTEMS,
        metavar="NAME",
        help="what to compare; one that is not installed is only listed as "
        f"unavailable (default: {' '.join(DEFAULT_SYSTEMS)})",
    )
    command.add_argument(
        "--metrics",
        nargs="+",
        metavar="NAME",
        help="default: all whose packages are installed",
    )
    command.add_argument(
        "--limit",
        type=whole_number(1, 10**9),
        metavar="N",
        help="only N files, evenly from all",
    )
    command.add_argument(
        "--level",
        type=level,
        default=-26.0,
        metavar="DB",
        help="RMS level of the references relative to full scale, or none to "
        "leave the files' own (default: %(default)g)",
    )
    command.add_argument(
        "--listen",
        type=whole_number(0, 10**6),
        metavar="N",
        help="how many files can be listened to in the report (default: 8)",
    )


def _add_how(command):
    """Options of the work, and of speeds."""
    command.add_argument(
        "--jobs",
        type=whole_number(1, 1024),
        metavar="J",
        help="processes that code and score (default: as many as fit the "
        f"CPUs, at most {MAX_JOBS})",
    )
    command.add_argument(
        "--threads",
        type=whole_number(1, 1024),
        default=1,
        metavar="N",
        help="CPU threads of each process, and of a codec whose speed is "
        "measured (default: %(default)s)",
    )
    group = command.add_mutually_exclusive_group()
    group.add_argument(
        "--no-speed", action="store_true", help="do not measure speeds"
    )
    group.add_argument(
        "--speed-anew",
        action="store_true",
        help="measure speeds again that are known of this machine",
    )


def level(text):
    """A type for `--level`: dB of 0 or less, or none.

    Example
    -------
    >>> level("-26"), level("none")
    (-26.0, None)
    """
    if text == "none":
        return None
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not -math.inf < value <= 0:
        raise argparse.ArgumentTypeError(
            f"expected a number of dB, at most 0, or none; found {text!r}"
        )
    return value


def choose_metrics(names, table, available):
    """The metrics to compute, part of a table of `Metric` by name.

    Arguments
    ---------
    names : list of str or None
        Those asked for, UsageError for one that is unknown or unavailable;
        None for all that are available, UsageError if none is.
    table : dict
        name: `Metric`.
    available : callable
        From a name to None, or to what is missing.

    Returns
    -------
    tuple
        Part of the table; and what is missing, by name, of others.
    """
    for name in names or ():
        if name not in table:
            raise UsageError(
                f"no metric {name!r}, known are {', '.join(table)}"
            )
    chosen = {name: table[name] for name in names or table}
    missing = {name: available(name) for name in chosen}
    missing = {name: why for name, why in missing.items() if why is not None}
    if missing and (names or len(missing) == len(chosen)):
        name, why = next(iter(missing.items()))
        raise UsageError(f"metric {name}: {why}")
    return {x: chosen[x] for x in chosen if x not in missing}, missing


class Complaints:
    """Prints errors, with tracebacks if told so, and counts them."""

    def __init__(self, debug):
        self.debug = debug
        self.count = 0

    def __call__(self, error, what):
        """Prints an error and what it was of."""
        self.count += 1
        if self.debug:
            write(error.where, sys.stderr, end="")
        complain(error, False, what)


def default_jobs(threads):
    """How many processes of so many threads fit the CPUs that this one may use.

    Example
    -------
    >>> 1 <= default_jobs(1) <= MAX_JOBS
    True
    """
    try:
        cpus = len(os.sched_getaffinity(0))
    except AttributeError:  # only Linux has it
        cpus = os.cpu_count() or 1
    return max(1, min(cpus // threads, MAX_JOBS))


def evaluate(args):
    """`flowmac evaluate`"""
    lacking = [x for x in NEEDED if importlib.util.find_spec(x) is None]
    if lacking:
        raise UsageError(
            f"flowmac evaluate needs {', '.join(lacking)}: pip install "
            "'speechbrain-flowmac[eval]'"
        )

    from speechbrain_flowmac import metrics
    from speechbrain_flowmac.evaluation import runner, speed, tables
    from speechbrain_flowmac.evaluation.descriptions import describe
    from speechbrain_flowmac.evaluation.scoring import Conditions

    runner.check_output(args.output)
    names = runner.find_recordings(args.data, args.output, args.limit)
    chosen, missing = choose_metrics(
        args.metrics, metrics.METRICS, metrics.available
    )
    conditions = Conditions(args.data, args.output, chosen, level_db=args.level)
    systems = describe(args.systems, conditions, args.threads)
    for name, why in missing.items():
        note(f"metric {name} is left out: {why}")
    for system in systems:
        if system.unavailable is not None:
            note(f"{system.name} is unavailable: {system.unavailable}")

    complaints = Complaints(args.debug)
    packages = {p for metric in chosen.values() for p in metric.packages}
    results = runner.evaluate(
        conditions,
        names,
        systems,
        args.jobs or default_jobs(args.threads),
        args.threads,
        complaints,
    )
    if not results.files:
        raise ValueError(f"none of the {len(names)} files can be read")
    results.command = shlex.join(["flowmac", *args.argv])
    results.machine = speed.machine(
        args.threads, [*PACKAGES, *sorted(packages)]
    )
    if not args.no_speed:
        speed.measure_systems(
            conditions,
            results.systems,
            [file.name for file in results.files],
            args.threads,
            args.speed_anew,
            complaints,
        )
    page = runner.write(results, args.output, args.listen)
    print(tables.markdown(results))
    print(f"Listen and compare: {page}")
    if complaints.count:
        errors = f"{complaints.count} error{'s' * (complaints.count != 1)}"
        note(f"{errors}, see above")
    return 1 if complaints.count else 0


def note(text):
    """Prints a line to stderr that is no error."""
    write(f"flowmac: {text}", sys.stderr)
