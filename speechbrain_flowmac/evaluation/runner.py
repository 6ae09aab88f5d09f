"""All recordings through all systems, and what follows from the results."""

import json
import re
from pathlib import PurePosixPath

from speechbrain_flowmac.console import UsageError, audio_endings, bar
from speechbrain_flowmac.evaluation import plots, report, tables
from speechbrain_flowmac.evaluation.results import (
    REFERENCE,
    RESULTS_FILE,
    MetricInfo,
    Result,
    Results,
    Unreadable,
    is_inside,
)
from speechbrain_flowmac.evaluation.scoring import (
    CACHE_FOLDER,
    evaluate_one,
    prepare,
)
from speechbrain_flowmac.evaluation.statistics import (
    summarise,
    token_statistics,
)
from speechbrain_flowmac.evaluation.workers import TaskError, Workers
from speechbrain_flowmac.files import atomic_write

# Before anything is coded


def find_recordings(data, output, limit=None):
    """Names of the audio files in a folder, which is searched but for `output`:
    relative to it, sorted, `limit` of them evenly from all. UsageError if there
    are none."""
    if not data.is_dir():
        raise UsageError(f"no such folder: {data}")
    endings = audio_endings()
    names = sorted(
        path.relative_to(data).as_posix()
        for path in data.rglob("*")
        if path.suffix.lower() in endings
        and path.is_file()
        and output.resolve() not in path.resolve().parents
    )
    if not names:
        raise UsageError(f"no audio files in {data}")
    count = min(limit or len(names), len(names))
    return [names[i * len(names) // count] for i in range(count)]


def check_output(output):
    """UsageError if a path is no folder, or has files but no evaluation.

    Also if there are links that lead out: an evaluation may come from a
    stranger, and what is written through its links could replace any file.
    """
    if not output.exists():
        return
    if not output.is_dir():
        raise UsageError(f"{output} is not a folder")
    if any(output.iterdir()) and not (output / CACHE_FOLDER).is_dir():
        raise UsageError(
            f"{output} holds something else than an evaluation; give a new "
            "folder, or that of an earlier one"
        )
    for path in output.rglob("*"):
        if path.is_symlink() and not is_inside(path, output):
            raise UsageError(f"{path} is a link that leads out of {output}")


# The work


def evaluate(conditions, names, systems, jobs=1, threads=1, complain=None):
    """Codes and scores, on several processes.

    Arguments
    ---------
    conditions : Conditions
        Of the evaluation.
    names : list of str
        Of the recordings.
    systems : list of SystemInfo
        From `descriptions.describe`; they get rates and tokens.
    jobs, threads : int
        Processes, and CPU threads of each.
    complain : callable or None
        Told of everything that fails: `complain(error, what)`.

    Returns
    -------
    Results
        Without speeds, summary and plots.
    """
    complain = complain or (lambda error, what: None)
    conditions.cache.folder.mkdir(parents=True, exist_ok=True)
    folders = dict(zip(names, audio_folders(names), strict=True))
    runnable = [x for x in systems if x.unavailable is None]
    with Workers(jobs, threads) as workers:
        files, unreadable = _prepare(workers, conditions, folders, complain)
        found = _score(workers, conditions, folders, files, runnable, complain)
    for system in runnable:
        ours = [found[file.name, system.name] for file in files]
        rates = [x.kbps for x, _ in ours if x.kbps is not None]
        tokens = [tokens for _, tokens in ours if tokens is not None]
        system.kbps = sum(rates) / len(rates) if rates else None
        system.tokens = token_statistics(tokens) if tokens else None
    return Results(
        metrics=[
            MetricInfo(
                name,
                metric.heading,
                metric.decimals,
                metric.higher_is_better,
                metric.kind,
            )
            for name, metric in conditions.metrics.items()
        ],
        systems=systems,
        files=files,
        results=[
            found[file.name, system.name][0]
            for file in files
            for system in runnable
        ],
        unreadable=unreadable,
    )


def _prepare(workers, conditions, folders, complain):
    """Writes the references; returns lists of `File` and `Unreadable`."""
    tasks = [
        (conditions, name, f"{folder}/{REFERENCE}.flac")
        for name, folder in folders.items()
    ]
    files, unreadable = {}, {}
    for task, result in _work(workers, prepare, tasks, "references", "file"):
        name = task[1]
        if isinstance(result, TaskError):
            complain(result, name)
            unreadable[name] = Unreadable(name, str(result))
        else:
            files[name] = result
    return tuple(
        [found[name] for name in folders if name in found]
        for found in (files, unreadable)
    )


def _score(workers, conditions, folders, files, systems, complain):
    """Results and tokens by names of file and system."""
    slugs = file_names([system.name for system in systems])
    # system by system, so that no worker has several in memory
    tasks = [
        (conditions, system, file.name, f"{folders[file.name]}/{slug}.flac")
        for system, slug in zip(systems, slugs, strict=True)
        for file in files
    ]
    found = {}
    for task, result in _work(
        workers, evaluate_one, tasks, "coding and scoring", "pair"
    ):
        _, system, name, _ = task
        what = f"{name} with {system.name}"
        if isinstance(result, TaskError):
            complain(result, what)
            result = Result(name, system.name, error=str(result)), None
        for metric, error in result[0].metric_errors.items():
            complain(TaskError(error), f"{metric} of {what}")
        found[name, system.name] = result
    return found


def _work(workers, function, tasks, what, unit):
    """Yields tasks and their results as they end, with a progress bar."""
    with bar(len(tasks), unit=unit, desc=what) as progress:
        for number, result in workers.map(function, tasks):
            yield tasks[number], result
            progress.update()


def write(results, output, listen=None):
    """Writes everything that people read into a folder; returns the path of the
    report. The results get their summary and plots here."""
    results.summary = summarise(results)
    results.plots = plots.write_plots(results, output)
    with atomic_write(output / RESULTS_FILE, "w") as file:
        json.dump(results.to_json(), file, indent=1, allow_nan=False)
    tables.write_tables(results, output)
    return report.write_report(results, output, listen)


# Names of audio files


def audio_folders(names):
    """Folders for the audio of recordings, relative to the output.

    Example
    -------
    >>> audio_folders(["a/b.flac", "a/b.wav", "c.wav"])
    ['audio/a/b', 'audio/a/b-2', 'audio/c']
    """
    return _different(
        str("audio" / PurePosixPath(name).with_suffix("")) for name in names
    )


def file_names(systems):
    """Names for files of systems, by their names, without an ending.

    Example
    -------
    >>> file_names(["opus:6", "folder:/some/where", "opus-6"])
    ['opus-6', 'folder-some-where', 'opus-6-2']
    """
    return _different(
        re.sub(r"[^\w.=+-]+", "-", name).strip("-.") for name in systems
    )


def _different(names):
    """Puts a number to every name that is taken."""
    taken = []
    for name in names:
        number, free = 1, name
        while free in taken:
            number += 1
            free = f"{name}-{number}"
        taken.append(free)
    return taken
