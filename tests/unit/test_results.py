"""Reports that a stranger made: their shape, and the files that they name."""

import json
import math
import os
import time

import numpy as np
import pytest
import soundfile
from evaluation_mushra import change_report, make_report
from evaluation_results import make_results

from speechbrain_flowmac.evaluation.mushra import make_test
from speechbrain_flowmac.evaluation.report import write_report
from speechbrain_flowmac.evaluation.results import (
    ReportError,
    Results,
    find,
    load_results,
    parse,
)

# Ways out of a report, as names of files
OUT = [
    "../secret/s.flac",
    "audio/../../secret/s.flac",
    "./.././secret/s.flac",
    "{secret}/s.flac",
    "//{secret}/s.flac",
    "file-link.flac",
    "folder-link/s.flac",
    "folder-link/../secret/s.flac",
    "link-to-link.flac",
    "audio/deep-link",
    "/etc/hosts",
    "/dev/zero",
]
# and what is within, and no file
NO_FILE = ["gone.flac", "", ".", "audio", "pipe", "loop", "\0", "a" * 5000]


def plant(folder):
    """A secret beside a report, and links to it in the report."""
    secret = folder.parent / "secret"
    secret.mkdir()
    soundfile.write(secret / "s.flac", 0.1 * np.ones(31200), 24000)
    (folder / "audio").mkdir(exist_ok=True)
    for link, target in {
        "file-link.flac": secret / "s.flac",
        "folder-link": secret,
        "link-to-link.flac": "file-link.flac",
        "audio/deep-link": "../../secret/s.flac",
        "loop": "loop",
    }.items():
        (folder / link).symlink_to(target)
    os.mkfifo(folder / "pipe")
    return secret


def everything(folder):
    return sorted(folder.rglob("*"))


@pytest.mark.parametrize("name", OUT)
def test_no_way_leads_out(tmp_path, name):
    (tmp_path / "report").mkdir()
    secret = plant(tmp_path / "report")
    with pytest.raises(ReportError, match="leads out of the folder"):
        find(tmp_path / "report", name.format(secret=secret))


@pytest.mark.parametrize("name", NO_FILE)
def test_what_is_no_file(tmp_path, name):
    (tmp_path / "report").mkdir()
    plant(tmp_path / "report")
    with pytest.raises(ReportError, match="which is no file in"):
        find(tmp_path / "report", name)


def test_files_of_the_report_are_found(tmp_path, monkeypatch):
    report = tmp_path / "report"
    (report / "audio").mkdir(parents=True)
    (report / "audio/..a b.flac").write_text("x")
    (report / "link.flac").symlink_to("audio/..a b.flac")
    # the folder itself may be reached by a link, or be the current one
    (tmp_path / "latest").symlink_to(report)
    monkeypatch.chdir(report)
    for folder in (report, tmp_path / "latest", "."):
        for name in ("audio/..a b.flac", "link.flac"):
            assert find(folder, name).read_text() == "x"


@pytest.mark.parametrize("part", ["files", "results"])
def test_a_listening_test_has_no_secrets(tmp_path, part):
    report = make_report(tmp_path / "report", seconds=(1.3,))
    secret = plant(report)
    ways = [name.format(secret=secret) for name in OUT + NO_FILE[2:]]
    for i, way in enumerate(ways):

        def change(results, way=way):
            results[part][0]["audio"] = way

        change_report(report, change)
        target = tmp_path / f"made{i}"
        target.mkdir()
        with pytest.raises(ReportError, match="leads out of|is no file in"):
            make_test(report, target, utterances=1)
        assert not [x for x in everything(target) if x.is_file()]


@pytest.mark.parametrize("part", ["files", "results", "plots"])
def test_a_page_has_no_secrets(tmp_path, part):
    report = tmp_path / "report"
    report.mkdir()
    results = make_results(report, names=("a.wav",))
    secret = plant(report)
    before = everything(tmp_path)
    for name in OUT + NO_FILE[2:]:
        key = "path" if part == "plots" else "audio"
        setattr(getattr(results, part)[0], key, name.format(secret=secret))
        with pytest.raises(ReportError, match="leads out of|is no file in"):
            write_report(results, report)
        assert everything(tmp_path) == before


def test_results_of_another_folder_are_not_read(tmp_path):
    (tmp_path / "theirs").mkdir()
    (tmp_path / "theirs" / "results.json").write_text("{}")
    (tmp_path / "report").mkdir()
    link = tmp_path / "report" / "results.json"
    link.symlink_to(tmp_path / "theirs" / "results.json")
    with pytest.raises(ReportError, match="leads out of the folder"):
        load_results(tmp_path / "report")


# Shapes


@pytest.fixture(scope="module")
def content(tmp_path_factory):
    """results.json of an evaluation, to be changed in a copy."""
    return json.dumps(
        make_results(tmp_path_factory.mktemp("results")).to_json()
    )


def test_an_evaluation_is_read_as_it_was_written(tmp_path, content):
    (tmp_path / "results.json").write_text(content)
    results = load_results(tmp_path)
    found = results.to_json()
    for part, expected in json.loads(content).items():
        if not isinstance(expected, list):
            assert found[part] == expected
            continue
        for ours, theirs in zip(found[part], expected, strict=True):
            assert {key: ours[key] for key in theirs} == theirs
    assert parse(Results, found, "again") == results


def test_json_gets_no_nan(content):
    results = parse(Results, json.loads(content), "it")
    results.results[0].scores["pesq"] = math.nan
    results.summary[0].low = -math.inf
    found = json.loads(json.dumps(results.to_json(), allow_nan=False))
    assert found["results"][0]["scores"]["pesq"] is None
    assert found["summary"][0]["low"] is None


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (b"", "is no JSON"),
        (b"{", "is no JSON"),
        (b"\xff\xfe", "is no JSON"),
        (b"[" * 200_000, "is no JSON"),
        (b"1" * 5000, "is no JSON"),
        (b"[]", r"results.json: expected a mapping, found \[\]"),
        (b"null", "results.json: expected a mapping, found None"),
        (b'"' + b"x" * 10**6 + b'"', "expected a mapping, found 'xxx"),
        (b'{"version": 1}', "results.json: 'systems' is missing"),
        (b'{"version": 2}', "has version 2, expected 1"),
        (b'{"version": [[[[[[[]]]]]]]}', "has version .*, expected 1"),
    ],
)
def test_files_that_are_no_results(tmp_path, text, message):
    (tmp_path / "results.json").write_bytes(text)
    with pytest.raises(ReportError, match=message) as caught:
        load_results(tmp_path)
    assert len(str(caught.value)) < 400 + len(str(tmp_path))


# A path in results.json, what stands there, and what is said about it
SHAPES = [
    ("systems", {}, "systems: expected a list, found {}"),
    ("systems 0", "flowmac", r"systems\[0\]: expected a mapping"),
    ("systems 0 name", 5, r"systems\[0\].name: expected text, found 5"),
    ("systems 0 name", ["a"], r"systems\[0\].name: expected text"),
    ("systems 0 kbps", "3", r"systems\[0\].kbps: expected a number"),
    ("systems 0 speed", [], r"systems\[0\].speed: expected a mapping"),
    ("systems 0 tokens usage", [None], r"usage\[0\]: expected a number"),
    ("files 1 seconds", None, r"files\[1\].seconds: expected a number"),
    ("files 1 seconds", True, r"files\[1\].seconds: expected a number"),
    ("files 1 seconds", math.nan, r"files\[1\].seconds: expected a number"),
    ("files 1 seconds", 10**400, r"files\[1\].seconds: expected a number"),
    ("files 0 audio", {"a": "b"}, r"files\[0\].audio: expected text"),
    ("results 3 audio", 7, r"results\[3\].audio: expected text, found 7"),
    ("results 3 error", False, r"results\[3\].error: expected text"),
    ("results 3 scores", [], r"results\[3\].scores: expected a mapping"),
    ("results 3 scores pesq", "<b>", r"scores\['pesq'\]: expected a number"),
    ("results 3 file", "no.wav", r"results\[3\] is of a file that is not in"),
    ("results 3 system", "x", r"results\[3\] is of a system that is not in"),
    ("metrics 0 decimals", 2.5, r"decimals: expected a whole number"),
    ("metrics 0 higher_is_better", 1, "expected true or false, found 1"),
    ("machine", "fast", "machine: expected a mapping, found 'fast'"),
    ("machine versions", {"torch": 2}, r"versions\['torch'\]: expected text"),
    ("plots 0 path", None, r"plots\[0\].path: expected text, found None"),
]


@pytest.mark.parametrize(("place", "value", "message"), SHAPES)
def test_parts_of_another_shape(tmp_path, content, place, value, message):
    results = json.loads(content)
    *way, last = [int(x) if x.isdigit() else x for x in place.split()]
    part = results
    for key in way:
        part = part[key]
    part[last] = value
    (tmp_path / "results.json").write_text(json.dumps(results))
    with pytest.raises(ReportError, match=f"results.json.*{message}"):
        load_results(tmp_path)


def test_any_part_of_any_shape(tmp_path, content):
    """Whatever stands anywhere is read, or refused by our error."""
    refused = 0
    start = time.process_time()
    values = (None, True, -1, "x", [], {}, [[]], {"a": None})
    results = {
        key: part[:2] if isinstance(part, list) else part
        for key, part in json.loads(content).items()
    }
    for container, key in list(places(results)):
        kept = container[key]
        for value in values:
            container[key] = value
            try:
                parse(Results, results, "it")
            except ReportError as error:
                refused += 1
                assert "\n" not in str(error) and len(str(error)) < 200
        container[key] = kept
    assert refused > 400 and time.process_time() - start < 30


def places(value):
    """Every container in a value, with every key that it has."""
    pairs = value.items() if isinstance(value, dict) else enumerate(value)
    for key, part in list(pairs):
        yield value, key
        if isinstance(part, (dict, list)):
            yield from places(part)
