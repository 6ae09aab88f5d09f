"""Manifests and downloads of LibriTTS, on a synthetic corpus."""

import hashlib
import io
import json
import re
import socket
import tarfile
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import libritts_prepare
import pytest
import soundfile
from corpus import make_libritts
from libritts_prepare import (
    CorruptArchiveError,
    EmptySplitError,
    MissingDataError,
    UnreadableAudioError,
    prepare_libritts,
)

NAMES = ("train", "valid", "test")


def snapshot(folder):
    """Name, time and content of everything in a folder."""
    return {
        str(path.relative_to(folder)): (
            path.stat().st_mtime_ns,
            path.is_file() and hashlib.sha256(path.read_bytes()).hexdigest(),
        )
        for path in folder.rglob("*")
    }


def load(folder, name="train"):
    """One manifest."""
    return json.loads((folder / f"{name}.json").read_text(encoding="utf-8"))


# Manifests


def test_manifests_list_every_utterance(corpus, tmp_path):
    before = snapshot(corpus)
    prepare_libritts(corpus, tmp_path)
    assert snapshot(corpus) == before
    assert [len(load(tmp_path, name)) for name in NAMES] == [4, 2, 2]
    for name in NAMES:
        for utterance, entry in load(tmp_path, name).items():
            assert entry["wav"].startswith("{data_root}/")
            path = entry["wav"].replace("{data_root}", str(corpus))
            assert path.endswith(f"/{utterance}.wav")
            info = soundfile.info(path)
            assert entry["duration"] == info.frames / info.samplerate
            assert entry["spk_id"] == utterance.split("_")[0]
            assert entry["label"].startswith("Utterance ")


def test_manifest_feeds_a_speechbrain_dataset(corpus, tmp_path):
    from speechbrain.dataio.dataio import read_audio
    from speechbrain.dataio.dataset import DynamicItemDataset

    prepare_libritts(corpus, tmp_path)
    dataset = DynamicItemDataset.from_json(
        str(tmp_path / "train.json"),
        replacements={"data_root": str(corpus)},
        output_keys=["id", "wav", "duration"],
    )
    item = dataset[0]
    assert len(read_audio(item["wav"])) == round(item["duration"] * 24000)


def test_inner_folder_of_the_archive_is_found(tmp_path):
    make_libritts(tmp_path / "data" / "LibriTTS")
    prepare_libritts(tmp_path / "data", tmp_path / "save")
    for entry in load(tmp_path / "save").values():
        path = entry["wav"].replace("{data_root}", str(tmp_path / "data"))
        assert soundfile.info(path).frames == 24000


def test_any_folder_is_a_split_and_text_is_optional(tmp_path):
    data = make_libritts(tmp_path / "data", {"mine": 3, "b": 1, "c": 1})
    for text in data.rglob("*.normalized.txt"):
        text.unlink()
    (data / "b/20/100/._20_100_000000_000000.wav").write_bytes(b"hidden")
    prepare_libritts(data, tmp_path, ["mine", "b"], "c", "c")
    assert len(load(tmp_path)) == 4
    assert {entry["label"] for entry in load(tmp_path).values()} == {""}


def test_same_arguments_leave_the_manifests_alone(corpus, tmp_path):
    prepare_libritts(corpus, tmp_path)
    before = snapshot(tmp_path)
    prepare_libritts(corpus, tmp_path)
    assert snapshot(tmp_path) == before


@pytest.mark.parametrize(
    "change",
    [
        {"train_splits": ["dev-clean"]},
        {"test_splits": ["dev-clean"]},
        {"min_duration": 0.25},
    ],
    ids=lambda change: next(iter(change)),
)
def test_other_arguments_make_new_manifests(corpus, tmp_path, change):
    prepare_libritts(corpus, tmp_path)
    before = snapshot(tmp_path)
    prepare_libritts(corpus, tmp_path, **change)
    after = snapshot(tmp_path)
    assert all(after[f"{n}.json"][0] > before[f"{n}.json"][0] for n in NAMES)


@pytest.mark.parametrize("lost", ["valid.json", "libritts_prepare.json"])
def test_an_interrupted_preparation_is_done_again(corpus, tmp_path, lost):
    prepare_libritts(corpus, tmp_path)
    before = snapshot(tmp_path)
    (tmp_path / lost).unlink()
    prepare_libritts(corpus, tmp_path)
    after = snapshot(tmp_path)
    assert after.keys() == before.keys()
    assert after["train.json"][0] > before["train.json"][0]


def test_skip_prep_does_nothing(tmp_path):
    prepare_libritts(tmp_path / "nowhere", tmp_path / "save", skip_prep=True)
    assert not list(tmp_path.iterdir())


def test_only_training_utterances_are_left_out_when_short(tmp_path):
    data = make_libritts(tmp_path / "data", {"a": 1}, duration=0.3)
    make_libritts(data, {"unused": 0, "b": 1}, duration=0.6)
    prepare_libritts(
        data, tmp_path, ["a", "b"], ["a", "b"], ["a"], min_duration=0.5
    )
    durations = {
        name: [entry["duration"] for entry in load(tmp_path, name).values()]
        for name in NAMES
    }
    assert durations == {"train": [0.6], "valid": [0.3, 0.6], "test": [0.3]}


def test_a_set_of_short_utterances_is_refused(corpus, tmp_path):
    with pytest.raises(EmptySplitError, match="min_duration=2.0"):
        prepare_libritts(corpus, tmp_path / "save", min_duration=2.0)
    assert not (tmp_path / "save").exists()


def test_empty_sets_are_refused(tmp_path):
    data = make_libritts(tmp_path / "data", {"a": 1})
    (data / "empty" / "1" / "2").mkdir(parents=True)
    with pytest.raises(EmptySplitError, match="empty"):
        prepare_libritts(data, tmp_path / "save", "a", "empty", "a")
    with pytest.raises(EmptySplitError, match="test_splits"):
        prepare_libritts(data, tmp_path / "save", "a", "a", [])
    assert not (tmp_path / "save").exists()


@pytest.mark.parametrize("content", [b"", b"not audio", None])
def test_bad_audio_is_named(tmp_path, content):
    data = make_libritts(tmp_path / "data", {"a": 3})
    bad = sorted(data.rglob("*.wav"))[1]
    if content is None:
        soundfile.write(bad, [], 24000)
    else:
        bad.write_bytes(content)
    with pytest.raises(UnreadableAudioError, match=re.escape(str(bad))):
        prepare_libritts(data, tmp_path / "save", "a", "a", "a")
    assert not (tmp_path / "save").exists()


def test_two_utterances_of_one_name_are_refused(tmp_path):
    data = make_libritts(tmp_path / "data", {"a": 1})
    make_libritts(tmp_path / "other", {"b": 1})
    (tmp_path / "other" / "b").rename(data / "b")
    with pytest.raises(ValueError, match="Two utterances are called"):
        prepare_libritts(data, tmp_path / "save", ["a", "b"], "a", "a")


# Download


class Server(ThreadingHTTPServer):
    """Serves bytes by path, on loopback, and can drop connections.

    ``cuts`` holds, for each of the next requests, the number of bytes after
    which the connection is closed; ``ranges`` collects the Range headers.
    """

    def __init__(self, files, ranged=True):
        super().__init__(("127.0.0.1", 0), Handler)
        self.files, self.ranged = files, ranged
        self.cuts, self.ranges = [], []
        self.url = f"http://127.0.0.1:{self.server_port}"


class Handler(BaseHTTPRequestHandler):
    """Answers GET with optional byte ranges."""

    def do_GET(self):
        """Send a file, or the part of it that was asked for."""
        if self.path not in self.server.files:
            self.send_error(404)
            return
        body, header = self.server.files[self.path], self.headers["Range"]
        self.server.ranges.append(header)
        start = int(header[6:-1]) if header and self.server.ranged else 0
        if start and start >= len(body):
            self.send_error(416)
            return
        self.send_response(206 if start else 200)
        self.send_header("Content-Length", str(len(body) - start))
        self.end_headers()
        cut = self.server.cuts.pop(0) if self.server.cuts else len(body)
        self.wfile.write(body[start : start + cut])

    def log_message(self, *args):
        """Keep the output of the tests clean."""


def tar_gz(folder, prefix="LibriTTS"):
    """A folder as the bytes of a tar.gz."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as tar:
        tar.add(folder, arcname=prefix)
    return buffer.getvalue()


@pytest.fixture
def archive(corpus, tmp_path):
    """An archive of dev-clean as LibriTTS packs it."""
    source = make_libritts(tmp_path / "source", {"dev-clean": 2})
    (source / "LICENSE.txt").write_text("beside the split")
    return tar_gz(source)


@pytest.fixture
def serve(monkeypatch):
    """Function that starts a server of a dev-clean archive."""
    servers = []
    monkeypatch.setenv("no_proxy", "127.0.0.1")

    def start(body, **options):
        server = Server({"/dev-clean.tar.gz": body}, **options)
        threading.Thread(
            target=server.serve_forever, args=(0.01,), daemon=True
        ).start()
        servers.append(server)
        return server

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


def prepare(tmp_path, server, sha256=None, **options):
    """Prepare dev-clean from a server into ``tmp_path/data``."""
    prepare_libritts(
        tmp_path / "data",
        tmp_path / "save",
        *["dev-clean"] * 3,
        url=server.url,
        checksums={} if sha256 is None else {"dev-clean": sha256},
        **options,
    )


def assert_downloaded(tmp_path):
    """The split is there, and nothing else."""
    assert [p.name for p in (tmp_path / "data").iterdir()] == ["dev-clean"]
    source, copy = tmp_path / "source", tmp_path / "data"
    for wav in source.rglob("*.wav"):
        copied = copy / wav.relative_to(source)
        assert copied.read_bytes() == wav.read_bytes()
    assert len(load(tmp_path / "save")) == 2


def test_missing_split_is_downloaded_checked_and_unpacked(
    archive, serve, tmp_path
):
    server = serve(archive)
    prepare(tmp_path, server, hashlib.sha256(archive).hexdigest())
    assert_downloaded(tmp_path)
    before = snapshot(tmp_path / "data")
    prepare(tmp_path, server, min_duration=0.1)
    assert snapshot(tmp_path / "data") == before
    assert len(server.ranges) == 1


def test_download_goes_beside_the_splits_that_are_there(
    archive, serve, tmp_path
):
    make_libritts(tmp_path / "data" / "LibriTTS", {"train-clean-100": 1})
    prepare(tmp_path, serve(archive))
    assert (tmp_path / "data" / "LibriTTS" / "dev-clean").is_dir()


def test_lost_connection_is_continued(archive, serve, tmp_path):
    server = serve(archive)
    server.cuts = [1000, 500]
    prepare(tmp_path, server, hashlib.sha256(archive).hexdigest())
    assert server.ranges == [None, "bytes=1000-", "bytes=1500-"]
    assert_downloaded(tmp_path)


def test_next_run_continues(archive, serve, tmp_path):
    server = serve(archive)
    server.cuts = [1000, 0]
    with pytest.raises(MissingDataError, match="another run continues it"):
        prepare(tmp_path, server)
    assert [p.name for p in (tmp_path / "data").iterdir()] == [
        "dev-clean.tar.gz.part"
    ]
    assert not (tmp_path / "save").exists()
    prepare(tmp_path, server)
    assert server.ranges[-1] == "bytes=1000-"
    assert_downloaded(tmp_path)


def test_server_without_ranges_starts_over(archive, serve, tmp_path):
    server = serve(archive, ranged=False)
    server.cuts = [1000]
    prepare(tmp_path, server)
    assert_downloaded(tmp_path)


def test_complete_part_is_not_fetched_again(archive, serve, tmp_path):
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "dev-clean.tar.gz.part").write_bytes(archive)
    prepare(tmp_path, serve(archive))
    assert_downloaded(tmp_path)


def damage(archive, how):
    """Archives that must not be trusted."""
    middle = len(archive) // 2
    flipped = bytes([archive[middle] ^ 255])
    return {
        "truncated": archive[:middle],
        "flipped": archive[:middle] + flipped + archive[middle + 1 :],
        "crc": archive[:-8] + bytes(8),
        "page": b"<html>sorry</html>",
        "nothing": b"",
    }[how]


@pytest.mark.parametrize(
    "how", ["truncated", "flipped", "crc", "page", "nothing"]
)
def test_damaged_archive_leaves_nothing(archive, serve, tmp_path, how):
    with pytest.raises(CorruptArchiveError, match="dev-clean is damaged"):
        prepare(tmp_path, serve(damage(archive, how)))
    assert not list((tmp_path / "data").iterdir())
    assert not (tmp_path / "save").exists()


def test_wrong_checksum_leaves_nothing(archive, serve, tmp_path):
    with pytest.raises(CorruptArchiveError, match="SHA-256"):
        prepare(tmp_path, serve(archive), sha256="0" * 64)
    assert not list((tmp_path / "data").iterdir())


def test_archive_of_another_split_is_refused(serve, tmp_path):
    source = make_libritts(tmp_path / "source", {"test-clean": 1})
    with pytest.raises(CorruptArchiveError, match="holds no dev-clean"):
        prepare(tmp_path, serve(tar_gz(source)))
    assert not list((tmp_path / "data").iterdir())


@pytest.mark.parametrize("kind", ["symlink", "outside"])
def test_hostile_archive_is_refused(serve, tmp_path, kind):
    source = make_libritts(tmp_path / "source", {"dev-clean": 1})
    if kind == "symlink":
        (source / "dev-clean" / "link").symlink_to("10")
        body = tar_gz(source)
    else:
        body = tar_gz(source, prefix="../../escaped")
    with pytest.raises(CorruptArchiveError):
        prepare(tmp_path, serve(body))
    assert {p.name for p in tmp_path.iterdir()} == {"data", "source"}
    assert not list((tmp_path / "data").iterdir())


def test_offline_message_says_what_to_do(tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    data = make_libritts(tmp_path / "data", {"test-clean": 1})
    before = snapshot(data)
    with pytest.raises(MissingDataError) as error:
        prepare_libritts(
            data, tmp_path / "save", url=f"http://127.0.0.1:{port}"
        )
    message = str(error.value)
    assert "train-clean-100, dev-clean." in message
    assert f"{data}/ and {data / 'LibriTTS'}/" in message
    assert "--data_folder=/path/to/LibriTTS" in message
    assert snapshot(data) == before
    assert not (tmp_path / "save").exists()


def test_absent_archive_leaves_nothing(archive, serve, tmp_path):
    server = serve(archive)
    with pytest.raises(MissingDataError, match="404"):
        prepare_libritts(tmp_path / "d", tmp_path / "s", url=server.url)
    assert not (tmp_path / "d").exists()


def test_download_can_be_switched_off(archive, serve, tmp_path):
    server = serve(archive)
    with pytest.raises(MissingDataError, match="switched off"):
        prepare(tmp_path, server, download=False)
    assert server.ranges == []


def test_unknown_split_is_refused_before_any_download(archive, serve, tmp_path):
    server = serve(archive)
    with pytest.raises(MissingDataError, match="dev-clena.*official ones are"):
        prepare_libritts(
            tmp_path / "data",
            tmp_path / "save",
            ["dev-clean"],
            ["dev-clena"],
            ["dev-clean"],
            url=server.url,
        )
    assert server.ranges == []


def test_the_tests_cannot_reach_the_network(tmp_path):
    with pytest.raises(AssertionError, match="tried to reach"):
        prepare_libritts(tmp_path / "data", tmp_path / "save")


def test_every_official_split_has_a_checksum():
    assert len(set(libritts_prepare.LIBRITTS_SHA256.values())) == 7
    for digest in libritts_prepare.LIBRITTS_SHA256.values():
        assert re.fullmatch("[0-9a-f]{64}", digest)
