"""Names of files do no harm in a spreadsheet, in Markdown or in a terminal."""

import csv
import io
import itertools
import re
import xml.etree.ElementTree as ElementTree
from dataclasses import replace

import pytest
from evaluation_numbers import number_results

from speechbrain_flowmac.evaluation.formats import (
    csv_text,
    markdown_code,
    markdown_table,
    markdown_text,
    printable,
)
from speechbrain_flowmac.evaluation.mushra import Key
from speechbrain_flowmac.evaluation.mushra_csv import Rating
from speechbrain_flowmac.evaluation.mushra_results import (
    analyse,
    write_analysis,
)
from speechbrain_flowmac.evaluation.tables import write_tables

FORMULAS = [
    '=HYPERLINK("http://x";"y")',
    "=1+1",
    "+1+1",
    "-1+1",
    "@SUM(A1)",
    "\t=1+1",
    "\r=1+1",
    "\n=1+1",
    "＝1+1",
    "a;=1+1",
    "a,=1+1",
    "a\n=1+1",
    "a\t@x",
]
MARKUP = [
    "<script>alert(1)</script>",
    "<img src=x onerror=alert(1)>",
    "a|b",
    "a\\|b",
    "a\nb",
    "a\r\n\r\n# b",
    "a\u2028b",
    "[a](javascript:alert(1))",
    "![a](http://x/y.png)",
    "`a`",
    "**a** _b_ ~~c~~",
    "&lt;b&gt;",
    "$x$",
    "# a",
    "\x1b[31m\x1b]0;title\x07",
    "\u202egnp.exe",
    "\udce9.wav",
]
# Signs that mean something to Markdown, where nothing takes it from them
BARE = re.compile(r"(?<!\\)(?:\\\\)*[<>`*_~\[\]|$#]|&(?!amp;|lt;|gt;)")


def is_formula(cell):
    return cell[:1] in tuple("=+-@\t\r\n＝")


@pytest.mark.parametrize("text", FORMULAS)
def test_formulas_are_text(text):
    ((cell, number),) = csv.reader(io.StringIO(csv_text([[text, -1.5]])))
    assert not is_formula(cell) and cell.replace("'", "") == text
    assert number == "-1.5"
    # neither where cells end at other characters
    for delimiter in ";\t":
        for line in cell.splitlines():
            assert not any(map(is_formula, line.split(delimiter)))


@pytest.mark.parametrize("text", ["a=b", "a-b.wav", 'ä, "b"', "a/b@c", "1+1"])
def test_other_text_stays(text):
    assert next(csv.reader(io.StringIO(csv_text([[text]])))) == [text]


def test_numbers_stay_numbers():
    line = csv_text([[-1.5, 10**20, float("nan"), None, 0.1 + 0.2]])
    assert line == "-1.5,100000000000000000000,,,0.30000000000000004\r\n"


@pytest.mark.parametrize("text", MARKUP + FORMULAS)
def test_markdown_is_text(text):
    line = markdown_text(text)
    assert line.isprintable() and not BARE.search(line)
    assert line[:1] not in tuple("+-#")
    # nothing is lost but kinds of space
    plain = re.sub(r"\\([-+\\`*_~\[\]|$#])", r"\1", line)
    for sign, name in (("<", "lt"), (">", "gt"), ("&", "amp")):
        plain = plain.replace(f"&{name};", sign)
    assert plain == printable(text)


@pytest.mark.parametrize("text", ["a", "a `b`", "``", "```a", "a\nb", "\x1b"])
def test_code_cannot_end_early(text):
    line = markdown_code(text)
    fence = re.match("`+", line)[0]
    inner = line[len(fence) : -len(fence)]
    assert line.isprintable() and line.endswith(fence)
    assert fence not in re.findall("`+", inner)
    assert inner.strip() == printable(text)


def test_tables_have_their_columns():
    rows = [[markdown_text(text), "1"] for text in MARKUP]
    lines = markdown_table(["a", "b"], rows).split("\n")
    assert len(lines) == 2 + len(rows)
    assert all(len(re.findall(r"(?<!\\)\|", x)) == 3 for x in lines)


def read_all(folder):
    for path in folder.glob("*.csv"):
        with open(path, newline="", encoding="utf-8") as file:
            yield from (cell for row in csv.reader(file) for cell in row)


def test_tables_of_an_evaluation(tmp_path):
    texts = FORMULAS + MARKUP
    results = number_results(len(texts))
    names = dict(zip([x.name for x in results.files], texts, strict=True))
    results.files = [replace(x, name=names[x.name]) for x in results.files]
    results.systems = [
        replace(results.systems[0], name=x, label=x) for x in texts
    ]
    for system in results.systems[1::2]:
        system.unavailable = system.name
    for result, system in zip(
        results.results, itertools.cycle(results.systems[::2])
    ):
        result.file = result.error = names[result.file]
        result.system = system.name
        result.scores = {}
    results.command = texts[-1]
    write_tables(results, tmp_path)
    check_folder(tmp_path, "summary.md", texts)


def test_tables_of_a_listening_test(tmp_path):
    texts = FORMULAS + MARKUP
    ratings = [
        Rating(f"{text}{listener}", text, system, score)
        for text in texts
        for listener in "abc"
        for system, score in (("reference", 99.0), (text, 50.0))
    ]
    ratings += [Rating(text, text, "reference", 9.0) for text in texts]
    analysis = analyse(ratings, Key("test", {x: x for x in texts}, {}))
    write_analysis(analysis, tmp_path)
    check_folder(tmp_path, "mushra.md", texts)
    ElementTree.parse(tmp_path / "mushra.svg")


def check_folder(folder, page, texts):
    """All texts are in the files, and none of them does anything."""
    cells = []
    for path in folder.glob("*.csv"):
        with open(path, newline="", encoding="utf-8") as file:
            cells += [cell for row in csv.reader(file) for cell in row]
    assert not any(is_formula(x) for x in cells if not is_number(x))
    page = (folder / page).read_text(encoding="utf-8")
    assert all(line.isprintable() for line in page.split("\n"))
    page = page.replace(markdown_code(texts[-1]), "")
    shown = sorted(map(markdown_text, texts), key=len, reverse=True)
    assert all(text in page for text in shown)
    for text in shown:
        page = page.replace(text, "")
    assert not re.search(r"[>`\[\]$]|<(?! 0\.)", page)


def is_number(text):
    try:
        return float(text) is not None
    except ValueError:
        return False
