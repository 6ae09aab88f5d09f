"""Results as CSV for spreadsheets and as Markdown for people."""

import math
from pathlib import Path

from speechbrain_flowmac.evaluation.formats import (
    csv_text,
    markdown_code,
    markdown_table,
    markdown_text,
)
from speechbrain_flowmac.evaluation.statistics import paired_difference
from speechbrain_flowmac.files import atomic_write

BLANK = "–"
KINDS = {
    "intrusive": "Compared with the reference (intrusive metrics)",
    "reference_free": "Without the reference (reference-free metrics)",
}
SPEEDS = ("encode_rtf", "decode_rtf", "load_seconds", "peak_memory_mb")


def by_rate(systems):
    """Systems as tables and plots have them: the reference, then by rising
    bit rate, then those that have none; a list of `SystemInfo`."""

    def key(system):
        kbps = math.inf if system.kbps is None else system.kbps
        return system.kind != "reference", kbps, system.name

    return sorted(systems, key=key)


def write_tables(results, folder):
    """Writes results.csv, summary.csv and summary.md into a folder.

    results.csv has a row for each file and system, summary.csv one for each
    system: of each metric the mean under its name, the ends of its interval
    and the number of files beside it. Numbers are in full, unknown ones
    empty. If a file cannot be written, what was there before stays.
    """
    contents = {
        "results.csv": csv_text(_result_rows(results)),
        "summary.csv": csv_text(_summary_rows(results)),
        "summary.md": markdown(results),
    }
    for name, text in contents.items():
        with atomic_write(Path(folder) / name) as file:
            file.write(text.encode())


def _result_rows(results):
    metrics = [metric.name for metric in results.metrics]
    keys = ("file", "system", "payload_bits", "kbps", "delay_ms", "gain_db")
    yield [*keys, *metrics, "error"]
    files, systems = (
        {item.name: i for i, item in enumerate(items)}
        for items in (results.files, by_rate(results.systems))
    )
    for result in sorted(
        results.results, key=lambda x: (files[x.file], systems[x.system])
    ):
        yield [
            *(getattr(result, key) for key in keys),
            *(result.scores.get(name) for name in metrics),
            result.error,
        ]


def _summary_rows(results):
    metrics = [metric.name for metric in results.metrics]
    facts = ("name", "label", "kind", "kbps", "unavailable")
    parts = {"mean": "{}", "low": "{}_low", "high": "{}_high"}
    parts |= {"count": "{}_files"}
    yield [
        *("system", *facts[1:], *SPEEDS, "entropy_bits", "bits_spent"),
        *(text.format(name) for name in metrics for text in parts.values()),
    ]
    means = results.means()
    for system in by_rate(results.systems):
        tokens = system.tokens
        yield [
            *(getattr(system, key) for key in facts),
            *(getattr(system.speed, key, None) for key in SPEEDS),
            tokens and _average(tokens.entropy_bits),
            tokens and tokens.bits_spent,
            *(
                getattr(means.get((system.name, name)), part, None)
                for name in metrics
                for part in parts
            ),
        ]


def markdown(results):
    """Tables of quality, differences, speed and tokens, as GitHub renders them.

    Quality is in one table for each kind of metric. Differences are to the
    first codec of the results, over the files that both coded; so are the
    ratios of speeds.
    """
    systems = by_rate(results.systems)
    running = [s for s in systems if s.unavailable is None]
    missing = [s for s in systems if s.unavailable is not None]
    count = len(results.files)
    seconds = sum(file.seconds for file in results.files)
    # the first codec as it was asked for
    baseline = next(
        (
            s
            for s in results.systems
            if s.kind == "codec" and s.unavailable is None
        ),
        None,
    )
    sections = [
        "# Evaluation",
        markdown_code(results.command),
        f"{count} file{'s' * (count != 1)}, {seconds:.1f} s of audio. Means "
        "± half of their 95 % bootstrap intervals over files.",
    ]
    for kind, heading in KINDS.items():
        metrics = [m for m in results.metrics if m.kind == kind]
        if metrics and running:
            sections += [f"## {heading}", _quality(results, running, metrics)]
    sections += _differences(results, running, baseline)
    sections += _speed(running, baseline)
    sections += _tokens(running)
    sections += _shortfalls(results, running)
    if missing:
        lines = (
            f"- {_label(s)}: {markdown_text(s.unavailable)}" for s in missing
        )
        sections += ["## Not run", "\n".join(lines)]
    return "\n\n".join(sections) + "\n"


def _quality(results, systems, metrics):
    means = results.means()
    rows = [
        [
            _label(system),
            _number(system.kbps, 2),
            *(
                _with_half(means.get((system.name, m.name)), m.decimals)
                for m in metrics
            ),
        ]
        for system in systems
    ]
    return markdown_table(["System", "kbps", *map(_heading, metrics)], rows)


def _differences(results, systems, baseline):
    others = [s for s in systems if s is not baseline and s.kind != "reference"]
    if baseline is None or not others:
        return []
    rows = []
    for system in others:
        row = [_label(system), _number(system.kbps, 2)]
        for metric in results.metrics:
            found = paired_difference(
                results.scores(system.name, metric.name),
                results.scores(baseline.name, metric.name),
            )
            told_apart = found.count > 1 and found.low * found.high > 0
            text = _with_half(found, metric.decimals, sign="+")
            row.append(f"**{text}**" if told_apart else text)
        rows.append(row)
    return [
        f"## Differences to {_label(baseline)}",
        "Means over the same files. Bold: the interval leaves out 0. With "
        "many cells, some do by chance.",
        markdown_table(
            ["System", "kbps", *map(_heading, results.metrics)], rows
        ),
    ]


def _speed(systems, baseline):
    timed = [s for s in systems if s.speed]
    if not timed:
        return []
    base = baseline if baseline in timed else timed[0]
    total = _total_rtf(base)
    rows = [
        [
            _label(s),
            _significant(s.speed.encode_rtf),
            _significant(s.speed.decode_rtf),
            _significant(_ratio(_total_rtf(s), total)),
            _number(s.speed.load_seconds, 1),
            _number(s.speed.peak_memory_mb, 0),
            _number(s.speed.threads, 0),
        ]
        for s in timed
    ]
    headings = ["System", "Encoding", "Decoding"]
    headings += [f"Both, times {_label(base)}", "Loading, s"]
    headings += ["Peak memory, MB", "Threads"]
    return [
        "## Speed",
        "Seconds of computing for a second of audio (real-time factor): lower "
        "is faster.",
        markdown_table(headings, rows),
    ]


def _tokens(systems):
    rows = []
    for system in systems:
        tokens = system.tokens
        if not tokens:
            continue
        share = _ratio(_average(tokens.entropy_bits), tokens.bits_spent)
        rows.append(
            [
                _label(system),
                f"{len(tokens.entropy_bits)} x {tokens.codebook_size}",
                _range([100 * share for share in tokens.usage], 0),
                _range(tokens.entropy_bits, 2),
                _number(tokens.bits_spent, 0),
                _number(share and 100 * share, 1),
            ]
        )
    headings = ["System", "Codebooks", "Codes used, %"]
    headings += ["Entropy of an index, bits", "Spent, bits"]
    headings += ["Needed of spent, %"]
    return rows and [
        "## Tokens",
        "Lowest to highest over the codebooks. The entropy is of first order.",
        markdown_table(headings, rows),
    ]


def _shortfalls(results, systems):
    """What has fewer scores than there are files, and why."""
    count, means, lines = len(results.files), results.means(), []
    for system in systems:
        counts = {
            m.heading: getattr(means.get((system.name, m.name)), "count", 0)
            for m in results.metrics
        }
        # some metrics say nothing of the reference
        if system.kind == "reference":
            counts = {key: n for key, n in counts.items() if n}
        few = [f"{key} {n}" for key, n in counts.items() if n < count]
        if few:
            lines.append(f"- {_label(system)}: {', '.join(few)}")
        errors = [
            x for x in results.results if x.system == system.name and x.error
        ]
        if errors:
            first = min(errors, key=lambda x: x.file)
            file, error = map(markdown_text, (first.file, first.error))
            lines.append(
                f"- {_label(system)} failed on {len(errors)}, first {file}: "
                f"{error}"
            )
    return lines and [f"## Fewer than {count} files", "\n".join(lines)]


def _total_rtf(system):
    parts = [system.speed.encode_rtf, system.speed.decode_rtf]
    return None if None in parts else sum(parts)


def _ratio(value, base):
    return None if value is None or not base else value / base


def _average(values):
    return sum(values) / len(values)


# Cells


def _label(system):
    return markdown_text(system.label)


def _heading(metric):
    return f"{metric.heading} {'↑' if metric.higher_is_better else '↓'}"


def _is_unknown(value):
    return value is None or math.isnan(value)


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
    if entry is None or _is_unknown(entry.mean):
        return BLANK
    text = _number(entry.mean, decimals, sign)
    if entry.count < 2:
        return text
    return f"{text} ± {(entry.high - entry.low) / 2:.{decimals}f}"
