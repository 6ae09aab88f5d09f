"""Codecs of others: bits counted exactly, failures told, nothing left over."""

import os
import struct
import sys
import tempfile
import time
from io import BytesIO

import numpy as np
import pytest
import soundfile
import soxr
from corpus import speech_like
from hypothesis import given, settings, strategies as st

from speechbrain_flowmac.evaluation.systems import (
    Coded,
    Recording,
    UnavailableError,
    amrwb,
    make_system,
    ogg,
    programs,
)
from speechbrain_flowmac.models.loading import MODELS_FOLDER

EXAMPLE = MODELS_FOLDER / "flowmac-24khz-3kbps" / "example.wav"
# bits and milliseconds of a frame
CODEC2_FRAMES = {
    "3200": (64, 20),
    "2400": (48, 20),
    "1600": (64, 40),
    "1400": (56, 40),
    "1300": (52, 40),
    "1200": (48, 40),
    "700C": (28, 40),
    "450": (18, 40),
}
# 3GPP TS 26.201
AMRWB_FRAME_BITS = {
    "6.60": 132,
    "8.85": 177,
    "12.65": 253,
    "14.25": 285,
    "15.85": 317,
    "18.25": 365,
    "19.85": 397,
    "23.05": 461,
    "23.85": 477,
}


def make_ogg(contents, segments_per_page=255):
    """An Ogg stream as bytes, with no checksums."""
    segments = []
    for content in contents:
        parts = [content[i : i + 255] for i in range(0, len(content), 255)]
        if len(content) % 255 == 0:
            parts.append(b"")
        segments += [(i > 0, part) for i, part in enumerate(parts)]
    pages = []
    for start in range(0, len(segments), segments_per_page):
        page = segments[start : start + segments_per_page]
        continued = page[0][0]
        pages.append(
            b"OggS\0"
            + bytes([continued])
            + bytes(20)
            + bytes([len(page)])
            + bytes(len(part) for _, part in page)
            + b"".join(part for _, part in page)
        )
    return pages


def recording(sample_rate, samples, name="speech.wav"):
    """Speech-like noise and tones."""
    signal = speech_like(samples / sample_rate + 1e-3, 3, sample_rate)
    return Recording(name, signal[:samples].astype(float), sample_rate)


def opus_seconds(packet):
    """Duration of a packet of one frame (RFC 6716, section 3.1)."""
    config, frames = packet[0] >> 3, packet[0] & 3
    assert frames == 0
    if config < 12:
        return (0.01, 0.02, 0.04, 0.06)[config % 4]
    if config < 16:
        return (0.01, 0.02)[config % 2]
    return (0.0025, 0.005, 0.01, 0.02)[config % 4]


# ---- Ogg


@pytest.mark.parametrize("size", [0, 1, 254, 255, 256, 509, 510, 511, 65025])
@pytest.mark.parametrize("segments_per_page", [1, 2, 255])
def test_a_packet_of_any_size_is_whole(size, segments_per_page):
    contents = [b"first", bytes(range(256)) * 255, b"x" * size, b"last"]
    stream = b"".join(make_ogg(contents, segments_per_page))
    assert ogg.packets(stream) == contents


@settings(deadline=None, max_examples=60)
@given(
    st.lists(st.integers(0, 1200).map(lambda n: b"\xa7" * n)),
    st.integers(1, 255),
)
def test_packets_come_back_from_any_pages(contents, segments_per_page):
    stream = b"".join(make_ogg(contents, segments_per_page))
    assert ogg.packets(stream) == contents


@pytest.mark.parametrize(
    ("subtype", "headers"),
    [
        ("OPUS", [b"OpusHead", b"OpusTags"]),
        ("VORBIS", [b"\x01vorbis", b"\x03vorbis", b"\x05vorbis"]),
    ],
)
def test_every_byte_of_a_file_of_libsndfile_is_accounted_for(subtype, headers):
    file = BytesIO()
    signal = speech_like(5.0, 1, 48_000)
    soundfile.write(file, signal, 48_000, format="OGG", subtype=subtype)
    data = file.getvalue()
    packets = ogg.packets(data)
    for packet, magic in zip(packets, headers, strict=False):
        assert packet.startswith(magic)
    segments = sum(len(packet) // 255 + 1 for packet in packets)
    pages = data.count(b"OggS")
    assert pages > 2
    assert len(data) == 27 * pages + segments + sum(map(len, packets))
    if subtype == "OPUS":
        assert 5.0 <= sum(map(opus_seconds, packets[2:])) <= 5.1


def test_a_stream_cut_short_is_refused():
    (page,) = make_ogg([b"abc", b"x" * 300])
    for end in range(1, len(page)):
        with pytest.raises(ValueError, match="the Ogg file ends|no Ogg page"):
            ogg.packets(page[:end])
    assert ogg.packets(page) == [b"abc", b"x" * 300]


def test_a_stream_with_a_page_missing_is_refused():
    pages = make_ogg([b"x" * 600, b"y"], segments_per_page=1)
    assert len(pages) == 4
    with pytest.raises(ValueError, match="a page .* is missing"):
        ogg.packets(b"".join(pages[1:]))
    with pytest.raises(ValueError, match="a page .* is missing"):
        ogg.packets(b"".join([pages[0], pages[3]]))
    with pytest.raises(ValueError, match="ends within a packet"):
        ogg.packets(b"".join(pages[:2]))


def test_what_is_no_ogg_file_is_refused():
    with pytest.raises(ValueError, match="no Ogg page begins at byte 0"):
        ogg.packets(b"RIFF" + bytes(40))
    (page,) = make_ogg([b"abc"])
    with pytest.raises(ValueError, match=f"begins at byte {len(page)}"):
        ogg.packets(page + b"more" + bytes(40))


# ---- Names


@pytest.mark.parametrize(
    "name",
    [
        "opus",
        "opus:",
        "opus:fast",
        "opus:5.9",
        "opus:257",
        "opus:nan",
        "opus:6:cbr",
        "opus:6:vbr",
        "opus:6:vbr=2",
        "opus:6:framesize=30",
        "opus:6:complexity=3",
        "codec2",
        "codec2:5",
        "codec2:700",
        "codec2:3200:1",
        "codec2:3200:eq=1",
        "speex",
        "speex:11",
        "speex:wb0",
        "speex:nb",
        "speex:0:vbr=1",
        "lc3",
        "lc3:8",
        "lc3:321",
        "lc3:16:32",
        "lc3:16:ms=10",
        "amrwb",
        "amrwb:6.6",
        "amrwb:12",
        "amrwb:6.60:dtx",
        "amrwb:6.60:dtx=1",
    ],
)
def test_a_name_that_means_nothing_is_told_what_could_be_meant(name):
    family = name.split(":")[0]
    with pytest.raises(ValueError, match=f"; write {family}:") as caught:
        make_system(name)
    assert repr(name) in str(caught.value)


# ---- Programs: fake ones


class Programs:
    """Fake programs, the only ones that can be found.

    Each is Python; `source` and `target` are its last two arguments.
    """

    def __init__(self, folder):
        self.folder = folder / "bin"
        self.folder.mkdir()
        self.scratch = folder / "scratch"
        self.scratch.mkdir()

    def add(self, name, code, version="9.8"):
        """Installs a program."""
        script = self.folder / f"{name}.py"
        script.write_text(
            "import os, struct, sys, time\n"
            "from pathlib import Path\n"
            "if sys.argv[1:] == ['--version']:\n"
            f"    print('{name} {version}')\n"
            "    sys.exit()\n"
            "source, target = map(Path, sys.argv[-2:])\n" + code
        )
        program = self.folder / name
        program.write_text(
            f'#!/bin/sh\nexec "{sys.executable}" -I -S "{script}" "$@"\n'
        )
        program.chmod(0o755)

    def left_over(self):
        """Temporary files."""
        return list(self.scratch.iterdir())


COPY = "target.write_bytes(source.read_bytes())"


@pytest.fixture
def fakes(tmp_path, monkeypatch):
    """Fake programs, and a folder of its own for temporary files."""
    fakes = Programs(tmp_path)
    monkeypatch.setenv("PATH", str(fakes.folder))
    monkeypatch.setattr(tempfile, "tempdir", str(fakes.scratch))
    return fakes


@pytest.mark.parametrize(
    ("name", "encoder", "decoder", "package"),
    [
        ("opus:6", "opusenc", "opusdec", "opus-tools"),
        ("codec2:3200", "c2enc", "c2dec", "codec2"),
        ("speex:0", "speexenc", "speexdec", "speex"),
        ("lc3:16", "elc3", "dlc3", "liblc3-tools"),
    ],
)
def test_a_missing_program_is_named_with_its_package(
    fakes, name, encoder, decoder, package
):
    for missing in (encoder, decoder):
        with pytest.raises(UnavailableError) as caught:
            make_system(name)
        assert str(caught.value) == (
            f"{missing} is not installed (Debian package {package})"
        )
        fakes.add(missing, COPY)
    assert make_system(name).name == name


@pytest.mark.parametrize(
    ("name", "sample_rate", "encoder", "decoder", "label"),
    [
        (
            "opus:6",
            48_000,
            "opusenc --quiet --speech --bitrate 6 --hard-cbr --framesize 20 "
            "--serial 0 input.wav coded",
            "opusdec --quiet --no-dither --rate 48000 coded output.wav",
            "Opus 6 kbps",
        ),
        (
            "opus:9.5:vbr=1:framesize=60",
            48_000,
            "opusenc --quiet --speech --bitrate 9.5 --vbr --framesize 60 "
            "--serial 0 input.wav coded",
            "opusdec --quiet --no-dither --rate 48000 coded output.wav",
            "Opus 9.5 kbps, VBR, 60 ms frames",
        ),
        (
            "codec2:700C",
            8000,
            "c2enc 700C input.raw coded",
            "c2dec 700C coded output.raw",
            "Codec2 700C",
        ),
        (
            "speex:10",
            16_000,
            "speexenc --quiet -w --quality 10 --comp 10 input.wav coded",
            "speexdec coded output.wav",
            "Speex WB quality 10",
        ),
        (
            "speex:nb0",
            8000,
            "speexenc --quiet -n --quality 0 --comp 10 input.wav coded",
            "speexdec coded output.wav",
            "Speex NB quality 0",
        ),
        (
            "lc3:16",
            16_000,
            "elc3 -b 16000 input.wav coded",
            "dlc3 coded output.wav",
            "LC3 16 kbps",
        ),
        (
            "lc3:48",
            24_000,
            "elc3 -b 48000 input.wav coded",
            "dlc3 coded output.wav",
            "LC3 48 kbps",
        ),
    ],
)
def test_programs_are_called_as_documented(
    fakes, tmp_path, monkeypatch, name, sample_rate, encoder, decoder, label
):
    # Nothing is coded: what the encoder is given, the decoder gives back
    log = tmp_path / "log"
    for program in (encoder.split()[0], decoder.split()[0]):
        line = f"' '.join(['{program}', *sys.argv[1:]])"
        fakes.add(
            program,
            f"with open({str(log)!r}, 'a') as log: print({line}, file=log)\n"
            + COPY,
        )
    system = make_system(name)
    system.payload_bits = len
    assert system.sample_rate == sample_rate
    assert system.label == label
    assert system.kind == "codec"
    assert system.fingerprint.startswith(encoder.split(" input")[0])
    speech = recording(sample_rate, 2 * sample_rate)
    coded = system.encode(speech)
    decoded = system.decode(coded, speech)
    assert log.read_text().splitlines() == [encoder, decoder]
    assert decoded.dtype == np.float64
    assert decoded.shape == speech.signal.shape
    assert np.abs(decoded - speech.signal).max() <= 0.5 / 32768
    if encoder.endswith("input.wav coded"):
        with soundfile.SoundFile(BytesIO(coded.data)) as file:
            assert file.samplerate == sample_rate
            assert (file.format, file.subtype) == ("WAV", "PCM_16")
            assert file.channels == 1
    assert fakes.left_over() == []


def test_loud_samples_are_clipped_and_never_wrap(fakes):
    fakes.add("elc3", COPY)
    fakes.add("dlc3", COPY)
    system = make_system("lc3:16")
    system.payload_bits = len
    loud = Recording("a.wav", np.array([2.0, 1.0, 0.0, -1.0, -2.0]), 16_000)
    decoded = system.decode(system.encode(loud), loud)
    top = 32767 / 32768
    np.testing.assert_array_equal(decoded, [top, top, 0.0, -1.0, -1.0])


@pytest.mark.parametrize("mode", CODEC2_FRAMES)
@pytest.mark.parametrize("extra", [0, 1, -1])
def test_codec2_counts_the_bits_of_its_frames(fakes, mode, extra):
    bits, milliseconds = CODEC2_FRAMES[mode]
    samples = 8 * milliseconds
    # as c2enc does: whole bytes for each frame, an incomplete one dropped
    fakes.add(
        "c2enc",
        f"frames = len(source.read_bytes()) // {2 * samples}\n"
        f"target.write_bytes(bytes({-(-bits // 8)} * frames))",
    )
    fakes.add("c2dec", COPY)
    system = make_system(f"codec2:{mode}")
    speech = recording(8000, 10 * samples + extra)
    assert system.encode(speech).payload_bits == (10 + (extra > 0)) * bits


def test_opus_and_speex_count_packets_after_two_headers(fakes, tmp_path):
    packets = [b"\x08" * n for n in (15, 255, 510, 0, 7)]
    for tags in (b"OpusTags", b"OpusTags" + bytes(70_000)):
        pages = make_ogg([b"OpusHead" + bytes(11), tags, *packets])
        (tmp_path / "stream").write_bytes(b"".join(pages))
        for program in ("opusenc", "opusdec", "speexenc", "speexdec"):
            fakes.add(
                program,
                f"source = Path({str(tmp_path / 'stream')!r})\n" + COPY,
            )
        for name in ("opus:6", "speex:0"):
            system = make_system(name)
            coded = system.encode(recording(system.sample_rate, 800))
            assert coded.payload_bits == 8 * sum(map(len, packets))
            assert coded.data == b"".join(pages)


@pytest.mark.parametrize("header", [18, 20])
def test_lc3_counts_frames_without_their_lengths(fakes, header):
    sizes = (20, 20, 400, 21)
    content = struct.pack("<HH", 0xCC1C, header) + bytes(header - 4)
    for size in sizes:
        content += struct.pack("<H", size) + b"\xff" * size
    fakes.add("elc3", f"target.write_bytes({content!r})")
    fakes.add("dlc3", COPY)
    system = make_system("lc3:16")
    assert system.encode(recording(16_000, 640)).payload_bits == 8 * sum(sizes)


FAILURES = [
    (
        "print('cannot do it', file=sys.stderr)\n"
        "print('at all', file=sys.stderr)\n"
        "sys.exit(3)",
        "cannot do it",
    ),
    # also if something was written
    (COPY + "\nsys.exit(3)", "exit status 3, {} bytes written"),
    ("sys.exit(3)", "exit status 3, 0 bytes written"),
    ("pass", "exit status 0, 0 bytes written"),
    ("target.write_bytes(b'')", "exit status 0, 0 bytes written"),
    # speexdec's way
    ("print('\\n  no Speex', file=sys.stderr)", "no Speex"),
    ("os.kill(os.getpid(), 9)", "exit status -9, 0 bytes written"),
    (
        "sys.stderr.buffer.write(b'caf\\xe9\\n'); sys.exit(1)",
        "caf\N{REPLACEMENT CHARACTER}",
    ),
]


@pytest.mark.parametrize(("code", "reason"), FAILURES)
def test_a_program_that_fails_is_quoted_with_its_command(fakes, code, reason):
    speech = recording(16_000, 160)
    fakes.add("elc3", code)
    fakes.add("dlc3", code)
    system = make_system("lc3:16")
    with pytest.raises(RuntimeError) as caught:
        system.encode(speech)
    assert str(caught.value) == (
        "elc3 -b 16000 input.wav coded: " + reason.format(44 + 2 * 160)
    )
    with pytest.raises(RuntimeError) as caught:
        system.decode(Coded(b"1234567", 56), speech)
    assert str(caught.value) == "dlc3 coded output.wav: " + reason.format(7)
    assert fakes.left_over() == []


def test_a_program_that_hangs_is_ended(fakes, tmp_path, monkeypatch):
    pid = tmp_path / "pid"
    code = f"Path({str(pid)!r}).write_text(str(os.getpid()))\ntime.sleep(120)"
    fakes.add("elc3", code)
    fakes.add("dlc3", COPY)
    system = make_system("lc3:16")
    monkeypatch.setattr(programs, "TIMEOUT_SECONDS", 3)
    began = time.monotonic()
    with pytest.raises(RuntimeError) as caught:
        system.encode(recording(16_000, 1600))
    assert time.monotonic() - began < 60
    assert str(caught.value) == (
        "elc3 -b 16000 input.wav coded: not done after 3 s"
    )
    with pytest.raises(ProcessLookupError):
        os.kill(int(pid.read_text()), 0)
    assert fakes.left_over() == []


def test_a_longer_recording_may_take_longer(fakes, monkeypatch):
    fakes.add("elc3", "time.sleep(1.5)\n" + COPY)
    fakes.add("dlc3", COPY)
    system = make_system("lc3:16")
    system.payload_bits = len
    monkeypatch.setattr(programs, "TIMEOUT_SECONDS", 0)
    silence = Recording("a.wav", np.zeros(30 * 16_000), 16_000)
    assert system.encode(silence).payload_bits


def test_the_fingerprint_follows_programs_and_name(fakes):
    def fingerprint(name, encoder=COPY, version="1.0", decoder=COPY):
        fakes.add("opusenc", encoder, version)
        fakes.add("opusdec", decoder)
        return make_system(name).fingerprint

    first = fingerprint("opus:6")
    assert "opusenc 1.0" in first
    assert "opusdec 9.8" in first
    assert fingerprint("opus:6") == first
    others = {
        fingerprint("opus:8"),
        fingerprint("opus:6:vbr=1"),
        fingerprint("opus:6:framesize=60"),
        fingerprint("opus:6", version="1.1"),
    }
    assert len(others | {first}) == 5
    # a program that tells no version stands for itself
    program = fakes.folder / "opusdec"
    program.write_text(program.read_text() + "# rebuilt\n")
    assert make_system("opus:6").fingerprint not in others | {first}


# ---- AMR-WB: libraries


class Libraries:
    """Stands for both: a frame is its place, decoded to itself."""

    def __init__(self, frame_bytes=None):
        self.open = 0
        self.frame_bytes = frame_bytes
        self.heard = []

    def E_IF_init(self):
        """Encoder."""
        self.open += 1
        self.heard = []
        return 2**40

    def E_IF_encode(self, state, mode, speech, out, dtx):
        """One frame of 320 samples."""
        assert (state.value, dtx, len(speech)) == (2**40, 0, 640)
        bits = list(AMRWB_FRAME_BITS.values())[mode]
        size = self.frame_bytes or 1 + -(-bits // 8)
        out[:size] = bytes([len(self.heard)]) * size
        self.heard.append(np.frombuffer(speech, np.int16))
        return size

    def E_IF_exit(self, state):
        """Frees the encoder."""
        self.open -= 1

    D_IF_init = E_IF_init

    def D_IF_decode(self, state, frame, out, bad):
        """320 samples, each the number of the frame."""
        assert (state.value, bad, len(set(frame))) == (2**40, 0, 1)
        out[:] = np.full(320, frame[0], np.int16).tobytes()

    D_IF_exit = E_IF_exit


@pytest.mark.parametrize("rate", AMRWB_FRAME_BITS)
def test_amrwb_counts_speech_bits(monkeypatch, rate):
    libraries = Libraries()
    monkeypatch.setattr(amrwb, "_load", lambda *args, **kwargs: libraries)
    system = make_system(f"amrwb:{rate}")
    assert system.label == f"AMR-WB {rate} kbps"
    assert rate in system.fingerprint
    speech = recording(16_000, 4 * 320 + 1)
    coded = system.encode(speech)
    assert coded.payload_bits == 5 * AMRWB_FRAME_BITS[rate]
    heard = np.concatenate(libraries.heard) / 32768
    assert np.abs(heard[:1281] - speech.signal).max() <= 0.5 / 32768
    assert not heard[1281:].any()
    decoded = system.decode(coded, speech)
    np.testing.assert_array_equal(32768 * decoded, np.arange(5).repeat(320))
    assert libraries.open == 0


def test_amrwb_refuses_a_frame_of_another_size(monkeypatch):
    libraries = Libraries(frame_bytes=24)
    monkeypatch.setattr(amrwb, "_load", lambda *args, **kwargs: libraries)
    with pytest.raises(RuntimeError) as caught:
        make_system("amrwb:6.60")
    assert str(caught.value) == (
        "libvo-amrwbenc made a frame of 24 bytes, AMR-WB 6.60 kbps has 18"
    )
    assert libraries.open == 0


@pytest.mark.parametrize(
    ("library", "package"),
    [
        ("vo-amrwbenc", "libvo-amrwbenc0"),
        ("opencore-amrwb", "libopencore-amrwb0"),
    ],
)
def test_a_missing_library_is_named_with_its_package(
    monkeypatch, library, package
):
    class Loaded:
        """Has all functions."""

        def __getattr__(self, name):
            return type("Function", (), {})()

    monkeypatch.setattr(
        amrwb, "find_library", lambda name: None if name == library else name
    )
    monkeypatch.setattr(amrwb.ctypes, "CDLL", lambda path: Loaded())
    with pytest.raises(UnavailableError) as caught:
        make_system("amrwb:6.60")
    assert str(caught.value) == (
        f"lib{library} is not installed (Debian package {package})"
    )


# ---- Real programs and libraries, where they are installed

# name: bits and milliseconds of a frame, delay in ms
REAL = {
    "opus:6": (120, 20, 0),
    "opus:12": (240, 20, 0),
    # the last packet may be shorter
    "opus:6:framesize=60": (120, 20, 0),
    "amrwb:6.60": (132, 20, 7),
    "amrwb:23.85": (477, 20, 7),
    "speex:1": (120, 20, 0),
    "speex:nb4": (160, 20, 0),
    "lc3:16": (160, 10, 0),
    "lc3:64": (640, 10, 0),
    **{f"codec2:{m}": (*f, 20) for m, f in CODEC2_FRAMES.items()},
}


def installed(name):
    """The system, or a skip that says what is missing."""
    try:
        return make_system(name)
    except UnavailableError as error:
        pytest.skip(str(error))


def example(sample_rate):
    """The shipped speech at -26 dB RMS."""
    signal, found = soundfile.read(EXAMPLE)
    signal *= 0.05 / signal.std()
    signal = soxr.resample(signal, found, sample_rate)
    return Recording("example.wav", signal, sample_rate)


def envelopes(signal, sample_rate):
    """Logarithmic energies of bands up to 3.5 kHz, every 2 ms."""
    window = sample_rate // 50
    frames = np.lib.stride_tricks.sliding_window_view(signal, window)
    frames = frames[:: sample_rate // 500] * np.hanning(window)
    # 50 Hz from bin to bin
    power = np.abs(np.fft.rfft(frames))[:, 5:70] ** 2
    bands = power.reshape(len(power), 13, 5).sum(2)
    bands = np.log(bands + 1e-3 * bands.mean())
    return bands - bands.mean(0)


@pytest.mark.parametrize("name", REAL)
def test_installed_systems_code_speech_at_their_rate(name):
    frame_bits, milliseconds, delay = REAL[name]
    system = installed(name)
    speech = example(system.sample_rate)
    coded = system.encode(speech)
    # at most one frame more, for what the encoder looks ahead
    frames, rest = divmod(coded.payload_bits, frame_bits)
    assert rest == 0
    least = np.ceil(1000 * speech.seconds / milliseconds)
    assert least <= frames <= least + 1

    decoded = system.decode(coded, speech)
    excess = len(decoded) - len(speech.signal)
    assert abs(excess) < 0.3 * system.sample_rate
    start = delay * system.sample_rate // 1000
    length = min(len(decoded) - start, len(speech.signal))
    pair = (speech.signal[:length], decoded[start : start + length])
    ours, theirs = (envelopes(x, system.sample_rate).ravel() for x in pair)
    assert np.corrcoef(ours, theirs)[0, 1] > 0.75
    assert 0.5 < pair[1].std() / pair[0].std() < 2

    again = system.encode(speech)
    assert again.payload_bits == coded.payload_bits
    if name.startswith(("opus", "speex")):
        # speexenc's serial numbers are random ones
        assert ogg.packets(again.data) == ogg.packets(coded.data)
    else:
        assert again.data == coded.data
    np.testing.assert_array_equal(system.decode(again, speech), decoded)


@pytest.mark.parametrize(
    ("name", "least"),
    [("opus:24", 0.98), ("lc3:64", 0.98), ("amrwb:23.85", 0.9)],
)
def test_installed_systems_follow_the_waveform_at_high_rates(name, least):
    system = installed(name)
    speech = example(system.sample_rate)
    decoded = system.decode(system.encode(speech), speech)
    length = min(len(decoded), len(speech.signal))
    correlations = [
        np.corrcoef(decoded[shift:length], speech.signal[: length - shift])[
            0, 1
        ]
        for shift in range(system.sample_rate // 100)
    ]
    assert max(correlations) > least


def test_installed_opus_spends_fewer_bits_on_silence_with_vbr():
    system = installed("opus:12:vbr=1")
    speech = example(48_000)
    silence = Recording("silence.wav", np.zeros(len(speech.signal)), 48_000)
    bits = [system.encode(x).payload_bits for x in (speech, silence)]
    assert bits[1] < 0.5 * bits[0]


@pytest.mark.parametrize(
    "name", ["opus:6", "codec2:1300", "speex:0", "lc3:16", "amrwb:6.60"]
)
@pytest.mark.parametrize("samples", [1, 100])
def test_installed_systems_code_a_click(name, samples):
    system = installed(name)
    click = Recording("click.wav", np.ones(samples), system.sample_rate)
    coded = system.encode(click)
    assert coded.payload_bits > 0
    decoded = system.decode(coded, click)
    assert decoded.ndim == 1
    assert abs(len(decoded) - samples) < 0.3 * system.sample_rate


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("opus:6", "Failed to open 'coded'."),
        ("speex:0", "This doesn't look like a Speex file"),
        ("lc3:16", "LC3 binary input file: Invalid argument"),
    ],
)
def test_installed_programs_refuse_damaged_data(name, said):
    system = installed(name)
    with pytest.raises(RuntimeError) as caught:
        system.decode(Coded(b"nonsense" * 99, 1), recording(16_000, 1600))
    assert str(caught.value).endswith(f": {said}")
