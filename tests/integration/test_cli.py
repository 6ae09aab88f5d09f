"""The command line, with a tiny model of random weights."""

import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import threading
import time
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import soundfile
from corpus import speech_like
from tiny_model import make_tiny_model

from speechbrain_flowmac.bitstream import read_tokens, write_tokens
from speechbrain_flowmac.bitstream.version2 import Version2
from speechbrain_flowmac.cli import main

HOP = 512
HEADER_BYTES = 32
CHUNK_BYTES = 15
END_BYTES = 11
CHUNK_FRAMES = 47
LONG_SECONDS = 1200


def frames_of(samples):
    return -(-samples // HOP)


def bytes_of(samples, codebooks=8, channels=1):
    """Payload and file size of one stream with codes of 8 bits."""
    frames = frames_of(samples)
    payload = frames * codebooks * channels
    chunks = -(-frames // CHUNK_FRAMES)
    framing = chunks * CHUNK_BYTES + END_BYTES
    return payload, HEADER_BYTES + framing + payload


@pytest.fixture(scope="session")
def model(tmp_path_factory):
    return make_tiny_model(tmp_path_factory.mktemp("models") / "tiny")


@pytest.fixture(scope="session")
def options(model):
    return ["--model", str(model), "--device", "cpu", "--threads", "1"]


@pytest.fixture
def here(tmp_path, monkeypatch):
    """An empty folder to work in."""
    folder = tmp_path / "here"
    folder.mkdir()
    monkeypatch.chdir(folder)
    return folder


@pytest.fixture
def flowmac(here, capsys, options):
    """Runs a command in this process; all that needs a model gets ours."""

    def run(command, *argv, model_options=options):
        argv = [command, *map(str, argv)]
        if command not in ("transcode", "info", "export"):
            argv += model_options
        code = main(argv)
        captured = capsys.readouterr()
        return SimpleNamespace(code=code, out=captured.out, err=captured.err)

    return run


@pytest.fixture
def succeeds(flowmac):
    def run(*argv, **options):
        result = flowmac(*argv, **options)
        assert (result.code, result.err) == (0, "")
        return result.out

    return run


@pytest.fixture
def fails(flowmac, here):
    """Runs a command that must fail in one line and leave all as it was."""

    def run(code, text, *argv, **options):
        before = contents(here)
        result = flowmac(*argv, **options)
        assert result.code == code
        (line,) = result.err.splitlines()
        assert line.startswith("flowmac: error: ")
        assert text in line
        assert result.out == ""
        assert contents(here) == before

    return run


def contents(folder):
    """All files and folders in a folder, hidden ones too."""
    return {
        path.relative_to(folder).as_posix(): path.is_file()
        and path.read_bytes()
        for path in folder.rglob("*")
    }


def process(*argv, **options):
    """Runs a command in a process of its own."""
    return subprocess.run(
        [sys.executable, "-m", "speechbrain_flowmac.cli", *map(str, argv)],
        capture_output=True,
        **options,
    )


def write_audio(path, samples=24000, rate=24000, channels=1, seed=1, **how):
    signal_ = np.stack(
        [
            speech_like(samples / rate, seed + i, rate)[:samples]
            for i in range(channels)
        ],
        axis=1,
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, signal_, rate, **how)
    return path


def read_audio(path):
    return soundfile.read(path, dtype="float32", always_2d=True)[0]


# Round trips and sizes


@pytest.mark.parametrize("samples", [1, 511, 512, 513, 24064, 24065, 300000])
def test_encode_then_decode(succeeds, here, samples):
    write_audio(here / "a.wav", samples)
    line = succeeds("encode", "a.wav")
    payload, size = bytes_of(samples)
    assert (here / "a.fmac").stat().st_size == size
    assert line.startswith("a.wav -> a.fmac: ")
    for part in (
        f"{samples} samples,",
        f"{size} bytes (32 header + {size - payload - 32} framing + {payload} ",
        f"{8 * payload * 24 / samples:.3f} kbps payload",
        f"{8 * size * 24 / samples:.3f} kbps file",
        "real-time factor",
    ):
        assert part in line
    line = succeeds("decode", "a.fmac", "-o", "b.wav")
    assert "real-time factor" in line
    assert "1 function evaluation" in line
    found = soundfile.info("b.wav")
    assert (found.frames, found.samplerate, found.channels) == (
        samples,
        24000,
        1,
    )
    assert sorted(contents(here)) == ["a.fmac", "a.wav", "b.wav"]


def test_reconstruct_is_encode_then_decode(succeeds, here):
    write_audio(here / "a.wav", 30000)
    succeeds("encode", "a.wav", "--codebooks", 5)
    succeeds("decode", "a.fmac", "-o", "b.wav", "--seed", 3)
    line = succeeds("reconstruct", "a.wav", "--codebooks", 5, "--seed", 3)
    assert f"{bytes_of(30000, 5)[1]} bytes" in line
    assert (here / "a.flowmac.wav").read_bytes() == (
        here / "b.wav"
    ).read_bytes()


@pytest.mark.parametrize("codebooks", [1, 3, 8])
def test_transcode_is_encoding_with_fewer_codebooks(succeeds, here, codebooks):
    write_audio(here / "a.wav", 50000)
    succeeds("encode", "a.wav")
    succeeds("encode", "a.wav", "-o", "few.fmac", "--codebooks", codebooks)
    line = succeeds(
        "transcode", "a.fmac", "-o", "b.fmac", "--codebooks", codebooks
    )
    rate = 8 * bytes_of(50000, codebooks)[0] * 24 / 50000
    assert f"{rate:.3f} kbps payload" in line
    assert (here / "b.fmac").read_bytes() == (here / "few.fmac").read_bytes()
    assert (here / "b.fmac").stat().st_size == bytes_of(50000, codebooks)[1]
    succeeds("decode", "b.fmac")
    assert len(read_audio("b.wav")) == 50000


@pytest.mark.parametrize(
    "rate, subtype",
    [(16000, "PCM_16"), (44100, "FLOAT"), (48000, "PCM_24"), (8000, "PCM_U8")],
)
@pytest.mark.parametrize("samples", [1, 16001])
def test_other_rates_are_resampled(succeeds, here, rate, subtype, samples):
    write_audio(here / "a.wav", samples, rate, subtype=subtype)
    succeeds("reconstruct", "a.wav", "-o", "b.wav")
    assert len(read_audio("b.wav")) == -(-samples * 24000 // rate)


def test_lossless_formats_code_alike(succeeds, here):
    write_audio(here / "a.wav", 30000, subtype="PCM_16")
    soundfile.write("b.flac", *soundfile.read("a.wav", dtype="int16"))
    succeeds("encode", "a.wav", "b.flac", "-o", "out")
    a, b = (here / "out" / name for name in ("a.fmac", "b.fmac"))
    assert a.read_bytes() == b.read_bytes()


@pytest.mark.parametrize("ending", [".ogg", ".mp3", ".flac", ".aiff"])
def test_other_formats_in_and_out(succeeds, here, ending):
    write_audio(here / f"a{ending}", 30000)
    succeeds("encode", f"a{ending}")
    succeeds("decode", "a.fmac", "-o", f"b{ending}")
    assert soundfile.info(f"b{ending}").frames == 30000
    assert soundfile.info(f"b{ending}").format == ending[1:].upper()


def test_channels(succeeds, here):
    write_audio(here / "a.wav", 30000, channels=2)
    line = succeeds("encode", "a.wav", "--channels", "each")
    payload, size = bytes_of(30000, channels=2)
    assert f"{8 * payload * 24 / 30000:.3f} kbps payload" in line
    assert (here / "a.fmac").stat().st_size == size
    succeeds("decode", "a.fmac", "-o", "both.wav")
    both = read_audio("both.wav")
    assert both.shape == (30000, 2)
    for channel in range(2):
        soundfile.write("one.wav", read_audio("a.wav")[:, channel], 24000)
        succeeds("reconstruct", "one.wav", "-o", "x.wav", "--overwrite")
        # two signals in one batch round differently
        np.testing.assert_allclose(
            both[:, channel], read_audio("x.wav")[:, 0], atol=1e-3
        )
    line = succeeds("reconstruct", "a.wav", "-o", "mixed.wav")
    assert f"{8 * bytes_of(30000)[0] * 24 / 30000:.3f} kbps payload" in line
    assert read_audio("mixed.wav").shape == (30000, 1)


def test_seeds(succeeds, here):
    write_audio(here / "a.wav")
    succeeds("encode", "a.wav")
    succeeds("encode", "a.wav", "-o", "again.fmac")
    assert (here / "a.fmac").read_bytes() == (here / "again.fmac").read_bytes()
    for name, seed in (("b", 5), ("c", 5), ("d", 6)):
        succeeds("decode", "a.fmac", "-o", f"{name}.wav", "--seed", seed)
    b, c, d = (read_audio(f"{name}.wav") for name in "bcd")
    assert np.array_equal(b, c)
    assert not np.array_equal(b, d)


def test_solver(succeeds, here):
    write_audio(here / "a.wav")
    succeeds("encode", "a.wav")
    sounds = []
    for steps, solver, count in ((0, "euler", 0), (4, "midpoint", 8)):
        line = succeeds(
            *("decode", "a.fmac", "-o", f"{solver}.wav"),
            *("--steps", steps, "--solver", solver),
        )
        assert f", {count} function evaluations" in line
        sounds.append(read_audio(f"{solver}.wav"))
    assert not np.array_equal(*sounds)


def test_temperature(succeeds, here):
    write_audio(here / "a.wav")
    succeeds("encode", "a.wav")
    sounds = []
    for temperature in (0, 1):
        succeeds(
            *("decode", "a.fmac", "-o", "b.wav", "--overwrite"),
            *("--steps", 2, "--temperature", temperature),
        )
        sounds.append(read_audio("b.wav"))
    assert not np.array_equal(*sounds)


# Where files come from and go to


def test_pipes(succeeds, here, options):
    write_audio(here / "a.wav", 30000)
    succeeds("encode", "a.wav")
    succeeds("decode", "a.fmac", "-o", "b.wav")
    coded = process(
        "encode", "-", *options, input=(here / "a.wav").read_bytes()
    )
    assert (coded.returncode, coded.stdout) == (
        0,
        (here / "a.fmac").read_bytes(),
    )
    assert coded.stderr.decode().startswith("- -> -: 1.250 s, 30000 samples")
    assert len(coded.stderr.splitlines()) == 1
    decoded = process("decode", "-", "-o", "-", *options, input=coded.stdout)
    assert decoded.returncode == 0
    # a pipe's header cannot state a length
    unstated = bytearray((here / "b.wav").read_bytes())
    unstated[4:8] = unstated[40:44] = bytes([255] * 4)
    assert decoded.stdout == unstated
    assert len(decoded.stderr.splitlines()) == 1
    decoded = process("decode", "a.fmac", "-o", "-", *options)
    assert decoded.stdout == (here / "b.wav").read_bytes()
    few = process(
        *("transcode", "-", "-o", "-", "--codebooks", "2"),
        input=coded.stdout,
    )
    assert len(few.stdout) == bytes_of(30000, 2)[1]
    found = process("info", "-", "--json", input=few.stdout)
    assert json.loads(found.stdout)[0]["codebooks"] == 2


def test_a_pipe_must_end_with_the_stream(fails, stream, monkeypatch):
    good = stream.read_bytes()
    for bad, text in ((good[:-1], "trailer"), (good + b"x", "found more")):
        read_end, write_end = os.pipe()
        os.write(write_end, bad)
        os.close(write_end)
        with os.fdopen(read_end, "rb") as pipe:
            monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=pipe))
            fails(1, text, "decode", "-", "-o", "b.wav")


@pytest.mark.parametrize(
    "argv, source, size",
    # more than the header
    [("encode", "a.wav", 33), ("decode -o -", "a.fmac", 45)],
)
def test_a_pipe_gets_the_first_part_before_the_last_is_known(
    succeeds, here, options, argv, source, size
):
    write_audio(here / "a.wav", 40 * 24000)
    succeeds("encode", "a.wav")
    data = (here / source).read_bytes()
    command, *argv = argv.split()
    whole = process(command, "-", *argv, *options, input=data)
    assert whole.returncode == 0
    running = subprocess.Popen(
        [sys.executable, "-m", "speechbrain_flowmac.cli", command, "-"]
        + [*argv, *options],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    patience = threading.Timer(120, running.kill)
    patience.start()
    # long enough for a chunk and what it depends on
    first = len(data) * 3 // 4
    running.stdin.write(data[:first])
    running.stdin.flush()
    found = running.stdout.read(size)
    assert len(found) == size and running.poll() is None
    with running:
        running.stdin.write(data[first:])
        running.stdin.close()
        found += running.stdout.read()
    patience.cancel()
    assert (running.returncode, found) == (0, whole.stdout)


@pytest.fixture
def tree(here):
    for name in ("in/a.wav", "in/deep/b.flac", "in/deep/er/c.wav"):
        write_audio(here / name, 2000)
    (here / "in/notes.txt").write_text("no audio")
    return here


def test_folders_are_mirrored(succeeds, tree):
    lines = succeeds("encode", "in", "-o", "coded").splitlines()
    assert len(lines) == 3
    succeeds("decode", "coded", "-o", "new/decoded")
    assert {n for n, held in contents(tree / "new").items() if held} == {
        "decoded/a.wav",
        "decoded/deep/b.wav",
        "decoded/deep/er/c.wav",
    }


def test_patterns_are_expanded(succeeds, tree):
    succeeds("encode", "in/**/*.wav", "-o", "coded")
    assert {n for n, held in contents(tree / "coded").items() if held} == {
        "a.fmac",
        "deep/er/c.fmac",
    }


def test_without_an_output_files_go_beside_their_input(succeeds, tree):
    succeeds("encode", "in")
    assert (tree / "in/deep/b.fmac").is_file()
    succeeds("encode", "in/a.wav", "-o", "in/deep")
    assert (tree / "in/deep/a.fmac").is_file()
    succeeds("encode", "in/a.wav", "-o", "made/")
    assert (tree / "made/a.fmac").is_file()


def test_a_name_that_looks_like_a_pattern(succeeds, here):
    write_audio(here / "a[1].wav", 2000)
    write_audio(here / "a1.wav", 2000)
    succeeds("encode", "a[1].wav", "-o", "b.fmac")
    assert sorted(contents(here)) == ["a1.wav", "a[1].wav", "b.fmac"]


def test_a_batch_goes_on_after_a_failure(flowmac, tree):
    result = flowmac(
        "encode", "in/a.wav", "in/notes.txt", "in/deep", "-o", "out"
    )
    assert result.code == 1
    assert len(result.out.splitlines()) == 3
    first, last = result.err.splitlines()
    assert first.startswith("flowmac: error: ") and "notes.txt" in first
    assert last == "flowmac: error: 1 of 4 files failed: in/notes.txt"
    assert len([held for held in contents(tree / "out").values() if held]) == 3


def test_the_folder_of_a_failure_is_not_left(fails, here):
    (here / "a.wav").write_bytes(b"no audio")
    fails(1, "cannot read a.wav", "encode", "a.wav", "-o", "new/er/")


def test_overwrite(succeeds, fails, here):
    write_audio(here / "a.wav", 2000)
    (here / "a.fmac").write_bytes(b"old")
    fails(2, "a.fmac exists", "encode", "a.wav")
    fails(2, "a.wav is an input", "encode", "a.wav", "-o", "a.wav")
    fails(
        *(2, "a.wav is an input"),
        *("encode", "a.wav", "-o", "./a.wav", "--overwrite"),
    )
    succeeds("encode", "a.wav", "--overwrite")
    assert (here / "a.fmac").stat().st_size == bytes_of(2000)[1]


def test_clashes(fails, tree):
    write_audio(tree / "in/a.flac", 2000)
    fails(2, "would both become", "encode", "in", "-o", "out")
    fails(
        2, "would both become", "encode", "in/a.wav", "in/a.flac", "-o", "out"
    )
    fails(2, "notes.txt is a file", "encode", "in", "-o", "in/notes.txt")
    fails(2, "no such folder", "encode", "in/a.wav", "-o", "no/b.fmac")
    fails(2, "single file", "encode", "in", "-o", "-")
    fails(2, "only input", "encode", "-", "in/a.wav", "-o", "out")
    (tree / "in/b.fmac").mkdir()
    fails(
        *(2, "is a folder"),
        *("encode", "in/deep/b.flac", "in/a.wav", "-o", "in", "--overwrite"),
    )


ODD_NAMES = {
    "not UTF-8": b"caf\xe9 \xff.wav",
    "Chinese": "\u8bed\u97f3.wav".encode(),
    "an escape sequence": b"\x1b[31mred\x07.wav",
    "two lines": b"a\nb.wav",
    "emoji": "\U0001f3a7.wav".encode(),
}


@pytest.mark.parametrize("encoding", ["utf-8", "ascii", "cp1252"])
def test_names_of_any_bytes_are_coded(here, options, encoding):
    for name in ODD_NAMES.values():
        path = os.path.join(os.fsencode(here), b"in", name)
        write_audio(here / "a.wav", 2000)
        os.makedirs(os.path.dirname(path), exist_ok=True)
        os.rename(here / "a.wav", path)
    (here / "in" / "bad\udcfe.wav").write_bytes(b"no audio")
    environment = os.environ | {"PYTHONIOENCODING": encoding}
    done = process("encode", "in", "-o", "out", *options, env=environment)
    assert done.returncode == 1
    coded = set(os.listdir(os.fsencode(here / "out")))
    names = {os.path.splitext(name)[0] for name in ODD_NAMES.values()}
    assert coded == {name + b".fmac" for name in names}
    lines = done.stdout.decode(encoding).splitlines()
    assert len(lines) == len(ODD_NAMES)
    assert all(line.isprintable() for line in lines)
    assert any("caf" in line and "\\udcff" in line for line in lines)
    first, last = done.stderr.decode("ascii").splitlines()
    assert "cannot read in/bad\\udcfe.wav" in first
    assert last.endswith("files failed: in/bad\\udcfe.wav")
    done = process("decode", "out", "-o", "again", *options, env=environment)
    assert (done.returncode, done.stderr) == (0, b"")
    decoded = set(os.listdir(os.fsencode(here / "again")))
    assert decoded == set(ODD_NAMES.values())
    about = process("info", "out", env=environment)
    assert (about.returncode, about.stderr) == (0, b"")
    assert about.stdout.decode(encoding).count("version 2") == len(ODD_NAMES)


@pytest.mark.parametrize("kind", ["wav", "flac", "mp3"])
def test_a_cut_file_is_coded_and_said_so(succeeds, here, kind):
    path = write_audio(here / f"a.{kind}", 240_000)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    line = succeeds("encode", path.name)
    assert "its header claims 10.0" in line and "s are there" in line
    summary = read_tokens(here / "a.fmac")[0]
    assert 0.4 * 240_000 < summary.num_samples < 0.6 * 240_000


# Bad input


def test_missing_inputs(fails, here):
    (here / "empty").mkdir()
    write_audio(here / "a.wav", 2000)
    fails(2, "no such file: b.wav", "encode", "a.wav", "b.wav", "-o", "out")
    fails(2, "no such file: *.flac", "encode", "*.flac", "-o", "out")
    fails(2, "folder empty", "encode", "empty", "-o", "out")
    fails(2, "no such file: a.fmac", "decode", "a.fmac")
    fails(2, "no such file: a.fmac", "info", "a.fmac")


def test_bad_audio(fails, here):
    soundfile.write("empty.wav", np.zeros(0), 24000)
    fails(1, "holds no samples", "encode", "empty.wav")
    (here / "text.wav").write_text("This is no audio. " * 100)
    fails(1, "cannot read text.wav", "encode", "text.wav")
    fails(1, "cannot read text.wav", "reconstruct", "text.wav")
    wrong = np.zeros(2000, np.float32)
    wrong[1000] = np.nan
    soundfile.write("nan.wav", wrong, 24000, subtype="FLOAT")
    fails(1, "nan.wav", "encode", "nan.wav")


@pytest.fixture
def stream(succeeds, here):
    """A stream of 200 frames, so of 5 chunks; its audio is taken away."""
    write_audio(here / "a.wav", 200 * HOP)
    succeeds("encode", "a.wav")
    (here / "a.wav").unlink()
    return here / "a.fmac"


def chunk_at(index):
    """Offset of a chunk of a mono stream of 8 codebooks."""
    return HEADER_BYTES + index * (CHUNK_BYTES + CHUNK_FRAMES * 8)


def flip(data, place):
    changed = bytearray(data)
    changed[place] ^= 1
    return bytes(changed)


DAMAGES = {
    "codes": (lambda data: flip(data, chunk_at(1) + 19), 1, "CRC-32"),
    "a head": (lambda data: flip(data, chunk_at(1) + 9), 1, "missing"),
    "a chunk is gone": (
        lambda data: data[: chunk_at(1)] + data[chunk_at(2) :],
        1,
        "missing",
    ),
}


@pytest.mark.parametrize("name", DAMAGES)
def test_damage(fails, succeeds, flowmac, stream, here, name):
    damage, lost, text = DAMAGES[name]
    succeeds("decode", "a.fmac", "-o", "good.wav")
    good = read_audio("good.wav")
    stream.write_bytes(damage(stream.read_bytes()))
    fails(1, text, "decode", "a.fmac")
    fails(1, text, "transcode", "a.fmac", "-o", "b.fmac", "--codebooks", 2)
    line = succeeds("decode", "a.fmac", "--on-damage", "conceal")
    assert f"{lost} of 5 chunks damaged and concealed" in line
    heard = read_audio("a.wav")
    assert heard.shape == good.shape
    assert not np.array_equal(heard, good)
    result = flowmac("info", "a.fmac", "--json")
    assert result.code == 1
    assert f"{lost} of 5 chunks" in result.err
    assert json.loads(result.out)[0]["damaged_chunks"] == lost


def test_what_is_there_of_a_cut_stream_is_decoded(
    fails, flowmac, succeeds, stream
):
    stream.write_bytes(stream.read_bytes()[: chunk_at(2)])
    fails(1, "it was cut", "decode", "a.fmac")
    line = succeeds("decode", "a.fmac", "--on-damage", "conceal")
    assert "the end is missing" in line
    assert len(read_audio("a.wav")) == 2 * CHUNK_FRAMES * HOP
    result = flowmac("info", "a.fmac")
    assert result.code == 1 and "the end is missing" in result.err
    stream.write_bytes(stream.read_bytes()[:HEADER_BYTES])
    fails(*(1, "no frames", "decode", "a.fmac", "-o", "b.wav"), "--conceal-all")


def version_1(stream):
    """The same tokens in a stream of version 1."""
    summary, tokens, _ = read_tokens(stream)
    header = replace(summary.header, num_samples=summary.num_samples)
    return write_tokens(stream, header, tokens)


def test_version_1_is_read_and_stays_version_1(
    fails, flowmac, succeeds, stream
):
    succeeds("decode", "a.fmac", "-o", "new.wav")
    assert version_1(stream).stream_bytes == stream.stat().st_size == 1660
    succeeds("decode", "a.fmac", "-o", "old.wav")
    np.testing.assert_array_equal(read_audio("new.wav"), read_audio("old.wav"))
    line = succeeds("transcode", "a.fmac", "-o", "b.fmac", "--codebooks", 2)
    assert "460 bytes (40 header + 20 framing + 400 payload)" in line
    (found,) = json.loads(succeeds("info", "b.fmac", "--json"))
    assert (found["version"], found["file_bytes"]) == (1, 460)
    stream.write_bytes(stream.read_bytes()[: HEADER_BYTES + 8])
    option = ("--on-damage", "conceal")
    fails(1, "1660 bytes, found 40", "decode", "a.fmac", *option)
    line = succeeds("decode", "a.fmac", "--conceal-all")
    assert "5 of 5 chunks damaged and concealed" in line


def test_what_follows_the_stream_is_refused(fails, flowmac, succeeds, stream):
    stream.write_bytes(stream.read_bytes() + b"more")
    fails(1, "4 bytes follow", "decode", "a.fmac")
    result = flowmac("info", "a.fmac")
    assert (result.code, len(result.err.splitlines())) == (1, 1)
    assert "4 bytes follow" in result.err
    succeeds("decode", "a.fmac", "--on-damage", "conceal")


@pytest.mark.parametrize("policy", ["raise", "conceal"])
def test_without_a_whole_header_nothing_is_decoded(fails, stream, policy):
    data = stream.read_bytes()
    for bad, text in (
        (b"", "found 0"),
        (data[:20], "found 20"),
        (b"RIFF" + data[4:], "an .fmac file begins with"),
        (flip(data, 5), "CRC-32"),
        (data[:4] + b"\x09" + data[5:], "version 9"),
    ):
        stream.write_bytes(bad)
        fails(1, text, "decode", "a.fmac", "--on-damage", policy)


def test_info_goes_on_after_a_bad_file(flowmac, stream, here):
    (here / "bad.fmac").write_bytes(b"nothing")
    result = flowmac("info", ".")
    assert result.code == 1
    assert result.err.startswith("flowmac: error: bad.fmac: an .fmac file")
    assert result.out.startswith("a.fmac, version 2\n")
    found = json.loads(flowmac("info", ".", "--json").out)
    assert [about["file"] for about in found] == ["a.fmac"]


def test_info(succeeds, stream):
    (found,) = json.loads(succeeds("info", "a.fmac", "--json"))
    fingerprint = found.pop("fingerprint")
    assert len(bytes.fromhex(fingerprint)) == 8
    assert found == {
        "file": "a.fmac",
        "seconds": 200 * HOP / 24000,
        "samples": 200 * HOP,
        "sample_rate": 24000,
        "channels": 1,
        "frames": 200,
        "hop_length": HOP,
        "frame_rate": 46.875,
        "codebooks": 8,
        "bits_per_code": 8,
        "first_code_bits": 8,
        "runs": False,
        "version": 2,
        "chunks": 5,
        "frames_per_chunk": CHUNK_FRAMES,
        "header_bytes": 32,
        "framing_bytes": 86,
        "payload_bytes": 1600,
        "file_bytes": 1718,
        "payload_bit_rate": 3000.0,
        "file_bit_rate": 3221.25,
        "damaged_chunks": 0,
        "complete": True,
        "trailing_bytes": 0,
    }
    text = succeeds("info", "a.fmac")
    for part in (
        "1718 bytes (32 header + 86 framing + 1600 payload), 3.221 kbps",
        "1600 bytes, 3.000 kbps",
        fingerprint,
    ):
        assert part in text


def test_the_stream_of_another_model_is_refused(fails, stream, tmp_path):
    other = make_tiny_model(tmp_path / "other", seed=1)
    argv = ["--model", str(other), "--device", "cpu"]
    fails(1, "another model", "decode", "a.fmac", model_options=argv)


@pytest.mark.parametrize("version", [1, 2])
@pytest.mark.parametrize("policy", ["raise", "conceal", "conceal-all"])
@pytest.mark.parametrize(
    "text, lie",
    [
        ("hop length 256", {"hop_length": 256}),
        ("sample rate 48000", {"sample_rate": 48000}),
        ("sample rate 4294967295", {"sample_rate": 2**32 - 1}),
        ("bits per code 9", {"bits_per_code": 9}),
        ("9 codebooks", {"num_codebooks": 9}),
        ("another model", {"fingerprint": bytes(8)}),
    ],
)
def test_a_header_that_lies_writes_nothing(
    fails, here, stream, policy, version, text, lie
):
    summary, tokens, _ = read_tokens(stream)
    samples = 100_000 if version == 1 else None
    header = replace(summary.header, num_samples=samples, **lie)
    frames = -(-100_000 // header.hop_length)
    tokens = np.zeros(header.chunk_shape(frames), np.int64)
    write_tokens(stream, header, tokens)
    option = ["--on-damage", policy]
    if policy == "conceal-all":
        option = ["--conceal-all"]
    fails(1, text, "decode", "a.fmac", *option)


@pytest.mark.parametrize("version", [1, 2])
def test_a_header_that_claims_years_is_not_believed(fails, stream, version):
    header = read_tokens(stream)[0].header
    layout = Version2(header)
    if version == 1:
        header = replace(header, num_samples=(2**32 - 1) * HOP)
    stream.write_bytes(header.to_bytes())
    if version == 2:
        end = layout.end(2**32 - 1, (2**32 - 1) * HOP)
        stream.write_bytes(header.to_bytes() + end)
    start = time.process_time()
    fails(1, "--conceal-all", "decode", "a.fmac", "--on-damage", "conceal")
    assert time.process_time() - start < 5


# Bad options


@pytest.mark.parametrize(
    "text, argv",
    [
        ("codebooks", ["encode", "a.wav", "--codebooks", 9]),
        ("1..255", ["encode", "a.wav", "--codebooks", 0]),
        ("1..255", ["encode", "a.wav", "--codebooks", "two"]),
        ("--channels", ["encode", "a.wav", "--channels", "left"]),
        ("solver", ["reconstruct", "a.wav", "--solver", "newton"]),
        ("0..", ["reconstruct", "a.wav", "--steps", -1]),
        ("0..", ["reconstruct", "a.wav", "--seed", 2**64]),
        ("0 or more", ["reconstruct", "a.wav", "--guidance", "nan"]),
        ("condition_dropout", ["reconstruct", "a.wav", "--guidance", 1]),
        ("0..1", ["reconstruct", "a.wav", "--rescale", 2]),
        ("0 or more", ["reconstruct", "a.wav", "--temperature", "-1"]),
        ("0 or more", ["reconstruct", "a.wav", "--spread", "-1"]),
        ("use spread=0", ["reconstruct", "a.wav", "--spread", 1]),
        ("must be one of", ["reconstruct", "a.wav", "-o", "b.xyz"]),
        ("--on-damage", ["decode", "a.wav", "--on-damage", "ignore"]),
        ("--nonsense", ["encode", "a.wav", "--nonsense"]),
        ("--codebooks", ["transcode", "a.wav", "-o", "b.fmac"]),
        ("invalid choice", ["nonsense"]),
    ],
)
def test_bad_options(fails, here, text, argv):
    write_audio(here / "a.wav", 2000)
    fails(2, text, *argv)


def test_a_model_or_device_that_is_not_there(fails, here, model):
    write_audio(here / "a.wav", 2000)
    for text, *argv in (
        ("flowmac-24khz-3kbs", "--model", "flowmac-24khz-3kbs"),
        ("hyperparams.yaml", "--model", str(here)),
        ("'warp'", "--model", str(model), "--device", "warp"),
        ("'cpu:x'", "--model", str(model), "--device", "cpu:x"),
    ):
        fails(2, text, "encode", "a.wav", model_options=argv)


def test_no_more_codebooks_than_the_stream_has(fails, stream):
    fails(
        *(1, "1..8, found 9"),
        *("transcode", "a.fmac", "-o", "b.fmac", "--codebooks", 9),
    )


def test_debug_shows_where(flowmac, here):
    (here / "a.wav").write_bytes(b"no audio")
    result = flowmac("encode", "a.wav", "--debug")
    assert result.code == 1
    assert "Traceback" in result.err
    assert result.err.splitlines()[-1].startswith("flowmac: error: ")


def test_help_and_version(capsys):
    for argv in (["--help"], ["decode", "--help"], ["--version"]):
        assert main(argv) == 0
        assert capsys.readouterr().out


@pytest.mark.parametrize("argv", [["--help"], ["encode", "--help"]])
def test_help_is_quick_because_it_imports_nothing_of_others(argv):
    script = (
        "import sys\n"
        "before = set(sys.modules)\n"
        "from speechbrain_flowmac.cli import main\n"
        "assert main(sys.argv[1:]) == 0\n"
        "found = {x.partition('.')[0] for x in set(sys.modules) - before}\n"
        "found -= sys.stdlib_module_names\n"
        "print(*found, file=sys.stderr)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, *argv], check=True, capture_output=True
    )
    assert done.stderr.split() == [b"speechbrain_flowmac"]


# The demo and the export


def test_demo(succeeds, fails, here, model, options, tmp_path):
    whole = tmp_path / "whole"
    shutil.copytree(model, whole)
    write_audio(whole / "example.wav", 30000)
    ours = [*options, "--model", str(whole)]
    out = succeeds("demo", model_options=ours)
    for part in ("3.021 kbps", "real-time factor", "decoded.wav"):
        assert part in out
    assert {n for n, held in contents(here).items() if held} == {
        "flowmac_demo/original.wav",
        "flowmac_demo/coded.fmac",
        "flowmac_demo/decoded.wav",
    }
    demo = here / "flowmac_demo"
    assert (demo / "coded.fmac").stat().st_size == bytes_of(30000)[1]
    assert len(read_audio(demo / "decoded.wav")) == 30000
    succeeds("reconstruct", demo / "original.wav", "-o", "b.wav")
    assert (here / "b.wav").read_bytes() == (demo / "decoded.wav").read_bytes()
    fails(2, "exists", "demo", model_options=ours)
    succeeds("demo", "--overwrite", model_options=ours)


def test_demo_without_an_example(fails):
    fails(2, "comes without example.wav", "demo")


def make_run(folder, model, name):
    """A folder as a training leaves it, of a part of a model."""
    import torch
    from hyperpyyaml import load_hyperpyyaml, resolve_references
    from safetensors.torch import load_file
    from speechbrain.utils.checkpoints import Checkpointer

    text = (model / "hyperparams.yaml").read_text()
    module = load_hyperpyyaml(text)[name]
    module.load_state_dict(load_file(str(model / f"{name}.safetensors")))
    folder.mkdir()
    resolved = resolve_references(text).read()
    (folder / "hyperparams.yaml").write_text(resolved)
    ema = torch.nn.ModuleDict({"module": module})
    keeper = Checkpointer(folder / "save", {"ema": ema})
    keeper.save_checkpoint(meta={"loss": 1.0})


def test_export(succeeds, fails, here, model):
    make_run(here / "codec_run", model, "codec")
    make_run(here / "vocoder_run", model, "vocoder")
    argv = ["export", "codec_run", "vocoder_run", "made"]
    assert "3.000 kbps" in succeeds(*argv)
    write_audio(here / "a.wav", 2000)
    succeeds("reconstruct", "a.wav", model_options=["--model", "made"])
    fails(2, "made exists", *argv)
    succeeds(*argv, "--overwrite")


def test_export_refuses(fails, here, model):
    make_run(here / "codec_run", model, "codec")
    make_run(here / "vocoder_run", model, "vocoder")
    (here / "empty").mkdir()
    runs = ["codec_run", "vocoder_run"]
    for pair in (["nowhere", runs[1]], [runs[0], "nowhere"]):
        fails(2, "no such folder: nowhere", "export", *pair, "made")
    for pair in (["empty", runs[1]], [runs[0], "empty"]):
        fails(2, "neither a training folder nor", "export", *pair, "made")
    assert not (here / "made").exists()
    fails(2, "no such file: card", "export", *runs, "made", "--card", "card")
    (here / "mine").mkdir()
    (here / "mine" / "thesis.txt").write_text("years of work")
    fails(2, "exists", "export", *runs, "mine")
    fails(2, "thesis.txt", "export", *runs, "mine", "--overwrite")


# Limits


def test_what_needs_no_model_imports_no_torch(here, succeeds):
    write_audio(here / "a.wav", 2000)
    succeeds("encode", "a.wav")
    script = (
        "import sys\n"
        "from speechbrain_flowmac.cli import main\n"
        "main(['info', 'a.fmac'])\n"
        "main('transcode a.fmac -o b.fmac --codebooks 1'.split())\n"
        "assert 'torch' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", script], check=True)


def test_a_full_disk(fails, here, succeeds):
    write_audio(here / "a.wav", 100_000)
    succeeds("encode", "a.wav")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (60_000, before[1]))
    try:
        fails(1, "File too large", "decode", "a.fmac", "-o", "new/")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.fixture(scope="session")
def long_audio(tmp_path_factory):
    """Paths of a minute and of 20 minutes of audio."""
    folder = tmp_path_factory.mktemp("long")
    minute = speech_like(60, seed=1)
    for name, repeats in (("short", 1), ("long", LONG_SECONDS // 60)):
        with soundfile.SoundFile(folder / f"{name}.wav", "w", 24000, 1) as f:
            for _ in range(repeats):
                f.write(minute)
    return folder


def peak_memory(path, folder, options):
    """Bytes that coding and decoding a file took at most."""
    script = (
        "import resource, sys\n"
        "from speechbrain_flowmac.cli import main\n"
        "source, coded, decoded, *options = sys.argv[1:]\n"
        "assert main(['encode', source, '-o', coded, *options]) == 0\n"
        "assert main(['decode', coded, '-o', decoded, *options]) == 0\n"
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)\n"
    )
    coded, decoded = folder / f"{path.stem}.fmac", folder / path.name
    result = subprocess.run(
        [sys.executable, "-c", script, path, coded, decoded, *options],
        check=True,
        capture_output=True,
    )
    samples = soundfile.info(path).frames
    assert soundfile.info(decoded).frames == samples
    assert coded.stat().st_size == bytes_of(samples)[1]
    return 1024 * int(result.stdout.splitlines()[-1])


def test_memory_does_not_grow_with_length(here, long_audio, options):
    short, long = (
        peak_memory(long_audio / f"{name}.wav", here, options)
        for name in ("short", "long")
    )
    # 20 minutes are 115 MB as float32
    assert long - short < 40e6


@pytest.mark.parametrize(
    "number, code", [(signal.SIGINT, 130), (signal.SIGTERM, 143)]
)
def test_a_signal_leaves_nothing(here, long_audio, options, number, code):
    running = subprocess.Popen(
        [sys.executable, "-m", "speechbrain_flowmac.cli", "reconstruct"]
        + [str(long_audio / "long.wav"), "-o", "new/", *options],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        # what a shell runs in the background ignores SIGINT, and so would this
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    limit = time.monotonic() + 60
    while not list(here.rglob("*.tmp")):
        assert running.poll() is None and time.monotonic() < limit
        time.sleep(0.05)
    running.send_signal(number)
    out, err = running.communicate(timeout=60)
    assert running.returncode == code
    assert (out, err) == (b"", b"")
    assert contents(here) == {}


# A dynamic frame rate


def test_frames_that_last_are_coded_told_and_decoded(succeeds, here, tmp_path):
    model = make_tiny_model(tmp_path / "dynamic", dynamic=True)
    options = ["--model", str(model), "--device", "cpu"]
    soundfile.write("a.wav", speech_like(3.0, seed=1), 24000)
    sizes = []
    for name, more in (
        ("all.fmac", ["--merging-threshold", "1"]),
        ("few.fmac", ["--frame-rate", "6.25"]),
    ):
        succeeds(*("encode", "a.wav", "-o", name, *more), model_options=options)
        (found,) = json.loads(succeeds("info", name, "--json"))
        assert found["runs"] and found["first_code_bits"] == 9
        sizes.append(found["payload_bytes"])
    assert sizes[1] < 0.5 * sizes[0]
    text = succeeds("info", "few.fmac")
    assert "4 of 4 bits, the first of 9" in text
    assert "23.4375 per second, not again those that repeat" in text
    succeeds("decode", "few.fmac", "-o", "b.wav", model_options=options)
    assert soundfile.info("b.wav").frames == 72000


def test_codecs_with_a_fixed_rate_refuse_another(fails, here):
    soundfile.write("a.wav", speech_like(0.5, seed=1), 24000)
    fails(2, "fixed frame rate", "encode", "a.wav", "--frame-rate", "6.25")
