"""The report: one HTML page with scores, plots and players.

The page needs no network and no other file: style, script, data, plots and
audio are in it, and its content security policy forbids the browser to load
anything else or to run any other script. Its tables and audio are there
without JavaScript too; the script sorts, switches between systems at the same
position, draws waveforms and spectrograms, and tests blindly.
"""

import base64
import hashlib
import json
from pathlib import Path
from string import Template

import soundfile

from speechbrain_flowmac.evaluation.markup import element, join
from speechbrain_flowmac.evaluation.report_tables import (
    ordered,
    scores_table,
    speed_table,
    systems_table,
    tokens_table,
)
from speechbrain_flowmac.evaluation.results import (
    REFERENCE,
    ReportError,
    find,
)
from speechbrain_flowmac.files import atomic_write

PAGE = Path(__file__).with_name("report_page")

DEFAULT_LISTEN = 8
"""Utterances with audio, unless told otherwise."""
MAX_AUDIO_BYTES = 64 * 10**6
"""Of all audio files in a page; base64 makes a third more of them."""
MAX_TABLES = 100
"""Utterances without audio whose scores are in the page."""
MAX_FAILURES = 100
"""Lines about what failed."""


def write_report(results, folder, listen=None):
    """Writes the page.

    Arguments
    ---------
    results : dict
        What `flowmac evaluate` writes to results.json. Its paths are
        relative to `folder`.
    folder : str or pathlib.Path
        Where the page goes, as report.html.
    listen : int or None
        How many utterances have audio, chosen evenly from all; by default
        8. One that would bring the audio files to more than 64 MB goes
        without, and the page says so.

    Returns
    -------
    pathlib.Path
        Of the page. It replaces an earlier one once it is complete.

    Raises
    ------
    ReportError
        If `listen` is negative, or a plot or audio file that the results
        name is missing, outside the folder or not audio.

    Example
    -------
    >>> import tempfile
    >>> parts = ("metrics", "systems", "files", "results", "summary", "plots")
    >>> machine = {"cpu": "", "threads": 1, "platform": "", "versions": {}}
    >>> results = {"command": "flowmac evaluate", "machine": machine}
    >>> results |= {part: [] for part in parts}
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     write_report(results, folder).name
    'report.html'
    """
    listen = DEFAULT_LISTEN if listen is None else listen
    if listen < 0:
        raise ReportError(f"listen must be 0 or more, found {listen}")
    folder = Path(folder)
    # JSON has no NaN; what follows has None in its place
    results = json.loads(json.dumps(results), parse_constant=lambda _: None)
    page = _page(results, folder, listen)
    path = folder / "report.html"
    with atomic_write(path) as file:
        # names of files may hold bytes that are no text
        file.write(page.encode("utf-8", errors="replace"))
    return path


def choose_evenly(items, count):
    """Takes some of many, from all over.

    Arguments
    ---------
    items : list
        To choose from.
    count : int
        How many; all, if there are fewer.

    Returns
    -------
    list
        In the order of `items`: the middles of `count` equal parts.

    Example
    -------
    >>> choose_evenly(list(range(10)), 3)
    [1, 5, 8]
    """
    count = min(count, len(items))
    return [
        items[(2 * i + 1) * len(items) // (2 * count)] for i in range(count)
    ]


def _page(results, folder, listen):
    style, script = (
        (PAGE / name).read_text(encoding="utf-8").strip()
        for name in ("page.css", "page.js")
    )
    template = (PAGE / "page.html").read_text(encoding="utf-8")
    heard, too_large, size = _choose(results, folder, listen)
    return Template(template).substitute(
        policy=(
            "default-src 'none'; img-src data:; media-src data:; "
            "base-uri 'none'; form-action 'none'; "
            f"script-src '{_digest(script)}'; style-src '{_digest(style)}'"
        ),
        style=style,
        script=script,
        # without "<" nothing can end the element that it is in
        data=json.dumps(results).replace("<", "\\u003c"),
        extent=_extent(results),
        made=_made(results),
        systems=systems_table(results),
        plots=_plots(results, folder),
        tokens=_section(
            "Tokens",
            tokens_table(results),
            "The entropy is that of single codes, without context. Where it "
            "is far below the bits spent, codes are wasted.",
        ),
        speed=_section(
            "Speed",
            speed_table(results),
            "The real-time factor is seconds of computing per second of "
            "audio: below 1 is faster than real time.",
        ),
        failures=_failures(results),
        listening=_listening(results, folder, heard, too_large, size),
        others=_others(results, heard),
    )


def _digest(text):
    """Name of a script or style in a content security policy."""
    digest = hashlib.sha256(text.encode()).digest()
    return f"sha256-{base64.b64encode(digest).decode()}"


def _section(title, content, note=None):
    """A section, or nothing if there is nothing in it."""
    return join(
        content
        and element(
            "section",
            element("h2", title),
            note and element("p", note),
            content,
        )
    )


def _extent(results):
    """How much was evaluated."""
    systems = sum(not x["unavailable"] for x in results["systems"])
    minutes = sum(x["seconds"] for x in results["files"]) / 60
    return join(
        f"{_count(systems, 'system')}, "
        f"{_count(len(results['files']), 'utterance')}, {minutes:.1f} minutes"
    )


def _count(number, noun):
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def _failures(results):
    """What went wrong, a line each."""
    lines = [
        f"{file['name']}: {file['error']}"
        for file in results.get("unreadable", [])
    ]
    for result in results["results"]:
        what = f"{result['file']} with {result['system']}"
        if result["error"]:
            lines.append(f"{what}: {result['error']}")
        lines += [
            f"{metric} of {what}: {error}"
            for metric, error in result.get("metric_errors", {}).items()
        ]
    left_out = len(lines) - MAX_FAILURES
    if left_out > 0:
        lines[MAX_FAILURES:] = [f"{left_out} more"]
    return _section(
        "What failed",
        lines
        and element(
            "ul",
            (element("li", line) for line in lines),
            class_="failures",
        ),
    )


def _made(results):
    """Command, machine and versions."""
    machine = results["machine"]
    versions = machine["versions"].items()
    facts = {
        "Command": element("code", results["command"]),
        "Processor": machine["cpu"],
        "Threads": machine["threads"],
        "Platform": machine["platform"],
        "Versions": ", ".join(f"{name} {number}" for name, number in versions),
    }
    return element(
        "dl",
        (
            element("div", element("dt", key), element("dd", value))
            for key, value in facts.items()
        ),
    )


def _plots(results, folder):
    """Plots by what they show; the first kind is open.

    They are images: what is in an SVG cannot meet the page's own parts.
    """
    kinds = {}
    for plot in results["plots"]:
        kind, _, caption = plot["title"].partition(": ")
        image = element(
            "img",
            alt=plot["title"],
            src=_data("image/svg+xml", find(folder, plot["path"])),
        )
        figure = element("figure", element("figcaption", caption), image)
        kinds.setdefault(kind, []).append(figure)
    return _section(
        "Plots",
        [
            element(
                "details",
                element("summary", element("h3", kind)),
                element("div", figures, class_="plots"),
                open=not index,
            )
            for index, (kind, figures) in enumerate(kinds.items())
        ],
    )


def _data(kind, path):
    """Address that holds a whole file."""
    return f"data:{kind};base64,{base64.b64encode(path.read_bytes()).decode()}"


# Listening


def _choose(results, folder, listen):
    """Files to listen to, those too large for it, and bytes of the former.

    Files come with what there is to listen to: pairs of a system and a path.
    """
    versions = _versions(results, folder)
    audible = [x for x in results["files"] if versions[x["name"]]]
    heard, too_large, total = [], [], 0
    for file in choose_evenly(audible, listen):
        heard_of_it = [
            (system, find(folder, name))
            for system, name in versions[file["name"]]
        ]
        size = sum(path.stat().st_size for _, path in heard_of_it)
        if total + size > MAX_AUDIO_BYTES:
            too_large.append(file)
        else:
            heard.append((file, heard_of_it))
            total += size
    return heard, too_large, total


def _versions(results, folder):
    """For each file the systems that there is audio of, with its name."""
    found = {
        (x["file"], x["system"]): x.get("audio") for x in results["results"]
    }
    for file in results["files"]:
        if file.get("audio"):
            found[file["name"], REFERENCE] = file["audio"]
    return {
        file["name"]: [
            (system, found[file["name"], system["name"]])
            for system in ordered(results["systems"])
            if found.get((file["name"], system["name"]))
        ]
        for file in results["files"]
    }


def _listening(results, folder, heard, too_large, size):
    """The players."""
    if not heard and not too_large:
        return ""
    note = (
        f"{len(heard)} of {_count(len(results['files']), 'utterance')}, "
        f"chosen evenly, with {size / 1e6:.1f} MB of audio. "
        f"(A page takes at most {MAX_AUDIO_BYTES / 1e6:.0f} MB, and "
        f"{DEFAULT_LISTEN} utterances unless told otherwise.)"
    )
    if too_large:
        names = ", ".join(file["name"] for file in too_large)
        note += f" Too large to be here: {names}."
    return element(
        "section",
        element("h2", "Listening"),
        element("p", note),
        _keys(),
        (
            _player(results, file, versions, opened=not index)
            for index, (file, versions) in enumerate(heard)
        ),
        id="listening",
        # Browsers resample well when they decode, and roughly when they
        # play: everything is decoded at the rate of the best.
        data_sample_rate=max(
            (_sample_rate(path) for _, found in heard for _, path in found),
            default=None,
        ),
    )


def _sample_rate(path):
    try:
        return soundfile.info(path).samplerate
    except soundfile.LibsndfileError as error:
        raise ReportError(f"{path} cannot be read as audio: {error}") from error


def _keys():
    keys = {
        "Space": "play or pause",
        "1 … 9": "system",
        "← →": "one second back or forth",
        "L": "loop",
        "X": "blind test",
    }
    return element(
        "p",
        (
            element("span", element("kbd", key), " ", meaning)
            for key, meaning in keys.items()
        ),
        class_="keys",
    )


def _player(results, file, versions, opened):
    return element(
        "details",
        _summary(file),
        element(
            "div",
            (
                element(
                    "figure",
                    element("figcaption", system["label"]),
                    element(
                        "audio",
                        controls=True,
                        preload="none",
                        src=_data("audio/flac", path),
                    ),
                )
                for system, path in versions
            ),
            class_="versions",
        ),
        scores_table(results, file["name"]),
        class_="player",
        open=opened,
    )


def _summary(file):
    return element(
        "summary",
        element("h3", file["name"]),
        element("span", f" {file['seconds']:.1f} s"),
    )


def _others(results, heard):
    """Scores of the utterances that there is no audio of."""
    names = {file["name"] for file, _ in heard}
    others = [x for x in results["files"] if x["name"] not in names]
    left_out = len(others) - MAX_TABLES
    tables = (
        element("details", _summary(file), scores_table(results, file["name"]))
        for file in others[:MAX_TABLES]
    )
    return _section(
        "Other utterances" if heard else "Utterances",
        others
        and element(
            "details",
            element("summary", f"Scores of {_count(len(others), 'utterance')}"),
            tables,
            left_out > 0
            and element(
                "p",
                f"{left_out} more are in results.csv: this page takes "
                f"{MAX_TABLES} without audio.",
            ),
            class_="others",
        ),
    )
