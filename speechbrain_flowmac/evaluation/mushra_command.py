"""`flowmac mushra` and `flowmac mushra-results`: listening tests."""

import importlib.util
import os
import shutil
import tempfile
from contextlib import contextmanager
from pathlib import Path

from speechbrain_flowmac.console import UsageError, add_command, whole_number
from speechbrain_flowmac.files import new_folder


@contextmanager
def whole_folder(target):
    """A folder that appears only when it is complete.

    It must not exist; what is yielded is a folder beside it, to be filled.
    """
    target = Path(target)
    if os.path.lexists(target):
        raise UsageError(f"{target} exists")
    with new_folder(target.parent):
        work = tempfile.mkdtemp(dir=target.parent, prefix=f".{target.name}-")
        try:
            yield Path(work)
            os.chmod(work, 0o755)  # made for the owner alone
            os.rename(work, target)
        finally:
            shutil.rmtree(work, ignore_errors=True)


def mushra(args):
    """`flowmac mushra`"""
    if importlib.util.find_spec("jinja2") is None:
        raise UsageError("the test's files need jinja2: pip install jinja2")

    from speechbrain_flowmac.evaluation.mushra import make_test
    from speechbrain_flowmac.evaluation.results import ReportError

    try:
        with whole_folder(args.output) as folder:
            key = make_test(
                args.report,
                folder,
                args.systems,
                args.utterances,
                args.seed,
                args.title,
            )
    except ReportError as error:
        raise UsageError(str(error)) from error
    print(
        f"{args.output}: {args.utterances} items of {len(key.systems)} "
        f"conditions; what to do is in {Path(args.output) / 'README.md'}"
    )
    return 0


def mushra_results(args):
    """`flowmac mushra-results`"""
    if args.output and importlib.util.find_spec("matplotlib") is None:
        raise UsageError("the plot needs matplotlib: pip install matplotlib")
    paths = [Path(path) for path in args.ratings]
    for path in [*paths, *([Path(args.key)] if args.key else [])]:
        if not path.is_file():
            raise UsageError(f"no such file: {path}")
    if len({path.resolve() for path in paths}) < len(paths):
        raise UsageError("a file of ratings was given twice")

    from speechbrain_flowmac.evaluation import mushra_csv
    from speechbrain_flowmac.evaluation.mushra import read_key
    from speechbrain_flowmac.evaluation.mushra_results import (
        analyse,
        markdown,
        write_analysis,
    )
    from speechbrain_flowmac.evaluation.results import ReportError

    try:
        key = read_key(args.key) if args.key else None
        ratings = mushra_csv.read_ratings(paths, key, args.listener)
        analysis = analyse(ratings, key)
    except (ReportError, mushra_csv.RatingsError) as error:
        raise UsageError(str(error)) from error
    if args.output:
        with whole_folder(args.output) as folder:
            write_analysis(analysis, folder)
    print(markdown(analysis), end="")
    return 0


def add_commands(subparsers):
    """Adds both commands to what `add_subparsers` returned."""

    text = "Make a MUSHRA listening test for webMUSHRA of an evaluation."
    command = add_command(subparsers, "mushra", mushra, text)
    command.add_argument(
        "--report",
        required=True,
        metavar="FOLDER",
        help="output of flowmac evaluate",
    )
    command.add_argument(
        "--output", required=True, metavar="FOLDER", help="folder to make"
    )
    command.add_argument(
        "--systems",
        nargs="+",
        metavar="NAME",
        help="systems to rate, at most 9; default: all of the evaluation",
    )
    command.add_argument(
        "--utterances",
        type=whole_number(1, 99),
        default=10,
        metavar="N",
        help="drawn at random (default: %(default)s)",
    )
    command.add_argument(
        "--seed",
        type=whole_number(0, 2**63 - 1),
        default=0,
        help="of all that is drawn; the same seed gives the same test",
    )
    command.add_argument(
        "--title",
        default="Listening test",
        help="shown to listeners (default: %(default)s)",
    )

    text = "Analyse the ratings that webMUSHRA collected."
    command = add_command(subparsers, "mushra-results", mushra_results, text)
    command.add_argument(
        "ratings", nargs="+", metavar="CSV", help="webMUSHRA's mushra.csv"
    )
    command.add_argument(
        "--key", metavar="FILE", help="key.json of flowmac mushra"
    )
    command.add_argument(
        "--listener",
        metavar="COLUMN",
        help="question that says who listened; default: the first of "
        "listener, email, name, id, code, or else every session is another "
        "listener",
    )
    command.add_argument(
        "--output",
        metavar="FOLDER",
        help="folder to make, with tables and a box plot",
    )
