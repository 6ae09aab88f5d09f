"""What a command is to do: inputs found, outputs chosen, file by file."""

import glob
import os
import sys
from pathlib import Path
from typing import NamedTuple

from speechbrain_flowmac.console import PIPE, UsageError, bar, complain, say


class Job(NamedTuple):
    """One file to work on.

    Arguments
    ---------
    source : str
        Path, or "-" for stdin.
    target : str
        Path, or "-" for stdout.
    """

    source: str
    target: str


def matches(name, endings):
    """Files that an input names, with their paths relative to it.

    Arguments
    ---------
    name : str
        A file, a folder (searched for `endings`) or a pattern.
    endings : set of str
        Lower case, such as ".wav".

    Yields
    ------
    tuple of Path
        The file, and its path relative to the folder, or to the part of the
        pattern that has no wildcards.
    """
    path = Path(name)
    if path.is_dir():
        for found in sorted(path.rglob("*")):
            if found.suffix.lower() in endings and found.is_file():
                yield found, found.relative_to(path)
    elif path.exists():
        yield path, Path(path.name)
    elif glob.has_magic(name):
        fixed = list(path.parts[:-1])
        while any(glob.has_magic(part) for part in fixed):
            fixed.pop()
        root = Path(*fixed)
        for match in sorted(glob.glob(name, recursive=True)):
            for found, _ in matches(match, endings):
                yield found, found.relative_to(root)


def find_inputs(names, endings):
    """All input files, each once.

    Arguments
    ---------
    names : list of str
        Files, folders, patterns, or only "-".
    endings : set of str
        What to look for in folders.

    Returns
    -------
    tuple
        A list of (file, relative path), and whether there can be more than
        one, so that outputs belong into a folder.
    """
    if PIPE in names:
        if len(names) > 1:
            raise UsageError("'-' (stdin) must be the only input")
        return [(Path(PIPE), Path("stdin"))], False
    found = {}
    for name in names:
        here = list(matches(name, endings))
        if not here and Path(name).is_dir():
            raise UsageError(f"nothing to do in folder {name}")
        if not here:
            raise UsageError(f"no such file: {name}")
        for path, relative in here:
            found.setdefault(path.resolve(), (path, relative))
    single = len(names) == 1 and Path(names[0]).exists()
    return list(found.values()), not single or Path(names[0]).is_dir()


def plan(args, endings, ending, beside):
    """What to do for each input, checked before anything is done.

    Arguments
    ---------
    args : argparse.Namespace
        `inputs`, `out` and `overwrite`.
    endings : set of str
        What to look for in folders.
    ending : str
        Of outputs in folders.
    beside : str
        Ending of an output that is written beside its input.

    Returns
    -------
    list of Job
    """
    inputs, many = find_inputs(args.inputs, endings)
    out = args.out
    if out is None and args.inputs == [PIPE]:
        out = PIPE
    if out == PIPE and many:
        raise UsageError("only a single file can go to '-' (stdout)")
    in_folder = out not in (None, PIPE) and (
        many or Path(out).is_dir() or out.endswith(("/", os.sep))
    )
    jobs = []
    for path, relative in inputs:
        if out is None:
            target = str(path.with_suffix(beside))
        elif in_folder:
            target = str(Path(out) / relative.with_suffix(ending))
        else:
            target = out
        jobs.append(Job(str(path), target))
    if in_folder and Path(out).exists() and not Path(out).is_dir():
        raise UsageError(f"several outputs need a folder, {out} is a file")
    check_targets(jobs, args.overwrite)
    if not in_folder and out not in (None, PIPE):
        folder = Path(out).parent
        if not folder.is_dir():
            raise UsageError(f"no such folder: {folder}")
    return jobs


def check_targets(jobs, overwrite):
    """Refuses outputs that would destroy something.

    Arguments
    ---------
    jobs : list of Job
        All jobs of the command.
    overwrite : bool
        Whether files may be replaced (inputs never).
    """
    sources = {Path(job.source).resolve() for job in jobs}
    writers = {}
    for job in jobs:
        if job.target == PIPE:
            if sys.stdout.isatty():
                raise UsageError("will not write binary data to a terminal")
            continue
        target = Path(job.target)
        place = target.resolve()
        other = writers.setdefault(place, job.source)
        if other != job.source:
            raise UsageError(
                f"{other} and {job.source} would both become {target}"
            )
        if place in sources:
            raise UsageError(f"{target} is an input, it would be replaced")
        if target.is_dir():
            raise UsageError(f"{target} is a folder")
        if os.path.lexists(target) and not overwrite:
            raise UsageError(f"{target} exists (--overwrite replaces it)")


def run_jobs(jobs, work, args):
    """Works on files one by one; goes on after one that fails.

    Arguments
    ---------
    jobs : list of Job
        The files.
    work : callable
        Takes a job, returns the line to print.
    args : argparse.Namespace
        `debug`.

    Returns
    -------
    int
        Exit code.
    """
    piped = any(job.target == PIPE for job in jobs)
    lines = sys.stderr if piped else sys.stdout
    failed = []
    with bar(len(jobs), unit="file") as progress:
        for job in jobs:
            try:
                line = work(job)
            except BrokenPipeError:
                raise
            except Exception as error:
                complain(error, args.debug, job.source)
                failed.append(job.source)
            else:
                say(line, lines)
            progress.update()
    if failed and len(jobs) > 1:
        names = ", ".join(failed)
        text = f"{len(failed)} of {len(jobs)} files failed: {names}"
        say(f"flowmac: error: {text}", sys.stderr)
    return 1 if failed else 0


def add_files(parser, what, required=False):
    """Adds inputs and their output to the arguments of a command."""
    parser.add_argument(
        "inputs",
        nargs="+",
        metavar="IN",
        help=f"{what}: files, folders (searched), patterns, or - for stdin",
    )
    parser.add_argument(
        "-o",
        "--out",
        metavar="OUT",
        required=required,
        help="a file, a folder if there are several inputs, or - for stdout"
        + ("" if required else "; default: beside the input"),
    )
    add_overwrite(parser)


def add_overwrite(parser):
    """Adds the permission to replace files."""
    parser.add_argument(
        "--overwrite", action="store_true", help="replace existing outputs"
    )
