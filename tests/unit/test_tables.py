"""CSV reads back to the same numbers; Markdown shows what is known."""

import csv
import math
import re

import pytest
from evaluation_numbers import SYSTEMS, number_results

from speechbrain_flowmac.evaluation.results import SystemInfo
from speechbrain_flowmac.evaluation.statistics import (
    paired_difference,
    summarise,
)
from speechbrain_flowmac.evaluation.tables import (
    by_rate,
    markdown,
    write_tables,
)

RATED = (
    "reference flowmac:4 flowmac:8 flowmac:8:steps=4 opus:6 opus:12 "
    "lc3:16 lowpass:3.5"
).split()


@pytest.fixture
def results():
    return number_results(6)


def _read(path):
    with open(path, newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def _section(text, heading):
    """Text of a section, from its heading to the next."""
    _, _, rest = text.partition(f"## {heading}")
    assert rest, f"no section {heading}"
    return rest.partition("\n## ")[0]


def _rows(section):
    """Cells of the rows of a table, by the first cell."""
    lines = [x for x in section.splitlines() if x.startswith("|")]
    cells = [
        [cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]]
        for line in lines
    ]
    assert len({len(row) for row in cells}) == 1
    return {row[0]: row[1:] for row in cells if row[0] != "---"}


def _number(text):
    return float(text) if text else None


# CSV


def test_results_read_back_to_the_same_numbers(results, tmp_path):
    results.results[2].scores["pesq"] = None
    results.results[3].scores["pesq"] = math.nan
    results.results[4].scores = {}
    results.results[4].delay_ms = None
    results.results[4].error = 'of "x", two\nlines'
    write_tables(results, tmp_path)
    rows = {
        (x["file"], x["system"]): x for x in _read(tmp_path / "results.csv")
    }
    assert len(rows) == len(results.results)
    for result in results.results:
        row = rows[result.file, result.system]
        for key in ("payload_bits", "kbps", "delay_ms", "gain_db"):
            assert _number(row[key]) == getattr(result, key)
        for metric in results.metrics:
            score = result.scores.get(metric.name)
            known = None if score is not None and math.isnan(score) else score
            assert _number(row[metric.name]) == known
        assert (row["error"] or None) == result.error


def test_summary_reads_back_to_the_same_numbers(results, tmp_path):
    write_tables(results, tmp_path)
    rows = {x["system"]: x for x in _read(tmp_path / "summary.csv")}
    assert list(rows) == RATED
    for entry in results.summary:
        row, metric = rows[entry.system], entry.metric
        assert float(row[metric]) == entry.mean
        assert float(row[f"{metric}_low"]) == entry.low
        assert float(row[f"{metric}_high"]) == entry.high
        assert int(row[f"{metric}_files"]) == entry.count
    flowmac, missing = rows["flowmac:8"], rows["lc3:16"]
    assert float(flowmac["decode_rtf"]) == 0.1
    assert float(flowmac["entropy_bits"]) == 7.5
    assert missing["unavailable"].startswith("elc3 is not installed")
    assert missing["pesq"] == missing["pesq_files"] == ""


def test_order_of_the_results_is_no_matter(results, tmp_path):
    write_tables(results, tmp_path)
    names = ("results.csv", "summary.csv", "summary.md")
    before = [(tmp_path / name).read_bytes() for name in names]
    results.results.reverse()
    results.summary.reverse()
    write_tables(results, tmp_path)
    assert [(tmp_path / name).read_bytes() for name in names] == before


def test_names_survive(results, tmp_path):
    name = 'ä, "b"/0.wav'
    results.files[0].name = name
    for result in results.results:
        if result.file == "a/0.wav":
            result.file = name
    write_tables(results, tmp_path)
    assert _read(tmp_path / "results.csv")[0]["file"] == name
    assert b"\r\n" in (tmp_path / "results.csv").read_bytes()
    assert sorted(x.name for x in tmp_path.iterdir()) == [
        "results.csv",
        "summary.csv",
        "summary.md",
    ]


def test_a_failed_write_leaves_what_was_there(results, tmp_path):
    with pytest.raises(FileNotFoundError):
        write_tables(results, tmp_path / "none")
    write_tables(results, tmp_path)
    before = (tmp_path / "results.csv").read_bytes()
    del results.results[0].file
    with pytest.raises(AttributeError):
        write_tables(results, tmp_path)
    assert (tmp_path / "results.csv").read_bytes() == before
    assert len(list(tmp_path.iterdir())) == 3


# Markdown


def test_kinds_of_metrics_are_kept_apart(results):
    text = markdown(results)
    intrusive = _rows(_section(text, "Compared with the reference"))
    free = _rows(_section(text, "Without the reference"))
    assert intrusive["System"] == ["kbps", "PESQ-WB ↑", "WARP-Q ↓"]
    assert free["System"] == ["kbps", "DistillMOS ↑"]
    labels = {name: label for name, label, *_ in SYSTEMS}
    order = [labels[name] for name in RATED if name in labels]
    assert list(intrusive)[1:] == list(free)[1:] == order


def test_quality_shows_means_and_half_intervals(results):
    rows = _rows(_section(markdown(results), "Compared with the reference"))
    entry = next(
        x for x in results.summary if (x.system, x.metric) == ("opus:6", "pesq")
    )
    half = (entry.high - entry.low) / 2
    assert rows["Opus 6 kbps"][:2] == [
        "6.00",
        f"{entry.mean:.2f} ± {half:.2f}",
    ]
    assert rows["Reference"][0] == "–"


def test_differences_are_those_of_pairs(results):
    section = _section(markdown(results), "Differences to FlowMAC 3.0 kbps")
    rows = _rows(section)
    assert "FlowMAC 3.0 kbps, 1 step" not in rows and "Reference" not in rows
    for name, metric, column in (
        ("opus:12", "pesq", 1),
        ("flowmac:8:steps=4", "pesq", 1),
        ("opus:6", "warpq", 2),
    ):
        mean, low, high, _ = paired_difference(
            *(results.scores(x, metric) for x in (name, "flowmac:8"))
        )
        label = next(x[1] for x in SYSTEMS if x[0] == name)
        text = f"{mean:+.2f} ± {(high - low) / 2:.2f}"
        told_apart = low > 0 or high < 0
        assert rows[label][column] == (f"**{text}**" if told_apart else text)
    assert rows["Opus 12 kbps"][1].startswith("**+")


def test_speed_is_also_a_ratio(results):
    section = _section(markdown(results), "Speed")
    rows = _rows(section)
    assert rows["System"][2] == "Both, times FlowMAC 3.0 kbps, 1 step"
    assert rows["FlowMAC 3.0 kbps, 1 step"] == [
        *("0.12", "0.10", "1.0", "1.2", "412", "1")
    ]
    # (0.0123 x 18 + 0.25) over (0.0123 x 10 + 0.10)
    assert rows["FlowMAC 3.0 kbps, 4 steps"][2] == "2.1"
    assert "Reference" not in rows and "LC3 16 kbps" not in rows


def test_tokens_and_missing_systems(results):
    text = markdown(results)
    tokens = _rows(_section(text, "Tokens"))
    assert tokens["FlowMAC 1.5 kbps, 1 step"] == [
        *("4 x 256", "100", "7.50", "8", "93.8")
    ]
    missing = _section(text, "Not run")
    assert "- LC3 16 kbps: elc3 is not installed (package" in missing
    assert "LC3" not in text.partition("## Not run")[0]


def test_what_was_not_scored_is_said(results):
    assert "Fewer than" not in markdown(results)
    failed = [x for x in results.results if x.system == "opus:6"]
    for result in failed[:2]:
        result.scores, result.error = {}, "no | sound"
    for result in results.results:
        if result.system == "opus:12":
            result.scores.pop("warpq")
        if result.system == "reference":
            result.scores.pop("warpq")
    results.summary = summarise(results)
    text = markdown(results)
    few = _section(text, "Fewer than 6 files")
    assert "- Opus 6 kbps: PESQ-WB 4, WARP-Q 4, DistillMOS 4\n" in few
    assert "- Opus 6 kbps failed on 2, first a/0.wav: no \\| sound" in few
    assert "- Opus 12 kbps: WARP-Q 0\n" in few + "\n"
    assert "Reference" not in few
    rows = _rows(_section(text, "Compared with the reference"))
    assert rows["Opus 12 kbps"][2] == rows["Reference"][2] == "–"


def test_one_file_has_no_interval():
    text = markdown(number_results(1))
    assert text.startswith("# Evaluation") and "1 file, 5.0 s" in text
    tables = text.partition("## ")[2]
    assert "±" not in tables and "**" not in tables and "nan" not in text


@pytest.mark.parametrize("kept", [0, 1])
def test_nothing_to_show(kept, tmp_path):
    results = number_results(3)
    # no file, or no system that runs
    if kept:
        results.systems = results.systems[-kept:]
    else:
        results.systems, results.files = [], []
    results.results, results.summary = [], []
    write_tables(results, tmp_path)
    assert _read(tmp_path / "results.csv") == []
    assert len(_read(tmp_path / "summary.csv")) == kept
    text = (tmp_path / "summary.md").read_text(encoding="utf-8")
    assert "|" not in text
    assert ("LC3 16 kbps" in text) == bool(kept)


def test_unknown_and_tiny_numbers():
    results = number_results(2)
    speed = results.systems[3].speed
    speed.encode_rtf = 0.000123
    speed.peak_memory_mb = speed.threads = None
    results.systems[4].speed.decode_rtf = None
    rows = _rows(_section(markdown(results), "Speed"))
    assert rows["Opus 6 kbps"][0] == "0.00012"
    assert rows["Opus 6 kbps"][4:] == ["–", "–"]
    assert rows["Opus 12 kbps"][1:3] == ["–", "–"]


def test_order_is_by_rate_then_name():
    systems = [
        SystemInfo(name, name, kind, kbps=kbps)
        for name, kind, kbps in (
            ("z", "folder", None),
            ("reference", "reference", None),
            ("b", "codec", 12.0),
            ("c", "folder", 3.0),
            ("a", "codec", 3.0),
        )
    ]
    names = [x.name for x in by_rate(systems)]
    assert names == ["reference", "a", "c", "b", "z"]
    assert by_rate(systems[::-1]) == by_rate(systems)
