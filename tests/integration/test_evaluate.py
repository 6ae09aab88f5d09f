"""`flowmac evaluate`, with systems that log what they do, and with real ones."""

import functools
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import asdict
from types import SimpleNamespace

import evaluation_fakes as fakes
import evaluation_tasks as tasks
import numpy as np
import pytest
import soundfile
from corpus import speech_like
from evaluation_conditions import FakeConditions
from tiny_model import make_tiny_model

from speechbrain_flowmac import metrics
from speechbrain_flowmac.cli import main
from speechbrain_flowmac.evaluation import descriptions, runner, scoring
from speechbrain_flowmac.evaluation.report import DEFAULT_LISTEN
from speechbrain_flowmac.evaluation.results import Results, load_results, parse

RESULTS = "report/results.json"


@pytest.fixture
def here(tmp_path, monkeypatch):
    """A folder to work in, with a folder of two recordings."""
    folder = tmp_path / "here"
    folder.mkdir()
    monkeypatch.chdir(folder)
    monkeypatch.setenv(fakes.LOG_VARIABLE, str(tmp_path / "log"))
    for seed, name in enumerate(("a.wav", "bad.wav")):
        write(folder / "data" / name, speech_like(0.5, seed + 1))
    return folder


def write(path, samples, rate=24000):
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, samples, rate)


@pytest.fixture
def faked(monkeypatch):
    """The command has only systems and metrics that log what they do."""
    table = fakes.metrics("loudness", "error")
    monkeypatch.setattr(scoring, "Conditions", FakeConditions)
    monkeypatch.setattr(metrics, "METRICS", table)
    monkeypatch.setattr(runner, "Workers", tasks.InProcess)
    monkeypatch.setattr(descriptions, "Workers", tasks.InProcess)
    return table


@pytest.fixture
def command(here, capsys):
    """Runs `flowmac evaluate` in this process."""

    def run(*argv, data="data", output="report", speed=False):
        argv = ["evaluate", "--data", data, "--output", output, *argv]
        if not speed:
            argv.append("--no-speed")
        code = main(list(map(str, argv)))
        captured = capsys.readouterr()
        return SimpleNamespace(code=code, out=captured.out, err=captured.err)

    return run


@pytest.fixture
def evaluates(command, faked):
    """Runs a command that must succeed, with fakes; returns its results."""

    def run(*argv, **options):
        result = command(*argv, **options)
        assert result.code == 0, result.err
        return results()

    return run


@pytest.fixture
def fails(command, faked, here):
    """Runs a command that must fail in one line and leave all as it was."""

    def run(code, text, *argv, **options):
        before = contents(here)
        result = command(*argv, **options)
        assert result.code == code
        (line,) = result.err.splitlines()
        assert line.startswith("flowmac: error: ")
        assert text in line
        assert result.out == ""
        assert contents(here) == before
        assert fakes.logged("encode") == []

    return run


def contents(folder):
    """All files and folders in a folder."""
    return {
        path.relative_to(folder).as_posix(): path.is_file()
        and path.read_bytes()
        for path in folder.rglob("*")
    }


def results():
    return load_results("report")


# The results


def test_what_is_written(command, faked, here):
    result = command("--systems", "round:4", "plain", "missing")
    assert result.code == 0
    found = results()
    assert found.version == 1
    assert found.command == (
        "flowmac evaluate --data data --output report "
        "--systems round:4 plain missing --no-speed"
    )
    assert found.machine.threads == 1
    assert found.machine.versions["numpy"] == np.__version__
    assert "speechbrain-flowmac" in found.machine.versions
    names = ["reference", "round:4", "plain", "missing"]
    assert [x.name for x in found.systems] == names
    assert {(x.system, x.metric) for x in found.summary} == {
        (system, metric)
        for system in names[:3]
        for metric in ("loudness", "error")
    }
    written = ["results.csv", "summary.csv", "summary.md", "report.html"]
    written += [x.path for x in found.plots]
    written += [x.audio for x in found.results + found.files]
    for path in written:
        assert (here / "report" / path).is_file(), path
    for result_ in found.results:
        heard, rate = soundfile.read(here / "report" / result_.audio)
        assert (len(heard), rate) == (12000, 24000)
    summary = (here / "report" / "summary.md").read_text()
    assert summary.strip() in result.out
    assert result.out.endswith("Listen and compare: report/report.html\n")
    assert "Rounding to 4 bits" in summary
    # not installed: a line here and there, no failure
    assert found.systems[3].unavailable == "its program is not installed"
    for text in (
        summary,
        (here / "report" / "report.html").read_text(),
        result.err,
    ):
        assert "its program is not installed" in text
        assert "missing: missing:" not in text
    assert not list(here.rglob("*.tmp"))


def test_a_second_run_adds(evaluates):
    first = evaluates("--systems", "round:4", "--metrics", "error")
    evaluates("--systems", "round:4", "round:5")
    assert sorted(fakes.logged("encode")) == [
        *("round:4 a.wav", "round:4 bad.wav"),
        *("round:5 a.wav", "round:5 bad.wav"),
    ]
    scored = [x.split()[0] for x in fakes.logged("score")]
    # two files of the reference and two systems
    assert (scored.count("error"), scored.count("loudness")) == (6, 6)
    assert evaluates("--systems", "round:4", "--metrics", "error") == first
    assert len(fakes.logged("encode")) == 4


def test_the_same_input_gives_the_same_results(evaluates, here):
    argv = ["--systems", "round:4", "plain", "--limit", 1]
    evaluates(*argv, speed=True)
    first = (here / RESULTS).read_bytes()
    coded = len(fakes.logged("encode"))
    evaluates(*argv, speed=True)
    assert (here / RESULTS).read_bytes() == first
    assert len(fakes.logged("encode")) == coded
    shutil.rmtree(here / "report")
    found = []
    evaluates(*argv, speed=True)
    for content in (first, (here / RESULTS).read_bytes()):
        found.append(parse(Results, json.loads(content), "it"))
        speeds = {x.name: x.speed for x in found[-1].systems}
        assert speeds["round:4"].threads == 1 and speeds["plain"] is None
        found[-1].command, found[-1].machine = "", None
        for system in found[-1].systems:
            system.speed = None
    assert found[0] == found[1]


def test_speeds_can_be_measured_anew(evaluates):
    argv = ["--systems", "round:4", "--limit", 1]
    evaluates(*argv, speed=True)
    coded = len(fakes.logged("encode"))
    evaluates(*argv, "--speed-anew", "--threads", 2, speed=True)
    assert len(fakes.logged("encode")) == 2 * coded - 1
    (system,) = (x for x in results().systems if x.speed is not None)
    assert system.speed.threads == results().machine.threads == 2


def test_levels_and_limits(evaluates):
    found = evaluates("--systems", "round:12", "--limit", 1)
    assert [x.name for x in found.files] == ["a.wav"]
    rms = found.results[0].scores["loudness"]
    assert 20 * np.log10(rms) == pytest.approx(-26, abs=0.01)
    found = evaluates("--systems", "round:12", "--level", -40)
    rms = [x.scores["loudness"] for x in found.results]
    np.testing.assert_allclose(20 * np.log10(rms), -40, atol=0.1)
    found = evaluates("--systems", "plain", "--level", "none")
    kept, rate = soundfile.read("data/a.wav")
    assert found.results[0].scores["loudness"] == pytest.approx(
        np.sqrt(np.mean(kept**2))
    )


def test_output_may_lie_in_the_data(evaluates):
    for _ in range(2):
        found = evaluates("--systems", "plain", data=".")
        assert [x.name for x in found.files] == [
            *("data/a.wav", "data/bad.wav")
        ]


def test_systems_by_default(faked, command, monkeypatch):
    asked = []

    def make(name):
        asked.append(name)
        return fakes.make_system("round:4" if "8" in name else "missing")

    conditions = functools.partial(FakeConditions, make_system=make)
    monkeypatch.setattr(scoring, "Conditions", conditions)
    assert command("--limit", 1).code == 0
    assert {"flowmac:8", "flowmac:4", "flowmac:2", "flowmac:1"} < set(asked)
    assert {"opus:6", "codec2:3200", "lowpass:3.5"} < set(asked)


# What goes wrong


def test_a_system_that_fails(command, faked):
    result = command("--systems", "raise", "round:4")
    assert result.code == 1
    assert result.err.splitlines() == [
        "flowmac: error: bad.wav with raise: no such luck at all",
        "flowmac: 1 error, see above",
    ]
    found = {(x.file, x.system): x for x in results().results}
    assert found["bad.wav", "raise"].error == "no such luck at all"
    assert found["bad.wav", "round:4"].error is None
    assert found["a.wav", "raise"].error is None
    again = command("--systems", "raise", "round:4", "--debug")
    assert again.code == 1
    assert fakes.logged("encode").count("raise bad.wav") == 2
    assert fakes.logged("encode").count("raise a.wav") == 1


def test_a_metric_that_fails(command, faked):
    faked |= fakes.metrics("refusal")
    result = command("--systems", "round:4", "--limit", 1)
    assert result.code == 1
    text = "refusal of a.wav with round:4: no metric today"
    assert f"flowmac: error: {text}" in result.err.splitlines()
    found = results().results[1]
    assert found.error is None
    assert found.scores["refusal"] is None
    assert found.scores["error"] > 0


def test_unreadable_files(command, faked, here):
    (here / "data" / "text.wav").write_text("no audio")
    result = command("--systems", "round:4")
    assert result.code == 1
    assert "flowmac: error: cannot read data/text.wav" in result.err
    found = results()
    assert [x.name for x in found.files] == ["a.wav", "bad.wav"]
    assert [x.name for x in found.unreadable] == ["text.wav"]


def test_no_readable_file(command, faked, here):
    for name in ("a.wav", "bad.wav"):
        (here / "data" / name).write_text("no audio")
    result = command("--systems", "round:4")
    assert result.code == 1
    assert "none of the 2 files can be read" in result.err.splitlines()[-1]
    assert not (here / RESULTS).exists()


def test_unavailable_metrics(command, faked, fails):
    faked["error"] = faked["error"]._replace(packages=("no-such-package",))
    argv = ["--systems", "plain", "--metrics", "loudness", "error"]
    fails(2, "pip install 'no-such-package'", *argv)
    result = command("--systems", "plain")
    assert result.code == 0
    (line,) = result.err.splitlines()
    assert line.startswith("flowmac: metric error is left out: ")
    assert "pip install 'no-such-package'" in line
    assert [x.name for x in results().metrics] == ["loudness"]


def test_no_metric_is_available(faked, fails):
    faked["error"] = faked["error"]._replace(packages=("no-such-package",))
    del faked["loudness"]
    fails(2, "pip install 'no-such-package'", "--systems", "round:4")


@pytest.mark.parametrize("package", ["jinja2", "matplotlib"])
def test_packages_of_the_extra_are_named(fails, monkeypatch, package):
    monkeypatch.setitem(sys.modules, package, None)
    fails(2, f"needs {package}: pip install", "--systems", "round:4")


@pytest.mark.parametrize(
    "text, argv",
    [
        ("no system 'nonsense'", ["--systems", "round:4", "nonsense"]),
        ("no metric 'nonsense', known are loud", ["--metrics", "nonsense"]),
        ("no such folder: nowhere", ["--data", "nowhere"]),
        ("no audio files in none", ["--data", "none"]),
        ("file is not a folder", ["--output", "file"]),
        ("something else", ["--output", "data"]),
        ("at most 0, or none; found '3'", ["--level", "3"]),
        ("found 'nan'", ["--level", "nan"]),
        ("1..", ["--limit", "0"]),
        ("1..", ["--jobs", "0"]),
        ("1..", ["--threads", "0"]),
        ("0..", ["--listen", "-1"]),
        ("not allowed with", ["--speed-anew", "--no-speed"]),
        ("expected at least one argument", ["--systems"]),
    ],
)
def test_bad_options(fails, here, text, argv):
    (here / "none").mkdir()
    (here / "file").touch()
    systems = [] if "--systems" in argv else ["--systems", "round:4"]
    fails(2, text, *systems, *argv)


def test_data_and_output_must_be_given(capsys):
    for argv in ([], ["--data", "data"], ["--output", "report"]):
        assert main(["evaluate", *argv]) == 2
        assert "required" in capsys.readouterr().err


def test_help_is_quick(here):
    script = (
        "import sys\n"
        "from speechbrain_flowmac.cli import main\n"
        "assert main(['evaluate', '--help']) == 0\n"
        "assert 'torch' not in sys.modules\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], check=True, capture_output=True
    )
    text = b" ".join(done.stdout.split()).decode()
    assert "flowmac:8 flowmac:4 flowmac:2 flowmac:1 opus:6" in text
    assert f"in the report (default: {DEFAULT_LISTEN})" in text


LINKS = ["audio", "plots", "results.json", "report.html", "cache/scores"]


@pytest.mark.parametrize("link", LINKS)
@pytest.mark.parametrize("target", ["folder", "file", "nothing"])
def test_no_link_leads_out_of_a_report(fails, here, link, target):
    (here / "report" / "cache").mkdir(parents=True)
    (here / "folder").mkdir()
    (here / "file").touch()
    (here / "report" / link).symlink_to(here / target)
    fails(2, f"report/{link} is a link that leads out", "--systems", "round:4")


def test_other_links_are_followed(evaluates, here):
    (here / "report" / "cache").mkdir(parents=True)
    (here / "report" / "mine").mkdir()
    (here / "report" / "audio").symlink_to("mine")
    (here / "link").symlink_to("report")
    evaluates("--systems", "round:4", output="link")
    assert list((here / "report" / "mine").rglob("*.flac"))


# Runs that are stopped

WITH_FAKES = """
import sys
import evaluation_fakes as fakes
from evaluation_conditions import FakeConditions
from speechbrain_flowmac import cli, metrics
from speechbrain_flowmac.evaluation import scoring
scoring.Conditions = FakeConditions
metrics.METRICS = fakes.metrics("loudness", "error")
sys.exit(cli.main(sys.argv[1:]))
"""


@pytest.mark.parametrize(
    "number, code",
    [
        (signal.SIGKILL, -signal.SIGKILL),
        (signal.SIGTERM, 128 + signal.SIGTERM),
    ],
)
def test_a_stopped_run_goes_on(here, evaluates, number, code):
    argv = ["--systems", "round:4", "stall", "round:5"]
    running = subprocess.Popen(
        [sys.executable, "-c", WITH_FAKES, "evaluate", "--data", "data"]
        + ["--output", "report", "--no-speed", "--jobs", "1", *argv],
        env=os.environ
        | {
            "PYTHONPATH": os.pathsep.join(sys.path),
            fakes.STALL_VARIABLE: "1",
        },
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    limit = time.monotonic() + 300
    while "stall bad.wav" not in fakes.logged("encode"):
        assert running.poll() is None, running.stderr.read().decode()
        assert time.monotonic() < limit
        time.sleep(0.05)
    running.send_signal(number)
    # until the workers have closed them, too
    out, err = running.communicate(timeout=60)
    assert running.returncode == code, err.decode()
    assert (out, err) == (b"", b"")
    for line in fakes.logged("make"):
        tasks.wait_for_end(int(line.split()[1]))
    assert not (here / RESULTS).exists()
    done = ["round:4 a.wav", "round:4 bad.wav", "stall a.wav", "stall bad.wav"]
    assert fakes.logged("encode") == done
    evaluates(*argv)
    assert fakes.logged("encode")[4:] == [
        *("stall bad.wav", "round:5 a.wav", "round:5 bad.wav")
    ]


# The real thing


def test_real_systems_and_metrics(command, here, tmp_path):
    codec = f"flowmac:2:model={make_tiny_model(tmp_path / 'tiny')}"
    low, folder = "lowpass:3.5", "folder:others:label=Others"
    shutil.copytree("data", "others")
    result = command(
        *("--systems", codec, low, folder),
        *("--metrics", "si_sdr", "mel"),
        *("--jobs", 1),
        speed=True,
    )
    assert (result.code, result.err) == (0, "")
    found = results()
    systems = {x.name: x for x in found.systems}
    assert {name: x.kind for name, x in systems.items()} == {
        "reference": "reference",
        codec: "codec",
        low: "anchor",
        folder: "folder",
    }
    # 24 frames of 2 x 8 bits for half a second
    assert systems[codec].kbps == pytest.approx(24 * 16 / 500)
    assert len(systems[codec].tokens.usage) == 2
    speed = systems[codec].speed
    assert all(value > 0 for value in asdict(speed).values())
    assert (speed.seconds_coded, speed.threads) == (1.0, 1)
    for name in ("reference", low, folder):
        for key in ("kbps", "tokens", "speed"):
            assert getattr(systems[name], key) is None
    means = {(x.system, x.metric): x.mean for x in found.summary}
    assert means["reference", "mel"] == 0
    # what was copied is the reference but for its level
    assert means[folder, "si_sdr"] > 60
    assert means[folder, "si_sdr"] > means[low, "si_sdr"] > 0
    assert means[low, "si_sdr"] > means[codec, "si_sdr"]
    assert systems[folder].label == "Others" and "Others" in result.out
