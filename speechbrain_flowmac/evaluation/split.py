"""Utterances of a split that the tools of the recipes measure on."""

import argparse
from pathlib import Path


def split_parser(doc, split="dev-clean", limit=None):
    """Command line of a tool that measures on some utterances of a split.

    Arguments
    ---------
    doc : str
        Of the tool, for its help.
    split : str
        Default of `--split`.
    limit : int or None
        Default of `--limit`, the number of utterances; None for all.

    Returns
    -------
    argparse.ArgumentParser
        With `--data_folder`, `--split` and `--limit`.
    """
    parser = argparse.ArgumentParser(
        description=doc, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--data_folder", default="data/LibriTTS", type=Path)
    parser.add_argument("--split", default=split)
    parser.add_argument("--limit", type=int, default=limit, help="utterances")
    return parser


def spaced_files(folder, limit):
    """Some of a folder's WAV files, evenly spaced, so of all its speakers.

    Arguments
    ---------
    folder : Path
        Searched with all that it holds.
    limit : int
        At most so many, 1 or more.

    Returns
    -------
    list of Path
        Sorted; FileNotFoundError if there is none.
    """
    files = sorted(folder.rglob("*.wav"))
    if not files:
        raise FileNotFoundError(f"no .wav in {folder}")
    step = max(len(files) // limit, 1)
    return files[::step][:limit]
