"""Tables of the report, as HTML that a script may sort.

A table is a list of columns, each of which knows its heading and how to make
its cell of a row, so that headings and cells cannot disagree.
"""

from collections.abc import Callable
from typing import NamedTuple

from speechbrain_flowmac.evaluation.markup import element, join
from speechbrain_flowmac.evaluation.results import REFERENCE

# Kinds of metrics, in the order of the columns
KINDS = {
    "intrusive": "Intrusive: compared with the reference",
    "reference_free": "Reference-free",
}
BLANK = "–"


class Cell(NamedTuple):
    """What a cell shows and what it is sorted by.

    Arguments
    ---------
    content : object
        As for `markup.join`.
    value : float or str or None
        None sorts last.
    title : str or None
        More about it.
    """

    content: object
    value: object = None
    title: str | None = None


class Column(NamedTuple):
    """One column.

    Arguments
    ---------
    heading : str
        Of the column.
    cell : Callable
        `cell(row) -> Cell`.
    higher_is_better : bool or None
        None where neither is.
    group : str
        Heading above the headings of neighbouring columns of one group.
    """

    heading: str
    cell: Callable
    higher_is_better: bool | None = None
    group: str = ""


def number(value, decimals):
    """Cell of a number, or of none.

    Arguments
    ---------
    value : float or None
        What to show.
    decimals : int
        How many.

    Returns
    -------
    Cell

    Example
    -------
    >>> number(1.257, 2).content, number(None, 2).content
    ('1.26', '–')
    """
    if value is None:
        return Cell(BLANK)
    # a zero has no sign, and a minus sign is no hyphen
    text = f"{round(value, decimals) + 0.0:.{decimals}f}"
    return Cell(text.replace("-", "−"), value)


def table(caption, columns, rows, refused=()):
    """One table, in a box that scrolls if it is too wide.

    Arguments
    ---------
    caption : str
        Above it.
    columns : list of Column
        The first is the heading of its row.
    rows : list
        What the columns make cells of.
    refused : list of tuple
        Label and reason of rows that have no cells; they stay last.

    Returns
    -------
    Markup

    Example
    -------
    >>> columns = [Column("a", Cell), Column("b", lambda x: number(2 * x, 1))]
    >>> html = table("Twice", columns, [1, 2], [("three", "too many")])
    >>> '<th scope="row">2</th><td data-value="4">4.0</td>' in html
    True
    """
    # where a group begins: what a line sets apart
    begins = [
        bool(i) and column.group != columns[i - 1].group
        for i, column in enumerate(columns)
    ]
    return element(
        "div",
        element(
            "table",
            element("caption", caption),
            _head(columns, begins),
            element("tbody", (_row(columns, begins, row) for row in rows)),
            refused
            and element(
                "tbody",
                (
                    element(
                        "tr",
                        element("th", label, scope="row"),
                        element("td", reason, colspan=len(columns) - 1),
                    )
                    for label, reason in refused
                ),
                class_="refused",
            ),
        ),
        class_="scroll",
        # what scrolls must be reachable without a mouse
        tabindex=0,
        role="region",
        aria_label=caption,
    )


def _head(columns, begins):
    """Headings; groups get a row above them."""
    grouped = any(column.group for column in columns)
    above, below = [], []
    for index, column in enumerate(columns):
        single = grouped and not column.group
        heading = element(
            "th",
            element("span", column.heading, class_="heading"),
            _direction(column.higher_is_better),
            scope="col",
            rowspan=2 if single else None,
            data_column=index,
            class_="begins" if begins[index] else None,
        )
        (above if single else below).append(heading)
        if column.group and (begins[index] or not index):
            above.append(
                element(
                    "th",
                    column.group,
                    scope="colgroup",
                    colspan=sum(x.group == column.group for x in columns),
                    class_="begins" if begins[index] else None,
                )
            )
    return element(
        "thead", (element("tr", row) for row in (above, below) if row)
    )


def _direction(higher_is_better):
    if higher_is_better is None:
        return None
    arrow, word = ("↑", "higher") if higher_is_better else ("↓", "lower")
    label = f"{word} is better"
    return join(
        " ", element("span", arrow, role="img", aria_label=label, title=label)
    )


def _row(columns, begins, row):
    cells = []
    for index, column in enumerate(columns):
        cell = column.cell(row)
        cells.append(
            element(
                "td" if index else "th",
                cell.content,
                scope=None if index else "row",
                data_value=cell.value,
                title=cell.title,
                class_="begins" if begins[index] else None,
            )
        )
    return element("tr", cells)


# Tables of an evaluation


def ordered(systems):
    """Systems as the page has them: the reference first.

    Arguments
    ---------
    systems : list of dict
        As in the results.

    Returns
    -------
    list of dict

    Example
    -------
    >>> [x["name"] for x in ordered([{"name": "a"}, {"name": "reference"}])]
    ['reference', 'a']
    """
    return sorted(systems, key=lambda system: system["name"] != REFERENCE)


def systems_table(results):
    """Means of all metrics and speed, one row per system.

    Arguments
    ---------
    results : dict
        Of the evaluation.

    Returns
    -------
    Markup
    """
    summary = {(x["system"], x["metric"]): x for x in results["summary"]}
    columns = [
        Column("System", lambda system: _name(system, results)),
        Column("kbps", lambda system: number(system["kbps"], 2)),
    ]
    columns += _metric_columns(
        results,
        lambda system, metric: _mean(
            summary.get((system["name"], metric["name"]), {}), metric
        ),
    )
    if any(system["speed"] for system in results["systems"]):
        columns += _factors("Real-time factor")
    systems = ordered(results["systems"])
    return table(
        "Means, ± half their 95 % intervals",
        columns,
        [x for x in systems if not x["unavailable"]],
        [
            (x["label"], f"not available: {x['unavailable']}")
            for x in systems
            if x["unavailable"]
        ],
    )


def scores_table(results, file):
    """Scores of one utterance, one row per system.

    Arguments
    ---------
    results : dict
        Of the evaluation.
    file : str
        Name of the utterance.

    Returns
    -------
    Markup
    """
    scored = {x["system"]: x for x in results["results"] if x["file"] == file}
    systems = [x for x in ordered(results["systems"]) if x["name"] in scored]

    def of(result_key, decimals):
        return lambda x: number(scored[x["name"]].get(result_key), decimals)

    columns = [
        Column("System", _label),
        Column("kbps", of("kbps", 2)),
    ]
    columns += _metric_columns(
        results,
        lambda system, metric: number(
            scored[system["name"]]["scores"].get(metric["name"]),
            metric["decimals"],
        ),
    )
    columns += [
        Column("delay, ms", of("delay_ms", 1), group="Compensated"),
        Column("gain, dB", of("gain_db", 1), group="Compensated"),
    ]
    return table(
        "Scores of this utterance",
        columns,
        [x for x in systems if not scored[x["name"]]["error"]],
        [
            (x["label"], f"failed: {scored[x['name']]['error']}")
            for x in systems
            if scored[x["name"]]["error"]
        ],
    )


def tokens_table(results):
    """How systems use their codebooks.

    Arguments
    ---------
    results : dict
        Of the evaluation.

    Returns
    -------
    Markup or None
        None if no system has tokens.
    """
    systems = [x for x in ordered(results["systems"]) if x["tokens"]]
    if not systems:
        return None
    most = max(len(x["tokens"]["usage"]) for x in systems)

    def of(key, index, scale, decimals):
        def cell(system):
            values = system["tokens"][key]
            if index >= len(values):
                return Cell(BLANK)
            return number(scale * values[index], decimals)

        return cell

    columns = [
        Column("System", _label),
        Column("codes", lambda x: number(x["tokens"]["codebook_size"], 0)),
        Column("bits spent", lambda x: number(x["tokens"]["bits_spent"], 2)),
    ]
    for group, key, scale, decimals in (
        ("Entropy of each codebook, bits", "entropy_bits", 1, 2),
        ("Codes of each codebook in use, %", "usage", 100, 0),
    ):
        columns += [
            Column(str(i + 1), of(key, i, scale, decimals), group=group)
            for i in range(most)
        ]
    return table("Use of the codebooks", columns, systems)


def speed_table(results):
    """Time and memory.

    Arguments
    ---------
    results : dict
        Of the evaluation.

    Returns
    -------
    Markup or None
        None if no system was timed.
    """
    systems = [x for x in ordered(results["systems"]) if x["speed"]]
    if not systems:
        return None

    def of(key, decimals):
        return lambda system: number(system["speed"].get(key), decimals)

    columns = [
        Column("System", _label),
        *_factors("Real-time factor"),
        Column("loading, s", of("load_seconds", 2)),
        Column("peak memory, MB", of("peak_memory_mb", 0)),
        Column("threads", of("threads", 0)),
        Column("audio coded, s", of("seconds_coded", 1)),
    ]
    return table("Time and memory", columns, systems)


def _label(system):
    return Cell(system["label"], system["label"])


def _metric_columns(results, cell):
    """Columns of all metrics, those of a kind together."""
    return [
        Column(
            metric["heading"],
            lambda system, metric=metric: cell(system, metric),
            metric["higher_is_better"],
            group,
        )
        for kind, group in KINDS.items()
        for metric in results["metrics"]
        if metric["kind"] == kind
    ]


def _factors(group):
    def of(key):
        return lambda system: number((system["speed"] or {}).get(key), 3)

    return [
        Column("encode", of("encode_rtf"), False, group),
        Column("decode", of("decode_rtf"), False, group),
    ]


def _name(system, results):
    """Label of a system, what kind it is, and how often it failed."""
    notes = []
    if system["kind"] in ("anchor", "folder"):
        notes.append(element("small", system["kind"]))
    failed = sum(
        bool(x["error"])
        for x in results["results"]
        if x["system"] == system["name"]
    )
    if failed:
        text = f"failed on {failed} of {len(results['files'])}"
        notes.append(element("small", text, class_="error"))
    return Cell(
        join(system["label"], ([" ", x] for x in notes)), system["label"]
    )


def _mean(entry, metric):
    """A mean and half the width of its interval."""
    decimals = metric["decimals"]
    cell = number(entry.get("mean"), decimals)
    low, high = entry.get("low"), entry.get("high")
    if cell.value is None or low is None or high is None:
        return cell
    half = element("small", f" ±{(high - low) / 2:.{decimals}f}")
    return Cell(
        join(cell.content, half),
        cell.value,
        f"{low:.{decimals}f} to {high:.{decimals}f}, "
        f"utterances: {entry['count']}",
    )
