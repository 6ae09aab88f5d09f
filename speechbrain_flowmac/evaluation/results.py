"""What an evaluation found, as results.json holds it.

A report may come from a stranger: whatever is read is checked here, its shape
by `parse` and the files that it names by `find`.
"""

import json
import math
import os
import reprlib
import types
import typing
from dataclasses import MISSING, asdict, dataclass, field, fields
from pathlib import Path, PurePosixPath

RESULTS_FILE = "results.json"
VERSION = 1
REFERENCE = "reference"
"""Name of what all are compared with, in the results one of the systems."""


class ReportError(ValueError):
    """A report that cannot be used; the message says why."""


@dataclass
class Machine:
    """What figures were taken on, and with."""

    cpu: str = ""
    threads: int | None = None
    platform: str = ""
    versions: dict[str, str] = field(default_factory=dict)


@dataclass
class MetricInfo:
    """A metric; `kind` is "intrusive" or "reference_free"."""

    name: str
    heading: str
    decimals: int
    higher_is_better: bool
    kind: str


@dataclass
class Speed:
    """Of a system: seconds of computing per second of audio, and memory."""

    encode_rtf: float | None
    decode_rtf: float | None
    load_seconds: float | None = None
    peak_memory_mb: float | None = None
    seconds_coded: float | None = None
    threads: int | None = None


@dataclass
class Tokens:
    """How well codebooks are used: see `statistics.token_statistics`."""

    codebook_size: int
    usage: list[float]
    entropy_bits: list[float]
    bits_spent: float


@dataclass
class SystemInfo:
    """A system; `kind` is "reference", "codec", "anchor" or "folder".

    `unavailable` says why it did not run, and `fingerprint` changes when
    its output may.
    """

    name: str
    label: str
    kind: str = "codec"
    sample_rate: int | None = None
    unavailable: str | None = None
    kbps: float | None = None
    speed: Speed | None = None
    tokens: Tokens | None = None
    options: dict[str, typing.Any] = field(default_factory=dict)
    fingerprint: str = ""


@dataclass
class File:
    """A recording, and where its reference is, relative to the report."""

    name: str
    seconds: float
    audio: str | None = None


@dataclass
class Result:
    """One recording through one system."""

    file: str
    system: str
    payload_bits: int | None = None
    kbps: float | None = None
    delay_ms: float | None = None
    gain_db: float | None = None
    scores: dict[str, float | None] = field(default_factory=dict)
    metric_errors: dict[str, str] = field(default_factory=dict)
    audio: str | None = None
    error: str | None = None


@dataclass
class Unreadable:
    """A file that was left out, and why."""

    name: str
    error: str


@dataclass
class Mean:
    """Of one system by one metric, with its interval over `count` files."""

    system: str
    metric: str
    mean: float | None
    low: float | None
    high: float | None
    count: int


@dataclass
class Plot:
    """A drawing, relative to the report."""

    title: str
    path: str


@dataclass
class Results:
    """All of it.

    Example
    -------
    >>> Results(systems=[], files=[], results=[]).version
    1
    """

    systems: list[SystemInfo]
    files: list[File]
    results: list[Result]
    metrics: list[MetricInfo] = field(default_factory=list)
    unreadable: list[Unreadable] = field(default_factory=list)
    summary: list[Mean] = field(default_factory=list)
    plots: list[Plot] = field(default_factory=list)
    command: str = ""
    machine: Machine = field(default_factory=Machine)
    version: int = VERSION

    def means(self):
        """The summary by names of system and metric."""
        return {(x.system, x.metric): x for x in self.summary}

    def scores(self, system, metric):
        """Scores of a system by a metric in the order of the files, None
        where there is none."""
        found = {
            x.file: x.scores.get(metric)
            for x in self.results
            if x.system == system
        }
        return [found.get(file.name) for file in self.files]

    def to_json(self):
        """What JSON takes; None where a number is NaN or infinite."""
        return _finite(asdict(self))


def load_results(folder):
    """Reads the `Results` of an evaluation from its folder; ReportError if there
    are none, or what there is has another shape."""
    path = Path(folder) / RESULTS_FILE
    if not path.is_file():
        raise ReportError(
            f"{folder} is no output of flowmac evaluate: no {RESULTS_FILE}"
        )
    find(folder, RESULTS_FILE)
    content = read_json(path)
    found = content.get("version") if isinstance(content, dict) else None
    if found not in (None, VERSION):
        raise ReportError(
            f"{path} has version {reprlib.repr(found)}, expected {VERSION}"
        )
    results = parse(Results, content, str(path))
    systems, files = (
        {x.name for x in part} for part in (results.systems, results.files)
    )
    for i, result in enumerate(results.results):
        for kind, name, known in (
            ("file", result.file, files),
            ("system", result.system, systems),
        ):
            if name not in known:
                raise ReportError(
                    f"{path}: results[{i}] is of a {kind} that is not in "
                    f"the list: {reprlib.repr(name)}"
                )
    return results


def read_json(path):
    """What a file holds; ReportError if it is no JSON in UTF-8."""
    try:
        return json.loads(Path(path).read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise ReportError(f"{path} is no JSON") from error


def parse(kind, value, where):
    """Turns what JSON gave into a type, or says by a ReportError what does not
    fit.

    Arguments
    ---------
    kind : type
        A dataclass; or str, bool, int, float, list[X], dict[str, X], X |
        None, or Any. Numbers are finite.
    value : object
        From `json.loads`. What a dataclass does not know is left out.
    where : str
        Names the value in messages.

    Example
    -------
    >>> parse(list[File], [{"name": "a.wav", "seconds": 2}], "files")
    [File(name='a.wav', seconds=2, audio=None)]
    >>> parse(list[File], [{"name": 5, "seconds": 2}], "files")
    Traceback (most recent call last):
    speechbrain_flowmac.evaluation.results.ReportError: files[0].name: expected text, found 5
    """
    parts = typing.get_args(kind)
    origin = typing.get_origin(kind) or kind
    if kind is typing.Any:
        return value
    if origin is types.UnionType:
        return None if value is None else parse(parts[0], value, where)
    if origin is list and isinstance(value, list):
        return [
            parse(parts[0], x, f"{where}[{i}]") for i, x in enumerate(value)
        ]
    if origin is dict and isinstance(value, dict):
        return {
            key: parse(parts[1], x, f"{where}[{reprlib.repr(key)}]")
            for key, x in value.items()
        }
    if hasattr(kind, "__dataclass_fields__") and isinstance(value, dict):
        return _parse_fields(kind, value, where)
    numbers = {int: int, float: (int, float)}
    if isinstance(value, numbers.get(kind, origin)) and (
        kind not in numbers or _is_number(value)
    ):
        return value
    words = {
        str: "text",
        bool: "true or false",
        int: "a whole number",
        float: "a number",
        list: "a list",
    }
    raise ReportError(
        f"{where}: expected {words.get(origin, 'a mapping')}, "
        f"found {reprlib.repr(value)}"
    )


def _parse_fields(kind, value, where):
    types_of = typing.get_type_hints(kind)
    found = {}
    for part in fields(kind):
        name = part.name
        if name in value:
            found[name] = parse(types_of[name], value[name], f"{where}.{name}")
        elif part.default is part.default_factory is MISSING:
            raise ReportError(f"{where}: {name!r} is missing")
    return kind(**found)


def _is_number(value):
    try:
        return not isinstance(value, bool) and math.isfinite(value)
    except OverflowError:
        return False


def _finite(value):
    if isinstance(value, dict):
        return {key: _finite(x) for key, x in value.items()}
    if isinstance(value, list):
        return [_finite(x) for x in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


def is_inside(path, folder):
    """Whether a path stays in a folder, also through links on its way."""
    path, folder = os.path.realpath(path), os.path.realpath(folder)
    return Path(path).is_relative_to(folder)


def find(folder, name):
    """Path of a file that a report names, relative to the report's folder.

    ReportError if it is absolute, leads out of the folder by ".." or by a
    link anywhere on the way, or is no file.

    Example
    -------
    >>> find(Path("report"), "audio/../../secret.wav")
    Traceback (most recent call last):
    speechbrain_flowmac.evaluation.results.ReportError: 'audio/../../secret.wav' leads out of the folder of the report
    """
    relative, path = PurePosixPath(name), Path(folder) / name
    try:
        inside = is_inside(path, folder)
        is_file = path.is_file()
    except (OSError, RuntimeError, ValueError):  # too long, a loop, "\0"
        inside, is_file = True, False
    if relative.is_absolute() or ".." in relative.parts or not inside:
        raise ReportError(f"{name!r} leads out of the folder of the report")
    if not is_file:
        raise ReportError(
            f"the report names {name!r}, which is no file in {folder}"
        )
    return path
