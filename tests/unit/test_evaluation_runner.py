"""What `flowmac evaluate` is made of: processes, what is kept, scores, speed."""

import json
import math
import os
import signal
import subprocess
import sys
import time
from dataclasses import asdict

import evaluation_fakes as fakes
import evaluation_tasks as tasks
import numpy as np
import pytest
import soundfile
from corpus import speech_like

from speechbrain_flowmac.console import UsageError
from speechbrain_flowmac.evaluation import (
    cache as cache_module,
    descriptions,
    runner,
    speed,
)
from speechbrain_flowmac.evaluation.cache import (
    Cache,
    function_digest,
    signal_digest,
    source_digest,
)
from speechbrain_flowmac.evaluation.descriptions import describe
from speechbrain_flowmac.evaluation.results import File, MetricInfo
from speechbrain_flowmac.evaluation.scoring import (
    Conditions,
    evaluate_one,
    prepare,
    resample,
    round_to_16_bits,
)
from speechbrain_flowmac.evaluation.systems import Recording
from speechbrain_flowmac.evaluation.workers import TaskError, Workers
from speechbrain_flowmac.metrics import to_level

RATE = 24000


@pytest.fixture(autouse=True)
def log(tmp_path, monkeypatch):
    """An empty log for what fakes do."""
    path = tmp_path / "log"
    monkeypatch.setenv(fakes.LOG_VARIABLE, str(path))
    return path


@pytest.fixture(autouse=True)
def in_process(monkeypatch):
    """No processes where they are not what is tested: each imports torch."""
    monkeypatch.setattr(runner, "Workers", tasks.InProcess)
    monkeypatch.setattr(descriptions, "Workers", tasks.InProcess)


@pytest.fixture
def data(tmp_path):
    """A folder of three recordings."""
    for seed, name in enumerate(("a.wav", "bad.wav", "deep/er/c.flac")):
        write(tmp_path / "data" / name, speech_like(0.5, seed + 1))
    return tmp_path / "data"


@pytest.fixture
def conditions(data, tmp_path):
    """Conditions under which the fakes are evaluated."""
    return conditions_of(data, tmp_path / "out")


def conditions_of(data, output, metrics=("loudness", "error"), **options):
    options.setdefault("make_system", fakes.make_system)
    return Conditions(data, output, fakes.metrics(*metrics), **options)


def write(path, samples, rate=RATE, **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, samples, rate, **options)
    return path


# Processes


def test_workers_do_every_task_once_on_so_many_processes():
    todo = [(0.5 if i == 0 else 0.02, i) for i in range(8)]
    with Workers(2, 1) as workers:
        found = dict(workers.map(tasks.wait_and_tell, todo))
        again = dict(workers.map(tasks.wait_and_tell, todo[1:]))
    assert [found[i][0] for i in range(8)] == list(range(8))
    processes = {process for _, process in found.values()}
    assert len(processes) == 2 and os.getpid() not in processes
    # the same ones go on
    assert {process for _, process in again.values()} <= processes
    for process in processes:
        with pytest.raises(ProcessLookupError):
            os.kill(process, 0)


def test_results_come_as_they_end():
    with Workers(2, 1) as workers:
        list(
            workers.map(tasks.wait_and_tell, [(0.3, 0), (0.3, 1)])
        )  # both started
        order = [
            n for n, _ in workers.map(tasks.wait_and_tell, [(1, 0), (0, 1)])
        ]
    assert order == [1, 0]


@pytest.mark.parametrize(
    "how, text",
    [
        ("raise", "two lines"),
        ("exit", "its process ended with exit code 7"),
        ("kill", "its process was killed by signal 9 (out of memory?)"),
        ("strange", "its process ended with exit code 1"),
    ],
)
def test_a_task_that_fails_takes_no_other_with_it(how, text):
    with Workers(1, 1) as workers:
        found = dict(workers.map(tasks.end, [("a",), (how,), ("b",)]))
    assert (found[0], found[2]) == ("a", "b")
    assert isinstance(found[1], TaskError)
    assert str(found[1]) == text
    assert ("Traceback" in found[1].where) == (how == "raise")


@pytest.mark.parametrize("threads", [1, 2])
def test_threads_of_workers(threads):
    before = dict(os.environ)
    with Workers(1, threads) as workers:
        ((_, found),) = workers.map(tasks.threads_here, [()])
    assert found == (str(threads), threads)
    assert os.environ == before


def test_workers_stop_when_they_are_left():
    start = time.monotonic()
    with pytest.raises(KeyError), Workers(2, 1) as workers:
        todo = [(0, "quick"), (60, "slow")]
        _, (_, process) = next(workers.map(tasks.wait_and_tell, todo))
        raise KeyError
    assert time.monotonic() - start < 30
    with pytest.raises(ProcessLookupError):
        os.kill(process, 0)


def test_workers_end_with_who_started_them():
    script = (
        "import os, signal\n"
        "from evaluation_tasks import wait_and_tell\n"
        "from speechbrain_flowmac.evaluation.workers import Workers\n"
        "workers = Workers(2, 1)\n"
        "todo = [(0, 0), (600, 0)]\n"
        "next(workers.map(wait_and_tell, todo))\n"
        "print(*(x.pid for x in workers._processes.values()), flush=True)\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    result = subprocess.run(
        [sys.executable, "-c", script],
        capture_output=True,
        text=True,
        timeout=60,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
    )
    assert result.returncode == -signal.SIGKILL, result.stderr
    processes = list(map(int, result.stdout.split()))
    assert len(processes) == 2
    for process in processes:
        tasks.wait_for_end(process)


def test_what_workers_print_goes_to_stderr(capfd):
    with Workers(1, 1) as workers:
        list(workers.map(print, [("from a library",)]))
    out, err = capfd.readouterr()
    assert out == ""
    assert "from a library" in err


# What is kept


def test_entries_come_back(tmp_path):
    cache = Cache(tmp_path / "cache")
    tokens = np.arange(6).reshape(3, 2)
    assert cache.get_arrays("decoded", "0a") is None
    cache.put_arrays("decoded", "0a", tokens=tokens, bits=np.array(5))
    found = cache.get_arrays("decoded", "0a")
    assert sorted(found) == ["bits", "tokens"]
    np.testing.assert_array_equal(found["tokens"], tokens)
    cache.put_json("scores", "0a", {"pesq": None})
    cache.put_json("scores", "0a", {"pesq": 1 / 3})
    assert cache.get_json("scores", "0a") == {"pesq": 1 / 3}
    with pytest.raises(ValueError):
        cache.put_json("scores", "0b", {"pesq": math.nan})
    assert cache.get_json("scores", "0b") is None
    assert not list(tmp_path.rglob("*.tmp"))


def test_damaged_entries_are_missing(tmp_path):
    cache = Cache(tmp_path)
    cache.put_arrays("decoded", "0a", signal=np.arange(100.0))
    cache.put_json("scores", "0a", {"pesq": 1.5, "estoi": 0.5})
    for ending, get in ((".npz", cache.get_arrays), (".json", cache.get_json)):
        kind = "decoded" if ending == ".npz" else "scores"
        path = cache.path(kind, "0a", ending)
        whole = path.read_bytes()
        for size in range(len(whole) - 1):
            path.write_bytes(whole[:size])
            assert get(kind, "0a") is None, size
        path.write_bytes(whole)
        assert get(kind, "0a") is not None
    path = cache.path("decoded", "0a", ".npz")
    whole = bytearray(path.read_bytes())
    whole[len(whole) // 2] ^= 1
    path.write_bytes(whole)
    assert cache.get_arrays("decoded", "0a") is None


def test_digests_tell_signals_apart():
    signal_ = speech_like(0.1, 1)
    same = signal_.copy()
    assert signal_digest(signal_) == signal_digest(same)
    same[3] = np.nextafter(same[3], 1)
    others = [same, signal_[:-1], signal_.astype(float), signal_[::-1]]
    others.append(signal_.reshape(2, -1))
    digests = {signal_digest(x) for x in [signal_, *others]}
    assert len(digests) == 6


def test_digests_of_functions(tmp_path, monkeypatch):
    def load(text, name="score"):
        (tmp_path / "plugin.py").write_text(text)
        space = {"__name__": "plugin"}
        exec(compile(text, str(tmp_path / "plugin.py"), "exec"), space)
        return space[name]

    text = "def score(): return helper()\ndef helper(): return 1\n"
    first = function_digest(load(text), ("numpy",))
    assert function_digest(load(text), ("numpy",)) == first
    assert function_digest(load(text, "helper"), ("numpy",)) != first
    changed = text.replace("1", "2")  # in what the function calls
    assert function_digest(load(changed), ("numpy",)) != first
    function = load(text)
    monkeypatch.setattr(
        cache_module.importlib.metadata, "version", lambda name: "9"
    )
    assert function_digest(function, ("numpy",)) != first


def test_digests_of_models(tmp_path):
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "weights").write_text("1")
    source = str(tmp_path / "model")
    first = source_digest(source)
    assert source_digest(source) == first
    (tmp_path / "model" / "weights").write_text("2")
    assert source_digest(source) != first
    assert source_digest("hub/model") != source_digest("hub/other")


def test_a_model_that_the_environment_names_is_another_metric(
    data, tmp_path, monkeypatch
):
    table = fakes.metrics("error")
    table["error"] = table["error"]._replace(variable="FLOWMAC_TEST_MODEL")
    digests = []
    for source in (None, "hub/model", "hub/other"):
        if source is not None:
            monkeypatch.setenv("FLOWMAC_TEST_MODEL", source)
        digests.append(Conditions(data, tmp_path, table).metric_digests)
    assert len({x["error"] for x in digests}) == 3


# One recording through one system


def result_of(conditions, name, system):
    about = describe([system], conditions)[1]
    return evaluate_one(conditions, about, name, "audio/x.flac")


def test_the_reference_is_what_is_coded_scored_and_heard(conditions, data):
    samples = np.stack([speech_like(1.0, 1, 44100) * 0.1] * 2, axis=1)
    samples[:, 1] = 0
    write(data / "stereo.wav", samples, 44100, subtype="FLOAT")
    reference = conditions.reference("stereo.wav")
    assert reference.shape == (RATE,)
    rms = 20 * np.log10(np.sqrt(np.mean(reference**2)))
    assert rms == pytest.approx(-26, abs=0.01)
    np.testing.assert_array_equal(reference * 32768 % 1, 0)
    about = prepare(conditions, "stereo.wav", "audio/stereo/reference.flac")
    path = conditions.output / about.audio
    assert soundfile.info(path).subtype == "PCM_16"
    heard, rate = soundfile.read(path)
    assert (rate, about.seconds) == (RATE, 1.0)
    np.testing.assert_array_equal(heard, reference)
    given = conditions.recording("stereo.wav", 8000)
    assert (given.sample_rate, given.seconds) == (8000, 1.0)


def test_a_peak_keeps_the_level_down(conditions, data):
    click = np.zeros(RATE)
    click[100] = 0.5
    write(data / "click.wav", click)
    peak = np.abs(conditions.reference("click.wav")).max()
    assert peak == pytest.approx(0.95, abs=2**-15)


def test_levels_may_stay(data, tmp_path):
    samples = round_to_16_bits(0.1 * speech_like(0.5, 1))
    write(data / "quiet.wav", samples, subtype="PCM_16")
    kept = conditions_of(data, tmp_path, level_db=None)
    np.testing.assert_array_equal(kept.reference("quiet.wav"), samples)
    lower = conditions_of(data, tmp_path, level_db=-40.0)
    np.testing.assert_allclose(
        lower.reference("quiet.wav"), to_level(samples, -40), atol=2e-5
    )


def test_16_bits():
    values = np.array([-3.0, -1.0, 0.1, 1 - 2**-15, 1.0, 3.0])
    found = round_to_16_bits(values)
    assert found.min() == -1 and found.max() == 1 - 2**-15
    np.testing.assert_array_equal(round_to_16_bits(found), found)


@pytest.mark.parametrize("samples", [1, 2, 3, 7, 441, 1000])
def test_resampled_lengths(samples):
    signal_ = speech_like(samples / RATE, 1)[:samples]
    low = resample(signal_, RATE, 8000)
    assert len(low) == -(-samples // 3)
    assert len(resample(low, 8000, RATE)) == 3 * len(low)
    assert resample(signal_, RATE, RATE) is signal_


@pytest.mark.parametrize("bits", [3, 11])
def test_a_result(conditions, bits):
    found, (tokens, size) = result_of(conditions, "a.wav", f"round:{bits}")
    assert found.payload_bits == bits * 4000
    assert found.kbps == pytest.approx(bits * 8)
    assert (tokens.shape, size) == ((4000, 1), 2**bits)
    assert tokens.min() >= 0 and tokens.max() < size
    assert (found.error, found.metric_errors) == (None, {})
    heard, rate = soundfile.read(conditions.output / found.audio)
    reference = conditions.reference("a.wav")
    assert (rate, heard.shape) == (RATE, reference.shape)
    assert found.scores == {
        "loudness": fakes.loudness(reference, heard, RATE),
        "error": fakes.error(reference, heard, RATE),
    }
    json.dumps(asdict(found), allow_nan=False)


def test_delay_and_level_are_brought_back(conditions):
    found, tokens = result_of(conditions, "a.wav", "plain")
    assert found.delay_ms == pytest.approx(10, abs=0.2)
    assert found.gain_db == pytest.approx(-6, abs=0.3)
    assert (found.payload_bits, found.kbps, tokens) == (None, None, None)
    scores = found.scores
    assert scores["error"] < 0.2 * scores["loudness"]


def test_the_reference_scores_as_itself(conditions):
    about = describe([], conditions)[0]
    found, _ = evaluate_one(conditions, about, "a.wav", "audio/r.flac")
    assert found.scores["error"] == 0
    assert (found.delay_ms, found.gain_db, found.kbps) == (0, 0, None)


def test_scores_that_are_none_or_fail(data, tmp_path):
    names = ("nothing", "refusal", "loudness")
    conditions = conditions_of(data, tmp_path / "out", names)
    for runs in (1, 2):
        found, _ = result_of(conditions, "a.wav", "round")
        assert list(found.scores) == list(names)
        assert found.scores["nothing"] is None
        assert found.scores["refusal"] is None
        assert found.scores["loudness"] > 0
        assert found.metric_errors == {"refusal": "no metric today"}
        # what failed is tried again, what is no number is known
        tried = [x.split()[0] for x in fakes.logged("score")]
        assert tried.count("nothing") == 1
        assert tried.count("refusal") == runs


# Nothing is done twice


def coded():
    return sorted(fakes.logged("encode"))


def run(
    conditions,
    systems,
    names=("a.wav", "bad.wav"),
    workers=tasks.InProcess,
    **options,
):
    described = describe(systems, conditions)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(runner, "Workers", workers)
        return runner.evaluate(conditions, list(names), described, **options)


def test_a_second_run_codes_and_scores_nothing(conditions):
    first = run(conditions, ["round:4", "plain"])
    assert len(coded()) == 4
    scored = len(fakes.logged("score"))
    assert scored == 2 * 3 * 2  # metrics, systems with the reference, files
    assert run(conditions, ["round:4", "plain"], jobs=2) == first
    assert len(coded()) == 4
    assert len(fakes.logged("score")) == scored


def test_one_system_more_codes_only_that(conditions):
    run(conditions, ["round:4"])
    run(conditions, ["round:5", "round:4"])
    assert coded() == [
        f"round:{bits} {name}"
        for bits in (4, 5)
        for name in ("a.wav", "bad.wav")
    ]
    assert len(fakes.logged("score")) == 2 * 3 * 2


def test_one_metric_more_computes_only_that(data, tmp_path):
    run(conditions_of(data, tmp_path / "out", ["error"]), ["round:4"])
    both = conditions_of(data, tmp_path / "out", ["loudness", "error"])
    found = run(both, ["round:4"])
    assert len(coded()) == 2
    scored = [x.split()[0] for x in fakes.logged("score")]
    assert (scored.count("error"), scored.count("loudness")) == (4, 4)
    assert [set(x.scores) for x in found.results] == [{"error", "loudness"}] * 4


def test_a_changed_file_is_coded_again(conditions, data):
    run(conditions, ["round:4"])
    write(data / "a.wav", speech_like(0.5, 77))
    run(conditions, ["round:4"])
    assert coded() == ["round:4 a.wav", "round:4 a.wav", "round:4 bad.wav"]


def test_a_file_of_other_rate_and_format_with_the_same_samples(
    conditions, data
):
    run(conditions, ["round:4"], ["a.wav"])
    samples, rate = soundfile.read(data / "a.wav")
    write(data / "a.wav", samples[:, None].repeat(2, 1), rate, format="FLAC")
    run(conditions, ["round:4"], ["a.wav"])
    assert coded() == ["round:4 a.wav"]


def test_a_changed_system_codes_again(conditions, monkeypatch):
    run(conditions, ["round:4"])
    described = describe(["round:4"], conditions)
    described[1].fingerprint = "another version"
    runner.evaluate(conditions, ["a.wav"], described)
    assert coded().count("round:4 a.wav") == 2


def test_a_changed_metric_scores_again(conditions):
    run(conditions, ["round:4"], ["a.wav"])
    conditions.metric_digests["error"] = "another version"
    run(conditions, ["round:4"], ["a.wav"])
    scored = [x.split()[0] for x in fakes.logged("score")]
    assert (scored.count("error"), scored.count("loudness")) == (4, 2)
    assert len(coded()) == 1


def test_a_truncated_entry_is_made_again(conditions):
    first = run(conditions, ["round:4"])
    for path in conditions.cache.folder.rglob("*.npz"):
        path.write_bytes(path.read_bytes()[:-100])
    assert run(conditions, ["round:4"]) == first
    assert len(coded()) == 4
    assert run(conditions, ["round:4"]) == first
    assert len(coded()) == 4


# All recordings through all systems


def test_results_do_not_depend_on_processes(data, tmp_path):
    names = ["a.wav", "bad.wav", "deep/er/c.flac"]
    systems = ["round:4", "plain", "missing", "raise"]
    one = run(conditions_of(data, tmp_path / "one"), systems, names)
    assert one == run(
        conditions_of(data, tmp_path / "two"), systems, names, Workers, jobs=2
    )
    audio = [
        {
            path.relative_to(folder).as_posix(): path.read_bytes()
            for path in (folder / "audio").rglob("*.flac")
        }
        for folder in (tmp_path / "one", tmp_path / "two")
    ]
    assert audio[0] == audio[1]
    assert len(audio[0]) == 3 * 4 - 1


def test_a_worker_makes_a_system_once(conditions):
    run(conditions, ["round:4", "round:5"], workers=Workers)
    made = [x.split()[0] for x in fakes.logged("make")]
    # once to ask what it is, once to code all
    assert made == ["round:4", "round:5"] * 2


def test_what_evaluate_returns(conditions):
    found = run(conditions, ["round:4", "missing", "plain", "round:4"])
    assert [x.name for x in found.metrics] == ["loudness", "error"]
    assert found.metrics[1] == MetricInfo(
        "error", "Error", 3, False, "intrusive"
    )
    systems = {x.name: x for x in found.systems}
    assert list(systems) == ["reference", "round:4", "missing", "plain"]
    assert [x.kind for x in systems.values()] == [
        *("reference", "codec", "codec", "anchor")
    ]
    assert "not installed" in systems["missing"].unavailable
    assert systems["round:4"].unavailable is None
    assert systems["round:4"].kbps == pytest.approx(32)
    assert systems["round:4"].options == {"codebooks": 4}
    assert systems["round:4"].tokens.codebook_size == 16
    assert systems["plain"].kbps is None
    assert systems["plain"].tokens is None
    assert found.files == [
        File(name, 0.5, f"audio/{stem}/reference.flac")
        for name, stem in (("a.wav", "a"), ("bad.wav", "bad"))
    ]
    assert [(x.file, x.system) for x in found.results] == [
        (name, system)
        for name in ("a.wav", "bad.wav")
        for system in ("reference", "round:4", "plain")
    ]
    assert found.results[1].audio == "audio/a/round-4.flac"
    assert found.unreadable == []


@pytest.mark.parametrize(
    "system, workers, text",
    [
        ("raise", tasks.InProcess, "no such luck at all"),
        ("nan", tasks.InProcess, "it decoded to samples that are no numbers"),
        ("stereo", tasks.InProcess, "it decoded to shape (2, 4080), not [T]"),
        ("die", Workers, "its process was killed by signal 9 (out of memory?)"),
    ],
)
def test_a_failure_is_one_result(conditions, system, workers, text):
    complaints = []
    found = run(
        conditions,
        [system, "round:4"],
        workers=workers,
        complain=lambda error, what: complaints.append((str(error), what)),
    )
    assert len(found.results) == 6
    (failed,) = (x for x in found.results if x.error is not None)
    assert (failed.file, failed.system) == ("bad.wav", system)
    assert failed.error == text
    assert failed.scores == {} and failed.audio is None
    assert complaints == [(text, f"bad.wav with {system}")]


def test_unreadable_files_are_left_out(conditions, data):
    (data / "empty.wav").touch()
    (data / "text.wav").write_text("no audio")
    write(data / "none.wav", np.zeros(0))
    hole = speech_like(0.5, 1)
    hole[7] = np.nan
    write(data / "hole.wav", hole, subtype="FLOAT")
    names = ["a.wav", "empty.wav", "hole.wav", "none.wav", "text.wav"]
    complaints = []
    found = run(
        conditions,
        ["round:4"],
        names,
        complain=lambda error, what: complaints.append(what),
    )
    assert [x.name for x in found.files] == ["a.wav"]
    assert [x.name for x in found.unreadable] == names[1:]
    assert sorted(complaints) == names[1:]
    errors = {x.name: x.error for x in found.unreadable}
    assert "cannot read" in errors["empty.wav"]
    assert "found nan at sample 7" in errors["hole.wav"]
    assert "no samples" in errors["none.wav"]
    assert "cannot read" in errors["text.wav"]
    assert {x.file for x in found.results} == {"a.wav"}


@pytest.mark.parametrize("samples", [1, 2, 100, 2399])
def test_short_and_silent_files(conditions, data, samples):
    write(data / "short.wav", speech_like(0.5, 1)[:samples])
    write(data / "silent.wav", np.zeros(samples))
    found = run(conditions, ["round:4"], ["short.wav", "silent.wav"])
    assert [x.error for x in found.results] == [None] * 4
    assert found.results[1].payload_bits == 4 * -(-samples // 3)


def test_unknown_and_broken_systems(conditions):
    with pytest.raises(UsageError, match="no system 'nonsense'"):
        describe(["round", "nonsense"], conditions)
    with pytest.raises(TaskError, match="broken: KeyError: 'broken'"):
        describe(["broken"], conditions)
    assert not conditions.output.exists()


def test_recordings_of_a_folder(data, tmp_path):
    def find(output="elsewhere", limit=None):
        return runner.find_recordings(data, data / output, limit)

    (data / "notes.txt").write_text("no audio")
    write(data / "LOUD.WAV", speech_like(0.1, 1))
    names = ["LOUD.WAV", "a.wav", "bad.wav", "deep/er/c.flac"]
    assert find() == names
    assert find("deep") == names[:3]
    assert find(limit=2) == names[::2]
    assert find(limit=3) == names[:3]
    assert find(limit=9) == names
    with pytest.raises(UsageError, match="no such folder"):
        runner.find_recordings(data / "nowhere", tmp_path)
    (data / "none").mkdir()
    with pytest.raises(UsageError, match="no audio files in"):
        runner.find_recordings(data / "none", tmp_path)


def test_output_folders(tmp_path):
    runner.check_output(tmp_path / "new")
    (tmp_path / "empty").mkdir()
    runner.check_output(tmp_path / "empty")
    (tmp_path / "ours" / "cache").mkdir(parents=True)
    runner.check_output(tmp_path / "ours")
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "text").touch()
    with pytest.raises(UsageError, match="something else"):
        runner.check_output(tmp_path / "thesis")
    with pytest.raises(UsageError, match="is not a folder"):
        runner.check_output(tmp_path / "thesis" / "text")


def test_no_two_audio_files_share_a_name():
    names = ["a.flac", "a.wav", "a-2.wav", "b/a.wav"]
    folders = runner.audio_folders(names)
    assert len(set(folders)) == 4
    assert folders[0] == "audio/a" and folders[3] == "audio/b/a"
    systems = ["reference", "folder:../a b", "folder:../a-b", "x:1:y=2"]
    slugs = runner.file_names(systems)
    assert slugs == ["reference", "folder-..-a-b", "folder-..-a-b-2", "x-1-y=2"]


# Speed


def recording(seconds, name="a.wav"):
    samples = round(seconds * fakes.SAMPLE_RATE)
    return Recording(name, np.zeros(samples), fakes.SAMPLE_RATE)


def test_speed_leaves_out_loading_and_warming_up():
    found = speed.measure(
        fakes.make_system, "slow", [recording(1.0), recording(3.0)]
    )
    assert found.seconds_coded == 4.0
    # 2 x 0.05 s and 2 x 0.1 s of sleep for 4 s of audio
    assert 0.025 <= found.encode_rtf < 0.06
    assert 0.05 <= found.decode_rtf < 0.1
    assert found.load_seconds >= 0.3
    # once to warm up, three times both
    assert len(coded()) == 1 + 3 * 2


def test_enough_audio():
    def durations(*seconds):
        found = speed.enough((recording(x) for x in seconds), seconds=30.0)
        return [x.seconds for x in found]

    assert durations(12, 12, 12, 12) == [12, 12, 12]
    assert durations(5) == [5]
    assert durations(100, 3) == [30]


def measured(conditions, *names, anew=False, complain=None):
    systems = describe(names, conditions)
    speed.measure_systems(conditions, systems, ["a.wav"], 1, anew, complain)
    return {x.name: x.speed for x in systems}


def test_each_system_has_a_process_of_its_own(conditions):
    found = measured(conditions, "round:4", "round:5", "missing", "plain")
    assert [found[x] for x in ("reference", "missing", "plain")] == [None] * 3
    for name in ("round:4", "round:5"):
        assert sorted(asdict(found[name])) == [
            *("decode_rtf", "encode_rtf", "load_seconds"),
            *("peak_memory_mb", "seconds_coded", "threads"),
        ]
        assert found[name].threads == 1
        assert all(x > 0 for x in asdict(found[name]).values())
    # four were asked what they are, by one process
    processes = [x.split()[1] for x in fakes.logged("make")]
    assert len(processes) == 5 and len(set(processes)) == 3


def test_peak_memory_is_that_of_the_system(conditions):
    hoard = bytearray(os.urandom(1)) * 150_000_000  # of this process
    found = measured(conditions, "large", "large-program", "round:4")
    assert found["large"].peak_memory_mb > 200
    assert found["large-program"].peak_memory_mb > 200
    assert found["round:4"].peak_memory_mb < 150
    assert len(hoard) == 150_000_000


def test_speeds_are_kept(conditions):
    first = measured(conditions, "round:4")
    made = len(coded())
    assert measured(conditions, "round:4") == first
    assert len(coded()) == made
    assert measured(conditions, "round:4", anew=True) != first
    assert len(coded()) == 2 * made
    measured(conditions, "round:4", "round:5")
    assert len(coded()) == 3 * made


def test_a_speed_that_cannot_be_measured(conditions, data):
    complaints = []
    (data / "a.wav").rename(data / "bad file.wav")
    systems = describe(["die", "round:4"], conditions)
    speed.measure_systems(
        *(conditions, systems, ["bad file.wav"], 1, False),
        lambda error, what: complaints.append((str(error), what)),
    )
    assert [x.speed is None for x in systems] == [True, True, False]
    ((error, what),) = complaints
    assert "signal 9" in error and what == "speed of die"


def test_machine():
    found = speed.machine(2, ["numpy", "no-such-package", "torch[all]>2"])
    assert set(found.versions) == {"python", "numpy", "torch"}
    assert found.versions["numpy"] == np.__version__
    assert found.threads == 2
    assert found.cpu and found.platform
