"""`flowmac mushra` and `flowmac mushra-results`, as they are typed."""

import hashlib
import importlib.util
import json
import stat

import numpy as np
import pytest
import yaml
from evaluation_mushra import change_report, make_report, write_ratings

from speechbrain_flowmac.cli import Parser
from speechbrain_flowmac.console import UsageError
from speechbrain_flowmac.evaluation import mushra_command
from speechbrain_flowmac.evaluation.mushra_command import (
    add_commands,
    whole_folder,
)


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    return make_report(tmp_path_factory.mktemp("report"))


def run(*arguments):
    """Runs a command; returns its exit code."""
    parser = Parser(prog="flowmac")
    add_commands(parser.add_subparsers(required=True))
    args = parser.parse_args([str(x) for x in arguments])
    return args.run(args)


def make(report, folder, *more):
    return run("mushra", "--report", report, "--output", folder, *more)


def digests(folder):
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(
            path.read_bytes()
        ).hexdigest()
        for path in folder.rglob("*")
        if path.is_file()
    }


# What listeners would give each system, and how much they differ
QUALITY = {
    "reference": 100,
    "lowpass:3.5": 20,
    "lowpass:7": 60,
    "faint": 40,
    "hoarse": 75,
}


def listen(config, key, path):
    """Six listeners rate all pages, one of them without listening."""
    rng = np.random.default_rng(0)
    ratings = []
    practice, items = config["pages"][2], config["pages"][4][1:]
    for person in range(6):
        for page in [
            practice,
            *(items[i] for i in rng.permutation(len(items))),
        ]:
            for code in rng.permutation(["reference", *page["stimuli"]]):
                system = key["items"][page["id"]]["stimuli"][code]["system"]
                score = min(100, round(QUALITY[system] + rng.normal(0, 3)))
                if system == "reference":
                    score = 100
                if page is practice or person == 5:
                    score = int(rng.integers(0, 80))
                ratings.append((f"P{person}", page["id"], code, score))
    return write_ratings(path, ratings, config["testId"])


def test_from_an_evaluation_to_results(report, tmp_path, capsys):
    folder = tmp_path / "new" / "test"
    assert make(report, folder, "--utterances", 3, "--title", "Codecs") == 0
    assert "3 items of 5 conditions" in capsys.readouterr().out
    assert {path.name for path in folder.iterdir()} == {
        "README.md",
        "key.json",
        "webmushra",
    }
    key = json.loads((folder / "key.json").read_text(encoding="utf-8"))
    text = (folder / "webmushra/configs/codecs.yaml").read_text("utf-8")
    ratings = listen(yaml.safe_load(text), key, tmp_path / "mushra.csv")

    results = tmp_path / "results"
    arguments = ("mushra-results", ratings, "--key", folder / "key.json")
    assert run(*arguments, "--output", results) == 0
    printed = capsys.readouterr().out
    assert printed == (results / "mushra.md").read_text(encoding="utf-8")
    assert "Listeners: 5 of 6" in printed and "Items: 3." in printed
    assert "- p5: hidden reference below 90 for 3 of 3 items" in printed
    means = {}
    for line in printed.splitlines():
        cells = [cell.strip() for cell in line.split("|")]
        if len(cells) == 8 and cells[6] == "15" and "to" in cells[3]:
            means[cells[1]] = float(cells[2])
    labels = key["systems"]
    assert means == {
        labels[name]: pytest.approx(score, abs=4)
        for name, score in QUALITY.items()
    }
    assert list(means)[0] == "Hidden reference"
    assert "| Hoarse codec | Faint codec |" in printed
    assert {path.name for path in results.iterdir()} == {
        "mushra.md",
        "mushra.svg",
        "systems.csv",
        "items.csv",
        "pairs.csv",
        "ratings.csv",
    }
    again = tmp_path / "again"
    assert run(*arguments, "--output", again) == 0
    assert digests(again) == digests(results)


def test_results_without_a_key_or_folder(tmp_path, capsys):
    ratings = write_ratings(
        tmp_path / "a.csv",
        [("x", "i", "reference", 95), ("x", "i", "anchor35", 10)],
    )
    more = write_ratings(tmp_path / "b.csv", [("y", "i", "C1", 50)])
    assert run("mushra-results", ratings, more) == 0
    printed = capsys.readouterr().out
    assert "| Hidden reference | 95.0 | – |" in printed
    assert "| Anchor 3.5 kHz | 10.0 |" in printed
    assert "| C1 | 50.0 |" in printed
    assert sorted(tmp_path.iterdir()) == [ratings, more]


def test_the_column_of_listeners(tmp_path, capsys):
    path = tmp_path / "a.csv"
    path.write_text(
        "seat,name,trial_id,rating_stimulus,rating_score\n"
        "1,Ann,i,reference,50\n1,Ann,i,C1,50\n2,Ann,i,reference,99\n"
        "2,Ann,i,C1,50\n",
        encoding="utf-8",
    )
    assert run("mushra-results", path, "--listener", "seat") == 0
    assert (
        "- 1: hidden reference below 90 for 1 of 1" in capsys.readouterr().out
    )


def test_same_seed_same_folder(report, tmp_path):
    arguments = ("--utterances", 2, "--systems", "hoarse", "--seed")
    for name, seed in (("a", 3), ("b", 3), ("c", 4)):
        assert make(report, tmp_path / name, *arguments, seed) == 0
    first, second, third = (digests(tmp_path / name) for name in "abc")
    assert first == second != third
    mode = stat.S_IMODE((tmp_path / "a").stat().st_mode)
    assert mode == 0o755


# What cannot be carried out


def refused(capsys, message, *arguments):
    """Expects `UsageError`, which the command line turns into exit code 2."""
    with pytest.raises(UsageError, match=message) as caught:
        run(*arguments)
    assert "\n" not in str(caught.value)
    assert capsys.readouterr().out == ""


def test_existing_folders_are_left_alone(report, tmp_path, capsys):
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").write_text("kept")
    ratings = write_ratings(tmp_path / "a.csv", [("x", "i", "a", 9)])
    before = digests(tmp_path)
    for name in ("empty", "file"):
        target = tmp_path / name
        refused(
            capsys,
            f"{name} exists",
            *("mushra", "--report", report, "--output", target),
        )
        refused(
            capsys,
            f"{name} exists",
            *("mushra-results", ratings, "--output", target),
        )
    assert digests(tmp_path) == before
    assert not list((tmp_path / "empty").iterdir())


def test_errors_leave_nothing_behind(report, tmp_path, capsys):
    target = tmp_path / "new" / "test"
    for message, *arguments in (
        ("no output of flowmac evaluate", "--report", tmp_path),
        ("no system 'mp3'", "--report", report, "--systems", "mp3"),
        ("absent did not run", "--report", report, "--systems", "absent"),
        ("99 utterances", "--report", report, "--utterances", "99"),
    ):
        refused(capsys, message, "mushra", "--output", target, *arguments)
    broken = make_report(tmp_path / "broken")

    def lose(results):
        for result in results["results"]:
            result["audio"] = "audio/lost.flac"

    change_report(broken, lose)
    refused(
        capsys,
        "names 'audio/lost.flac', which is no file",
        *("mushra", "--output", target, "--report", broken),
        *("--utterances", "1"),
    )
    assert [path.name for path in tmp_path.iterdir()] == ["broken"]


def test_ratings_that_cannot_be_analysed(tmp_path, capsys, monkeypatch):
    command = "mushra-results"
    target = tmp_path / "results"
    path = write_ratings(
        tmp_path / "a.csv", [("x", "i", "reference", 9), ("x", "i", "a", 9)]
    )
    refused(capsys, "no such file: .*b.csv", command, path, tmp_path / "b.csv")
    refused(
        capsys,
        "no such file: .*key.json",
        *(command, path, "--key", tmp_path / "key.json"),
    )
    again = tmp_path / "." / "a.csv"
    refused(capsys, "was given twice", command, path, again)
    refused(
        capsys,
        "excludes all listeners",
        *(command, path, "--output", target),
    )
    refused(capsys, "no column 'hat'", command, path, "--listener", "hat")
    refused(capsys, "is no key of flowmac", command, path, "--key", path)
    path.write_text("trial_id,rating_stimulus,rating_score\ni,a,x\n")
    refused(
        capsys,
        "a.csv line 2: the score must be",
        *(command, path, "--output", target),
    )
    find = importlib.util.find_spec
    monkeypatch.setattr(
        mushra_command.importlib.util,
        "find_spec",
        lambda name: None if name == "matplotlib" else find(name),
    )
    refused(
        capsys,
        "pip install matplotlib",
        *(command, path, "--output", target),
    )
    assert list(tmp_path.iterdir()) == [path]


def test_a_missing_package_is_named(report, tmp_path, monkeypatch):
    monkeypatch.setattr(
        mushra_command.importlib.util, "find_spec", lambda name: None
    )
    with pytest.raises(UsageError, match="pip install jinja2"):
        make(report, tmp_path / "made")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["mushra"], "required: --report, --output"),
        (["mushra-results"], "required: CSV"),
        (
            ["mushra", "--report", "r", "--output", "o", "--utterances", "0"],
            "whole number in 1..99",
        ),
        (
            ["mushra", "--report", "r", "--output", "o", "--seed", "-1"],
            "whole number in 0..",
        ),
        (["mushra-results", "a.csv", "--kee", "k"], "unrecognized arguments"),
    ],
)
def test_arguments_that_mean_nothing(arguments, message, capsys):
    with pytest.raises(SystemExit) as caught:
        run(*arguments)
    assert caught.value.code == 2
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1


@pytest.mark.parametrize("error", [KeyboardInterrupt, OSError])
def test_folders_appear_only_when_complete(tmp_path, error):
    target = tmp_path / "a" / "b"
    with pytest.raises(error), whole_folder(target) as folder:
        (folder / "x").write_text("half")
        assert not target.exists()
        raise error
    assert not list(tmp_path.iterdir())
    with whole_folder(target) as folder:
        (folder / "x").write_text("whole")
    assert (target / "x").read_text() == "whole"
    assert list(target.parent.iterdir()) == [target]
