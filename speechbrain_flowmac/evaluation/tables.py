"""Results as CSV for spreadsheets and as Markdown for people."""

import math
from pathlib import Path

from speechbrain_flowmac.evaluation.formats import (
    csv_text,
    markdown_code,
    markdown_table,
    markdown_text,
)
from speechbrain_flowmac.evaluation.statistics import paired_difference, scores
from speechbrain_flowmac.files import atomic_write

BLANK = "–"
KINDS = {
    "intrusive": "Compared with the reference (intrusive metrics)",
    "reference_free": "Without the reference (reference-free metrics)",
}
SPEEDS = ("encode_rtf", "decode_rtf", "load_seconds", "peak_memory_mb")


def by_rate(systems):
    """The order of systems in tables and plots.

    Arguments
    ---------
    systems : list of dict
        As in the results.

    Returns
    -------
    list of dict
        The reference, then by rising bit rate, then those that have none.

    Example
    -------
    >>> systems = [
    ...     {"name": "b", "kind": "codec", "kbps": 6.0},
    ...     {"name": "c", "kind": "anchor", "kbps": None},
    ...     {"name": "a", "kind": "codec", "kbps": 3.0},
    ...     {"name": "reference", "kind": "reference", "kbps": None},
    ... ]
    >>> [system["name"] for system in by_rate(systems)]
    ['reference', 'a', 'b', 'c']
    """

    def key(system):
        kbps = math.inf if system["kbps"] is None else system["kbps"]
        return system["kind"] != "reference", kbps, system["name"]

    return sorted(systems, key=key)


def write_tables(results, folder):
    """Writes results.csv, summary.csv and summary.md.

    results.csv has a row for each file and system, summary.csv one for each
    system: of each metric the mean under its name, the ends of its interval
    and the number of files beside it. Numbers are in full, unknown ones
    empty; the encoding is UTF-8, lines end as RFC 4180 has it.

    Arguments
    ---------
    results : dict
        As of results.json.
    folder : str or path-like
        Where the files go; it exists.

    Raises
    ------
    OSError
        If a file cannot be written; what was there before stays.
    """
    folder = Path(folder)
    contents = {
        "results.csv": csv_text(_result_rows(results)),
        "summary.csv": csv_text(_summary_rows(results)),
        "summary.md": markdown(results),
    }
    for name, text in contents.items():
        with atomic_write(folder / name) as file:
            file.write(text.encode())


def _result_rows(results):
    metrics = [metric["name"] for metric in results["metrics"]]
    keys = ("file", "system", "payload_bits", "kbps", "delay_ms", "gain_db")
    yield [*keys, *metrics, "error"]
    order = (
        _positions(results["files"]),
        _positions(by_rate(results["systems"])),
    )
    for result in sorted(
        results["results"],
        key=lambda x: (order[0][x["file"]], order[1][x["system"]]),
    ):
        yield [
            *(_known(result[key]) for key in keys),
            *(_known(result["scores"].get(name)) for name in metrics),
            result["error"],
        ]


def _summary_rows(results):
    metrics = [metric["name"] for metric in results["metrics"]]
    facts = ("name", "label", "kind", "kbps", "unavailable")
    parts = ("mean", "low", "high", "count")
    headings = ("{}", "{}_low", "{}_high", "{}_files")
    yield [
        *("system", *facts[1:], *SPEEDS, "entropy_bits", "bits_spent"),
        *(heading.format(name) for name in metrics for heading in headings),
    ]
    means = _means(results)
    for system in by_rate(results["systems"]):
        speed, tokens = system["speed"] or {}, system["tokens"]
        yield [
            *(_known(system[key]) for key in facts),
            *(_known(speed.get(key)) for key in SPEEDS),
            tokens and _average(tokens["entropy_bits"]),
            tokens and tokens["bits_spent"],
            *(
                _known(means.get((system["name"], name), {}).get(part))
                for name in metrics
                for part in parts
            ),
        ]


def markdown(results):
    """Tables of quality, differences, speed and tokens.

    Quality is in one table for each kind of metric. Differences are to the
    first codec of the results, over the files that both coded; so are the
    ratios of speeds.

    Arguments
    ---------
    results : dict
        As of results.json.

    Returns
    -------
    str
        Markdown, as GitHub renders it.
    """
    systems = by_rate(results["systems"])
    running = [s for s in systems if s["unavailable"] is None]
    count = len(results["files"])
    seconds = sum(file["seconds"] for file in results["files"])
    sections = ["# Evaluation", markdown_code(results["command"])]
    sections.append(
        f"{count} file{'s' * (count != 1)}, {seconds:.1f} s of audio. Means "
        "± half of their 95 % bootstrap intervals over files."
    )
    baseline = _baseline(results["systems"])
    for kind, heading in KINDS.items():
        metrics = [m for m in results["metrics"] if m["kind"] == kind]
        if metrics and running:
            sections += [f"## {heading}", _quality(results, running, metrics)]
    sections += _differences(results, running, baseline)
    sections += _speed(running, baseline)
    sections += _tokens(running)
    sections += _shortfalls(results, running)
    missing = [s for s in systems if s["unavailable"] is not None]
    if missing:
        sections += [
            "## Not run",
            "\n".join(
                f"- {markdown_text(s['label'])}: {markdown_text(s['unavailable'])}"
                for s in missing
            ),
        ]
    return "\n\n".join(sections) + "\n"


def _quality(results, systems, metrics):
    means = _means(results)
    rows = [
        [
            markdown_text(system["label"]),
            _number(system["kbps"], 2),
            *(
                _with_half(
                    means.get((system["name"], m["name"])), m["decimals"]
                )
                for m in metrics
            ),
        ]
        for system in systems
    ]
    headings = [m["heading"] + " " + _arrow(m) for m in metrics]
    return markdown_table(["System", "kbps", *headings], rows)


def _differences(results, systems, baseline):
    others = [
        s for s in systems if s is not baseline and s["kind"] != "reference"
    ]
    if baseline is None or not others:
        return []
    keys = ("mean", "low", "high", "count")
    rows = []
    for system in others:
        row = [markdown_text(system["label"]), _number(system["kbps"], 2)]
        for metric in results["metrics"]:
            pair = (
                scores(results, name, metric["name"])
                for name in (system["name"], baseline["name"])
            )
            entry = dict(zip(keys, paired_difference(*pair), strict=True))
            told_apart = entry["count"] > 1 and entry["low"] * entry["high"] > 0
            text = _with_half(entry, metric["decimals"], sign="+")
            row.append(f"**{text}**" if told_apart else text)
        rows.append(row)
    headings = [f"{m['heading']} {_arrow(m)}" for m in results["metrics"]]
    return [
        f"## Differences to {markdown_text(baseline['label'])}",
        "Means over the same files. Bold: the interval leaves out 0. With "
        "many cells, some do by chance.",
        markdown_table(["System", "kbps", *headings], rows),
    ]


def _speed(systems, baseline):
    timed = [s for s in systems if s["speed"]]
    if not timed:
        return []
    base = baseline if baseline in timed else timed[0]
    total = _total_rtf(base)
    rows = [
        [
            markdown_text(s["label"]),
            _significant(s["speed"]["encode_rtf"]),
            _significant(s["speed"]["decode_rtf"]),
            _significant(_ratio(_total_rtf(s), total)),
            _number(s["speed"]["load_seconds"], 1),
            _number(s["speed"]["peak_memory_mb"], 0),
            _number(s["speed"]["threads"], 0),
        ]
        for s in timed
    ]
    headings = [
        "System",
        "Encoding",
        "Decoding",
        f"Both, times {markdown_text(base['label'])}",
        "Loading, s",
        "Peak memory, MB",
        "Threads",
    ]
    return [
        "## Speed",
        "Seconds of computing for a second of audio (real-time factor): lower "
        "is faster.",
        markdown_table(headings, rows),
    ]


def _tokens(systems):
    rows = []
    for system in systems:
        tokens = system["tokens"]
        if not tokens:
            continue
        entropy, spent = tokens["entropy_bits"], tokens["bits_spent"]
        share = _ratio(_average(entropy), spent)
        rows.append(
            [
                markdown_text(system["label"]),
                f"{len(entropy)} x {tokens['codebook_size']}",
                _range([100 * u for u in tokens["usage"]], 0),
                _range(entropy, 2),
                _number(spent, 0),
                _number(share and 100 * share, 1),
            ]
        )
    headings = [
        "System",
        "Codebooks",
        "Codes used, %",
        "Entropy of an index, bits",
        "Spent, bits",
        "Needed of spent, %",
    ]
    return rows and [
        "## Tokens",
        "Lowest to highest over the codebooks. The entropy is of first order.",
        markdown_table(headings, rows),
    ]


def _shortfalls(results, systems):
    """What has fewer scores than there are files, and why."""
    count, means, lines = len(results["files"]), _means(results), []
    for system in systems:
        name = system["name"]
        counts = {
            m["heading"]: means.get((name, m["name"]), {"count": 0})["count"]
            for m in results["metrics"]
        }
        # some metrics say nothing of the reference
        if system["kind"] == "reference":
            counts = {key: n for key, n in counts.items() if n}
        few = [f"{key} {n}" for key, n in counts.items() if n < count]
        if few:
            lines.append(
                f"- {markdown_text(system['label'])}: {', '.join(few)}"
            )
        errors = [
            x for x in results["results"] if x["system"] == name and x["error"]
        ]
        if errors:
            first = min(errors, key=lambda x: x["file"])
            lines.append(
                f"- {markdown_text(system['label'])} failed on {len(errors)}, first "
                f"{markdown_text(first['file'])}: {markdown_text(first['error'])}"
            )
    return lines and [
        f"## Fewer than {count} files",
        "\n".join(lines),
    ]


def _baseline(systems):
    """The first codec as it was asked for, or None."""
    codecs = (
        s for s in systems if s["kind"] == "codec" and s["unavailable"] is None
    )
    return next(codecs, None)


def _means(results):
    return {(x["system"], x["metric"]): x for x in results["summary"]}


def _positions(items):
    return {item["name"]: i for i, item in enumerate(items)}


def _total_rtf(system):
    parts = [system["speed"][key] for key in ("encode_rtf", "decode_rtf")]
    return None if None in parts else sum(parts)


def _ratio(value, base):
    return None if value is None or not base else value / base


def _average(values):
    return sum(values) / len(values)


# Cells


def _known(value):
    return None if _is_unknown(value) else value


def _is_unknown(value):
    return value is None or (isinstance(value, float) and math.isnan(value))


def _number(value, decimals, sign="-"):
    return BLANK if _is_unknown(value) else f"{value:{sign}.{decimals}f}"


def _significant(value, digits=2):
    """So many digits, and no exponent as far as it is readable."""
    if _is_unknown(value):
        return BLANK
    if value == 0:
        return "0"
    places = max(digits - 1 - math.floor(math.log10(abs(value))), 0)
    return f"{value:.{places}f}"


def _range(values, decimals):
    low, high = (_number(f(values), decimals) for f in (min, max))
    return low if low == high else f"{low} to {high}"


def _with_half(entry, decimals, sign="-"):
    """A mean, and half of its interval where there is one."""
    if entry is None or _is_unknown(entry["mean"]):
        return BLANK
    text = _number(entry["mean"], decimals, sign)
    if entry["count"] < 2:
        return text
    return f"{text} ± {(entry['high'] - entry['low']) / 2:.{decimals}f}"


def _arrow(metric):
    return "↑" if metric["higher_is_better"] else "↓"
