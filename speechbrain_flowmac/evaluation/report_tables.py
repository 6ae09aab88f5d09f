"""Tables of the report; the page's template draws them.

A column knows its heading and how to make its cell of a row, so that headings
and cells cannot disagree.
"""

import itertools
from collections.abc import Callable
from dataclasses import dataclass, field

from speechbrain_flowmac.evaluation.results import REFERENCE
from speechbrain_flowmac.evaluation.tables import BLANK

# Kinds of metrics, in the order of the columns
KINDS = {
    "intrusive": "Intrusive: compared with the reference",
    "reference_free": "Reference-free",
}


@dataclass
class Cell:
    """What a cell shows, and the value it is sorted by; None sorts last."""

    text: str
    value: float | str | None = None
    notes: list[str] = field(default_factory=list)
    error: str = ""
    title: str = ""


@dataclass
class Column:
    """A heading, and `cell(row) -> Cell`; neighbours of a group share one
    heading above theirs."""

    heading: str
    cell: Callable
    higher_is_better: bool | None = None
    group: str = ""
    index: int = 0


class Table:
    """Rows of cells; `refused` are pairs of label and reason, and stay last.

    Example
    -------
    >>> columns = [Column("a", Cell), Column("b", lambda x: number(2 * x, 1))]
    >>> [cell.text for cell in Table("Twice", columns, [1, 2]).rows[1]]
    [2, '4.0']
    """

    def __init__(self, caption, columns, rows, refused=()):
        self.caption = caption
        for index, column in enumerate(columns):
            column.index = index
        self.columns = columns
        self.groups = [
            (group, list(members))
            for group, members in itertools.groupby(
                columns, lambda column: column.group
            )
        ]
        self.rows = [[column.cell(row) for column in columns] for row in rows]
        self.refused = list(refused)


def number(value, decimals):
    """Cell of a number, or of none.

    Example
    -------
    >>> number(1.257, 2).text, number(-0.001, 1).text, number(None, 2).text
    ('1.26', '0.0', '–')
    """
    if value is None:
        return Cell(BLANK)
    # a zero has no sign, and a minus sign is no hyphen
    text = f"{round(value, decimals) + 0.0:.{decimals}f}"
    return Cell(text.replace("-", "−"), value)


def ordered(systems):
    """Systems as the page has them: the reference first."""
    return sorted(systems, key=lambda system: system.name != REFERENCE)


def systems_table(results):
    """Means of all metrics and speed, one row per system."""
    means = results.means()
    columns = [
        Column("System", lambda system: _name(system, results)),
        Column("kbps", lambda system: number(system.kbps, 2)),
        *_metric_columns(
            results,
            lambda system, metric: _mean(
                means.get((system.name, metric.name)), metric.decimals
            ),
        ),
    ]
    if any(system.speed for system in results.systems):
        columns += _factors()
    systems = ordered(results.systems)
    return Table(
        "Means, ± half their 95 % intervals",
        columns,
        [x for x in systems if not x.unavailable],
        [
            (x.label, f"not available: {x.unavailable}")
            for x in systems
            if x.unavailable
        ],
    )


def scores_table(results, file):
    """Scores of one utterance, by its name, one row per system."""
    labels = {x.name: x.label for x in results.systems}
    found = {x.system: x for x in results.results if x.file == file}
    rows = [found[x.name] for x in ordered(results.systems) if x.name in found]
    columns = [
        Column("System", lambda x: Cell(labels[x.system], labels[x.system])),
        Column("kbps", lambda x: number(x.kbps, 2)),
        *_metric_columns(
            results,
            lambda x, metric: number(
                x.scores.get(metric.name), metric.decimals
            ),
        ),
        Column(
            "delay, ms", lambda x: number(x.delay_ms, 1), None, "Compensated"
        ),
        Column("gain, dB", lambda x: number(x.gain_db, 1), None, "Compensated"),
    ]
    return Table(
        "Scores of this utterance",
        columns,
        [x for x in rows if not x.error],
        [(labels[x.system], f"failed: {x.error}") for x in rows if x.error],
    )


def tokens_table(results):
    """How systems use their codebooks; None if none has tokens."""
    systems = [x for x in ordered(results.systems) if x.tokens]
    if not systems:
        return None

    def columns_of(group, values, decimals):
        most = max(len(values(x.tokens)) for x in systems)

        def cell(system, index):
            found = values(system.tokens)[index : index + 1]
            return number(found[0] if found else None, decimals)

        return [
            Column(str(i + 1), lambda x, i=i: cell(x, i), None, group)
            for i in range(most)
        ]

    columns = [
        Column("System", _label),
        Column("codes", lambda x: number(x.tokens.codebook_size, 0)),
        Column("bits spent", lambda x: number(x.tokens.bits_spent, 2)),
        *columns_of(
            "Entropy of each codebook, bits", lambda x: x.entropy_bits, 2
        ),
        *columns_of(
            "Codes of each codebook in use, %",
            lambda x: [100 * share for share in x.usage],
            0,
        ),
    ]
    return Table("Use of the codebooks", columns, systems)


def speed_table(results):
    """Time and memory; None if no system was timed."""
    systems = [x for x in ordered(results.systems) if x.speed]
    if not systems:
        return None
    columns = [
        Column("System", _label),
        *_factors(),
        Column("loading, s", lambda x: number(x.speed.load_seconds, 2)),
        Column("peak memory, MB", lambda x: number(x.speed.peak_memory_mb, 0)),
        Column("threads", lambda x: number(x.speed.threads, 0)),
        Column("audio coded, s", lambda x: number(x.speed.seconds_coded, 1)),
    ]
    return Table("Time and memory", columns, systems)


def _label(system):
    return Cell(system.label, system.label)


def _metric_columns(results, cell):
    """Columns of all metrics, those of a kind together."""
    return [
        Column(
            metric.heading,
            lambda row, metric=metric: cell(row, metric),
            metric.higher_is_better,
            group,
        )
        for kind, group in KINDS.items()
        for metric in results.metrics
        if metric.kind == kind
    ]


def _factors():
    return [
        Column(
            name,
            lambda x, key=f"{name}_rtf": number(getattr(x.speed, key, None), 3),
            False,
            "Real-time factor",
        )
        for name in ("encode", "decode")
    ]


def _name(system, results):
    """Label of a system, what kind it is, and how often it failed."""
    cell = _label(system)
    if system.kind in ("anchor", "folder"):
        cell.notes.append(system.kind)
    failed = sum(
        bool(x.error) for x in results.results if x.system == system.name
    )
    if failed:
        cell.error = f"failed on {failed} of {len(results.files)}"
    return cell


def _mean(entry, decimals):
    """A mean and half the width of its interval."""
    cell = number(entry and entry.mean, decimals)
    if cell.value is not None and None not in (entry.low, entry.high):
        cell.notes = [f"±{(entry.high - entry.low) / 2:.{decimals}f}"]
        cell.title = (
            f"{entry.low:.{decimals}f} to {entry.high:.{decimals}f}, "
            f"utterances: {entry.count}"
        )
    return cell
