"""The report: one HTML page with scores, plots and players.

The page needs no network and no other file: style, script, data, plots and
audio are in it, and its content security policy forbids the browser to load
anything else or to run any other script. Its tables and audio are there
without JavaScript too; the script sorts, switches between systems at the same
position, draws waveforms and spectrograms, and tests blindly.

The template escapes all text, so names of files do no harm.
"""

import base64
import hashlib
import json
from pathlib import Path

import soundfile
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from speechbrain_flowmac.evaluation import pictures
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
KEYS = {
    "Space": "play or pause",
    "1 … 9": "system",
    "← →": "one second back or forth",
    "L": "loop",
    "X": "blind test",
}


def write_report(results, folder, listen=None):
    """Writes the page.

    Arguments
    ---------
    results : Results
        Whose paths are relative to `folder`.
    folder : str or Path
        Where the page goes, as report.html.
    listen : int or None
        How many utterances have audio, chosen evenly from all; by default
        8. One that would bring the audio files to more than 64 MB goes
        without, and the page says so.

    Returns
    -------
    Path
        Of the page. It replaces an earlier one once it is complete.
        ReportError before that if `listen` is negative, or a plot or audio
        file is missing, outside the folder or not audio.
    """
    listen = DEFAULT_LISTEN if listen is None else listen
    if listen < 0:
        raise ReportError(f"listen must be 0 or more, found {listen}")
    folder = Path(folder)
    environment = Environment(
        loader=FileSystemLoader(PAGE),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    page = environment.get_template("page.html").render(
        **_frame(results),
        **_listening(results, folder, listen),
        results=results,
        count=_count,
        plots=_plots(results, folder),
        systems=systems_table(results),
        tokens=tokens_table(results),
        speed=speed_table(results),
        failures=_failures(results),
    )
    path = folder / "report.html"
    with atomic_write(path) as file:
        # names of files may hold bytes that are no text
        file.write(page.encode("utf-8", errors="replace"))
    return path


def choose_evenly(items, count):
    """Takes some of many, from all over: the middles of `count` equal parts.

    Example
    -------
    >>> choose_evenly(list(range(10)), 3)
    [1, 5, 8]
    """
    count = min(count, len(items))
    return [
        items[(2 * i + 1) * len(items) // (2 * count)] for i in range(count)
    ]


def _frame(results):
    """What is not about scores: style, script, data, and how it was made."""
    style, script = (
        (PAGE / name).read_text(encoding="utf-8").strip()
        for name in ("page.css", "page.js")
    )
    systems = sum(not x.unavailable for x in results.systems)
    minutes = sum(x.seconds for x in results.files) / 60
    machine = results.machine
    return {
        "policy": "default-src 'none'; img-src data:; media-src data:; "
        "base-uri 'none'; form-action 'none'; "
        f"script-src '{_digest(script)}'; style-src '{_digest(style)}'",
        "style": Markup(style),
        "script": Markup(script),
        # without "<" nothing can end the element that it is in
        "data": Markup(json.dumps(results.to_json()).replace("<", "\\u003c")),
        "extent": f"{_count(systems, 'system')}, "
        f"{_count(len(results.files), 'utterance')}, {minutes:.1f} minutes",
        "facts": {
            "Processor": machine.cpu,
            "Threads": machine.threads,
            "Platform": machine.platform,
            "Versions": ", ".join(map(" ".join, machine.versions.items())),
        },
    }


def _digest(text):
    """Name of a script or style in a content security policy."""
    digest = hashlib.sha256(text.encode()).digest()
    return f"sha256-{base64.b64encode(digest).decode()}"


def _count(number, noun):
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def _failures(results):
    """What went wrong, a line each."""
    lines = [f"{file.name}: {file.error}" for file in results.unreadable]
    for result in results.results:
        what = f"{result.file} with {result.system}"
        if result.error:
            lines.append(f"{what}: {result.error}")
        lines += [
            f"{metric} of {what}: {error}"
            for metric, error in result.metric_errors.items()
        ]
    left_out = len(lines) - MAX_FAILURES
    if left_out > 0:
        lines[MAX_FAILURES:] = [f"{left_out} more"]
    return lines


def _plots(results, folder):
    """Caption, title and image of each, by what they show."""
    kinds = {}
    for plot in results.plots:
        kind, _, caption = plot.title.partition(": ")
        image = _data("image/svg+xml", find(folder, plot.path).read_bytes())
        kinds.setdefault(kind, []).append((caption, plot.title, image))
    return kinds


def _data(kind, content):
    """Address that holds a whole file."""
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"


def _listening(results, folder, listen):
    """Players, and scores of the utterances that have none."""
    heard, too_large, size = _choose(results, folder, listen)
    note = (
        f"{len(heard)} of {_count(len(results.files), 'utterance')}, "
        f"chosen evenly, with {size / 1e6:.1f} MB of audio. "
        f"(A page takes at most {MAX_AUDIO_BYTES / 1e6:.0f} MB, and "
        f"{DEFAULT_LISTEN} utterances unless told otherwise.)"
    )
    if too_large:
        names = ", ".join(file.name for file in too_large)
        note += f" Too large to be here: {names}."
    names = {file.name for file, _ in heard}
    others = [x for x in results.files if x.name not in names]
    return {
        "heard": [
            (file, _versions(found), scores_table(results, file.name))
            for file, found in heard
        ],
        "too_large": too_large,
        "listening": note,
        "sample_rate": max(
            (
                soundfile.info(path).samplerate
                for _, found in heard
                for _, path in found
            ),
            default=None,
        ),
        "keys": KEYS,
        "others": others,
        "tables": [
            (x, scores_table(results, x.name)) for x in others[:MAX_TABLES]
        ],
    }


def _versions(found):
    """Label, audio, waveform and spectrogram of each system."""
    drawn = pictures.draw([_read(path) for _, path in found])
    return [
        (
            label,
            _data("audio/flac", path.read_bytes()),
            _data("image/png", waveform),
            _data("image/webp", spectrogram),
        )
        for (label, path), (waveform, spectrogram) in zip(
            found, drawn, strict=True
        )
    ]


def _choose(results, folder, listen):
    """Files to listen to, those too large for it, and bytes of the former.

    Files come with label and path of each version that can be heard.
    """
    named = {(x.file, x.system): x.audio for x in results.results}
    named |= {(x.name, REFERENCE): x.audio for x in results.files if x.audio}
    systems = ordered(results.systems)
    audible = [
        (file, found)
        for file in results.files
        if (
            found := [
                (system.label, named[file.name, system.name])
                for system in systems
                if named.get((file.name, system.name))
            ]
        )
    ]
    heard, too_large, total = [], [], 0
    for file, found in choose_evenly(audible, listen):
        found = [(label, find(folder, name)) for label, name in found]
        size = sum(path.stat().st_size for _, path in found)
        if total + size > MAX_AUDIO_BYTES:
            too_large.append(file)
        else:
            heard.append((file, found))
            total += size
    return heard, too_large, total


def _read(path):
    """The first channel and the sample rate of an audio file."""
    try:
        signal, rate = soundfile.read(path, always_2d=True)
    except soundfile.LibsndfileError as error:
        raise ReportError(f"{path} cannot be read as audio: {error}") from error
    if not len(signal):
        raise ReportError(f"{path} has no samples")
    return signal[:, 0], rate
