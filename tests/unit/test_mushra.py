"""Listening tests for webMUSHRA: what its manual and BS.1534-3 demand."""

import hashlib
import json
import re
from dataclasses import asdict

import numpy as np
import pytest
import soundfile
import yaml
from evaluation_mushra import change_report, make_report

from speechbrain_flowmac.evaluation import mushra
from speechbrain_flowmac.evaluation.mushra import (
    LOW_ANCHOR,
    MID_ANCHOR,
    MushraError,
    loudness,
    make_test,
    match_loudness,
    render,
    systems_under_test,
    usable_files,
)
from speechbrain_flowmac.evaluation.results import (
    File,
    ReportError,
    Result,
    Results,
    SystemInfo,
)

RATE = mushra.SAMPLE_RATE
# Options that doc/experimenter.md of webMUSHRA lists for a mushra page
PAGE_OPTIONS = {
    "type",
    "id",
    "name",
    "content",
    "showWaveform",
    "enableLooping",
    "strict",
    "reference",
    "createAnchor35",
    "createAnchor70",
    "randomize",
    "showConditionNames",
    "stimuli",
    "switchBack",
}


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    return make_report(tmp_path_factory.mktemp("report"))


@pytest.fixture(scope="module")
def made(report, tmp_path_factory):
    """A test of three items, its configuration and its key."""
    folder = tmp_path_factory.mktemp("made")
    key = make_test(report, folder, utterances=3, title="Codecs, Höreindruck")
    (path,) = (folder / "webmushra" / "configs").glob("*.yaml")
    config = yaml.safe_load(path.read_text(encoding="utf-8"))
    return folder, config, key


def mushra_pages(config):
    """The page for practice, and those of the test."""
    practice, shuffled = config["pages"][2], config["pages"][4]
    return [practice, *shuffled[1:]]


def stimulus(made, item, system):
    """Path of the stimulus that the key names."""
    folder, _, key = made
    (entry,) = [
        entry
        for entry in key.items[item].stimuli.values()
        if entry.system == system
    ]
    return folder / "webmushra" / entry.audio


def digests(folder):
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(
            path.read_bytes()
        ).hexdigest()
        for path in folder.rglob("*")
        if path.is_file()
    }


def test_configuration_has_what_the_manual_demands(made):
    _, config, _ = made
    assert config["testname"] == "Codecs, Höreindruck"
    assert config["testId"] == "codecs-h-reindruck"
    assert config["bufferSize"] in (256, 512, 1024, 2048, 4096, 8192, 16384)
    assert config["stopOnErrors"] is True
    assert config["showButtonPreviousPage"] is True
    assert config["remoteService"] == "service/write.php"
    kinds = [x if isinstance(x, list) else x["type"] for x in config["pages"]]
    assert kinds[:4] == ["generic", "volume", "mushra", "generic"]
    assert kinds[4][0] == "random"
    assert [page["type"] for page in kinds[4][1:]] == ["mushra"] * 3
    assert kinds[5:] == ["finish"]
    volume, finish = config["pages"][1], config["pages"][-1]
    assert 0 <= volume["defaultVolume"] <= 1
    # listeners must not learn what they rated
    assert finish["showResults"] is False and finish["writeResults"] is True
    assert "listener" in [x["name"] for x in finish["questionnaire"]]
    ids = [page["id"] for page in mushra_pages(config)]
    assert ids == ["training", "item-01", "item-02", "item-03"]


def test_pages_hide_reference_and_anchors(made):
    _, config, key = made
    for page in mushra_pages(config):
        assert set(page) <= PAGE_OPTIONS
        assert page["randomize"] is True
        assert page["showConditionNames"] is False
        # anchors are among the stimuli, webMUSHRA adds the reference
        assert page["createAnchor35"] is page["createAnchor70"] is False
        assert list(page["stimuli"]) == ["C1", "C2", "C3", "C4"]
        files = key.items[page["id"]].stimuli
        assert page["reference"] == files["reference"].audio
        assert files["reference"].system == "reference"
        for code, path in page["stimuli"].items():
            assert files[code].audio == path
        rated = {entry.system for entry in files.values()}
        assert rated == set(key.systems)
        assert rated == {"reference", LOW_ANCHOR, MID_ANCHOR, "faint", "hoarse"}


def test_files_are_there_with_one_rate_and_length(made):
    folder, config, key = made
    wanted = {config["pages"][1]["stimulus"]}
    for page in mushra_pages(config):
        paths = [page["reference"], *page["stimuli"].values()]
        wanted |= set(paths)
        infos = [soundfile.info(folder / "webmushra" / path) for path in paths]
        assert {x.samplerate for x in infos} == {RATE}
        assert {x.subtype for x in infos} == {"PCM_16"}
        assert {x.format for x in infos} == {"WAV"}
        assert {x.channels for x in infos} == {1}
        assert len({x.frames for x in infos}) == 1
        number = int(key.items[page["id"]].file[len("speaker/")])
        seconds = (1.3, 1.2, 1.4, 1.1)[number]
        assert infos[0].frames == round(seconds * RATE)
    served = folder / "webmushra"
    written = {x.relative_to(served).as_posix() for x in served.rglob("*.wav")}
    assert written == wanted
    # docker-compose.yml of webMUSHRA mounts nothing but configs and results
    assert all(path.startswith("configs/") for path in written)


def test_stimuli_are_as_loud_as_their_reference(made, report):
    folder, config, _ = made
    for page in mushra_pages(config):
        levels = []
        for path in [page["reference"], *page["stimuli"].values()]:
            signal, rate = soundfile.read(folder / "webmushra" / path)
            levels.append(loudness(signal, rate))
            assert np.abs(signal).max() <= mushra.PEAK + 1e-4
        assert np.ptp(levels) < 0.1
    # what was evaluated differed by far more
    levels = [
        loudness(*soundfile.read(report / f"audio/speaker/0/{name}.flac"))
        for name in ("faint", "hoarse")
    ]
    assert abs(levels[0] - levels[1]) > 10


def test_loudness_of_tones_is_that_of_bs_1770():
    time = np.arange(5 * RATE) / RATE
    for peak in (0.05, 1.0):
        tone = peak * np.sin(2 * np.pi * 997 * time)
        expected = -3.01 + 20 * np.log10(peak)
        assert loudness(tone, RATE) == pytest.approx(expected, abs=0.1)
    # the weighting hears treble as louder, bass as softer
    treble = loudness(np.sin(2 * np.pi * 6000 * time), RATE)
    assert 2.5 < treble - loudness(tone, RATE) < 4.0
    assert loudness(np.sin(2 * np.pi * 30 * time), RATE) < -8
    assert loudness(np.zeros(RATE), RATE) == -np.inf


def test_what_would_clip_lowers_all_together():
    rng = np.random.default_rng(0)
    smooth = rng.standard_normal(RATE)
    spiky = rng.standard_normal(RATE)
    spiky[::4000] = 60.0
    signals = match_loudness({"smooth": smooth, "spiky": spiky}, RATE)
    levels = [loudness(signal, RATE) for signal in signals.values()]
    assert levels[0] == pytest.approx(levels[1], abs=1e-6)
    assert levels[0] < mushra.LOUDNESS - 1
    assert np.abs(signals["spiky"]).max() == pytest.approx(mushra.PEAK)
    # without the spikes there is room
    level = loudness(match_loudness({"x": smooth}, RATE)["x"], RATE)
    assert level == pytest.approx(mushra.LOUDNESS, abs=1e-6)


def test_anchors_are_low_passed_references():
    noise = np.random.default_rng(0).standard_normal(RATE)
    made = mushra.anchors(noise)
    assert list(made) == [LOW_ANCHOR, MID_ANCHOR]
    frequency = np.fft.rfftfreq(len(noise), 1 / RATE)
    for anchor, limit in zip(made.values(), (3500, 7000), strict=True):
        spectra = [np.fft.rfft(x * np.hanning(RATE)) for x in (noise, anchor)]
        # neither changed nor delayed, and then nothing
        for part, wanted in (
            (frequency < limit, 1),
            (frequency > limit + 600, 0),
        ):
            error = np.linalg.norm(spectra[1][part] - wanted * spectra[0][part])
            assert error < 0.005 * np.linalg.norm(spectra[0][part])


def test_anchors_are_made_of_the_reference(made):
    reference, _ = soundfile.read(stimulus(made, "item-01", "reference"))
    for name, wanted in mushra.anchors(reference).items():
        found, _ = soundfile.read(stimulus(made, "item-01", name))
        assert np.corrcoef(found, wanted[: len(found)])[0, 1] > 0.9999


def test_stimuli_are_what_the_key_says(made, report):
    """Noise is left in the noisy system, after the gain is taken out."""
    _, _, key = made
    for item, entry in key.items.items():
        name = entry.file.removesuffix(".wav")
        for system in ("faint", "hoarse"):
            source, rate = soundfile.read(
                report / f"audio/{name}/{system}.flac"
            )
            found, _ = soundfile.read(stimulus(made, item, system))
            resampled = mushra.soxr.resample(source, rate, RATE)
            likeness = np.corrcoef(resampled, found)[0, 1]
            assert likeness > 0.9999


def test_names_reveal_nothing(made):
    folder, config, key = made
    served = folder / "webmushra"
    for path in served.rglob("*.wav"):
        assert re.fullmatch("[0-9a-f]{16}", path.stem)
    text = next(served.rglob("*.yaml")).read_text(encoding="utf-8")
    for word in ("faint", "hoarse", "Faint", "lowpass", "speaker", "3.5"):
        assert word not in text
    assert not list(served.rglob("key*"))
    # no place in the list belongs to a system
    places = {system: set() for system in key.systems}
    for entry in key.items.values():
        for code, found in entry.stimuli.items():
            places[found.system].add(code)
    assert places.pop("reference") == {"reference"}
    assert all(len(codes) > 1 for codes in places.values())
    # nothing but sound in the files
    for path in served.rglob("*.wav"):
        frames = soundfile.info(path).frames
        assert path.stat().st_size == 44 + 2 * frames


def test_readme_tells_what_to_do(made):
    folder, _, key = made
    text = (folder / "README.md").read_text(encoding="utf-8")
    assert f"?config={key.test_id}.yaml" in text
    assert f"results/{key.test_id}/mushra.csv --key key.json" in text
    assert "3 items of 5 conditions" in text
    assert json.loads((folder / "key.json").read_text("utf-8")) == asdict(key)
    assert mushra.read_key(folder / "key.json") == key


def test_same_seed_same_bytes(made, report, tmp_path):
    folders = [tmp_path / name for name in ("again", "other")]
    for folder, seed in zip(folders, (0, 1), strict=True):
        folder.mkdir()
        make_test(
            report,
            folder,
            utterances=3,
            seed=seed,
            title="Codecs, Höreindruck",
        )
    first, again, other = (digests(x) for x in (made[0], *folders))
    assert again == first
    assert not {x for x in first if x.endswith(".wav")} & set(other)


def test_practice_is_another_item_if_there_is_one(made, report, tmp_path):
    files = [entry.file for entry in made[2].items.values()]
    assert len(set(files)) == 4  # three that count, and one to practise
    key = make_test(report, tmp_path, utterances=4)
    assert len({entry.file for entry in key.items.values()}) == 4
    assert len(key.items) == 5


def test_systems_can_be_chosen(report, tmp_path):
    key = make_test(report, tmp_path, ["hoarse"], utterances=1)
    assert list(key.systems) == [
        "reference",
        LOW_ANCHOR,
        MID_ANCHOR,
        "hoarse",
    ]


def test_only_suitable_files_are_used():
    def results(**changes):
        file = {"name": "a", "seconds": 5.0, "audio": "a/r"} | changes
        return Results([], [File(**file)], [Result("a", "s", audio="a/s")])

    assert usable_files(results(), ["s"]) == {
        "a": {"reference": "a/r", "s": "a/s"}
    }
    assert usable_files(results(seconds=12.0), ["s"])
    for changes in ({"seconds": 12.1}, {"seconds": 0.9}, {"audio": None}):
        assert not usable_files(results(**changes), ["s"])
    failed = results()
    failed.results[0].error = "broken"
    silent = results()
    silent.results[0].audio = None
    assert not usable_files(failed, ["s"])
    assert not usable_files(silent, ["s"])
    assert not usable_files(results(), ["s", "another"])


def test_yaml_is_read_as_it_was_meant():
    title = "quotes \" and \\ and: # é, <p>it's</p>\nand {{ more }}"
    pages = [
        {"id": name, "heading": "x", "paths": {"reference": "r", name: "s"}}
        for name in ("a", "b", "c")
    ]
    text = render(
        "config.yaml",
        title=title,
        test_id="test",
        training=pages[0],
        pages=pages[1:],
    )
    config = yaml.safe_load(text)
    assert config["testname"] == title
    assert [x["id"] for x in mushra_pages(config)] == ["a", "b", "c"]
    for page in mushra_pages(config):
        assert page["reference"] == "r"
        assert page["stimuli"] == {page["id"]: "s"}
    # what yaml.js cannot read: two dashes in a line
    assert not re.search(r"^ *- +-", text, re.MULTILINE)
    assert not re.search(r"^ *- +[a-z]+:", text, re.MULTILINE)


def test_systems_that_cannot_be_rated():
    def evaluation(*names, unavailable=None):
        systems = [SystemInfo(x, x, unavailable=unavailable) for x in names]
        return Results(systems, [], [])

    with pytest.raises(MushraError, match="no system 'b'.*it has a .*anchors"):
        systems_under_test(evaluation("a"), ["b"])
    with pytest.raises(MushraError, match="no system 'lowpass:7'"):
        systems_under_test(evaluation("lowpass:7", "a"), ["lowpass:7"])
    with pytest.raises(MushraError, match="system a did not run: no program"):
        systems_under_test(evaluation("a", unavailable="no program"), ["a"])
    with pytest.raises(MushraError, match="1 to 9 systems .* not 0"):
        systems_under_test(evaluation("a", unavailable="no program"))
    many = [f"s{number}" for number in range(10)]
    with pytest.raises(MushraError, match="1 to 9 systems .* not 10"):
        systems_under_test(evaluation(*many))
    assert list(systems_under_test(evaluation(*many), many[:9])) == many[:9]


def test_reports_that_cannot_be_used(tmp_path):
    with pytest.raises(ReportError, match="no results.json"):
        make_test(tmp_path, tmp_path)


def test_too_few_utterances(report, tmp_path):
    with pytest.raises(MushraError, match="5 utterances asked for, 4 of 4 can"):
        make_test(report, tmp_path, utterances=5)


@pytest.mark.parametrize(
    ("signal", "message"),
    [
        (np.zeros(26400), "0/reference.flac: faint is silent"),
        (np.ones(24000), r"faint.flac lasts 1.00 s, its reference 1.10 s"),
        (None, "names 'audio/speaker/0/faint.flac', which is no file"),
        (b"no audio", "cannot read .*faint.flac"),
        (np.zeros(13 * 24000), "faint.flac lasts 13.00 s"),
    ],
)
def test_audio_that_cannot_be_used(tmp_path, signal, message):
    report = make_report(tmp_path / "report", seconds=(1.101,))
    path = report / "audio/speaker/0/faint.flac"
    path.unlink()
    if isinstance(signal, bytes):
        path.write_bytes(signal)
    elif signal is not None:
        soundfile.write(path, 0.5 * signal, 24000)
    with pytest.raises(ReportError, match=message):
        make_test(report, tmp_path / "made", utterances=1)


def test_a_small_file_that_unfolds_to_a_large_one(tmp_path):
    report = make_report(tmp_path / "report", seconds=(1.2,))
    path = report / "audio/speaker/0/faint.flac"
    soundfile.write(path, np.zeros(650_000), 650_000)
    with pytest.raises(MushraError, match="faint.flac has 650000 Hz"):
        make_test(report, tmp_path / "made", utterances=1)


def test_a_few_samples_more_or_less_are_evened_out(tmp_path):
    report = make_report(tmp_path / "report", seconds=(1.2,))
    for name, change in (("faint", 50), ("hoarse", -50)):
        path = report / f"audio/speaker/0/{name}.flac"
        signal, rate = soundfile.read(path)
        soundfile.write(path, np.resize(signal, len(signal) + change), rate)
    key = make_test(report, tmp_path / "made", utterances=1)
    lengths = {
        soundfile.info(tmp_path / "made" / "webmushra" / x.audio).frames
        for x in key.items["item-01"].stimuli.values()
    }
    assert lengths == {round(1.2 * RATE)}


def test_channels_are_mixed_and_rates_converted(tmp_path):
    report = make_report(tmp_path / "report", seconds=(1.2,), rate=16000)
    path = report / "audio/speaker/0/faint.flac"
    signal, _ = soundfile.read(path)
    signal = mushra.soxr.resample(signal, 16000, 44100)
    soundfile.write(path, np.stack([signal, signal], 1), 44100)
    key = make_test(report, tmp_path / "made", utterances=1)
    made = (tmp_path / "made", None, key)
    found, rate = soundfile.read(stimulus(made, "item-01", "faint"))
    wanted = mushra.soxr.resample(signal, 44100, RATE)
    assert rate == RATE
    assert np.corrcoef(found, wanted[: len(found)])[0, 1] > 0.9999


def test_a_title_without_letters_still_names_a_test(report, tmp_path):
    key = make_test(report, tmp_path, utterances=1, title="听力测试")
    assert key.test_id == "test"
    assert (tmp_path / "webmushra/configs/test.yaml").is_file()


def test_files_without_audio_are_passed_over(tmp_path):
    copy = make_report(tmp_path / "report")

    def forget(results):
        results["results"][0]["audio"] = None
        results["files"][1]["audio"] = None

    change_report(copy, forget)
    (tmp_path / "made").mkdir()
    key = make_test(copy, tmp_path / "made", utterances=2)
    used = {entry.file for entry in key.items.values()}
    assert used == {"speaker/2.wav", "speaker/3.wav"}
