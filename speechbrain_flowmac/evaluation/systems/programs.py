"""Codecs through their command-line programs: Opus, Codec2, Speex, LC3.

Every file is coded by a new process, so that a speed includes its start.
"""

import io
import shlex
import shutil
import struct
import subprocess
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soundfile

from speechbrain_flowmac.evaluation.systems import ogg
from speechbrain_flowmac.evaluation.systems.base import (
    Coded,
    Family,
    System,
    UnavailableError,
    digest,
    one_of,
    to_pcm16,
)

TIMEOUT_SECONDS = 60
"""A program may take this and the duration of what it codes."""

OPUS_FRAME_MS = ("2.5", "5", "10", "20", "40", "60")
CODEC2_FRAME_MS = {
    "3200": 20,
    "2400": 20,
    "1600": 40,
    "1400": 40,
    "1300": 40,
    "1200": 40,
    "700C": 40,
    "450": 40,
}


@dataclass(eq=False)
class ProgramCodec(System):
    """A codec of two programs, called with an input and an output file.

    Arguments
    ---------
    name, label, sample_rate
        See `System`.
    encoder, decoder : list of str
        Program and options; the two files are put behind them.
    package : str
        Debian package that has both, to name where one is missing.
    payload_bits : callable
        From the coded file (bytes) to its bits (int) without container.
    audio : str
        Suffix of the files of audio: ".wav", or ".raw" for samples alone.
    frame_samples : int
        Zeros fill up the signal to a multiple of this, for an encoder that
        drops the rest.

    Example
    -------
    >>> from speechbrain_flowmac.evaluation.systems import Recording
    >>> copy = ["cp"], ["cp"], "coreutils"
    >>> codec = ProgramCodec("pcm", "PCM", 8000, *copy, len, audio=".raw")
    >>> second = Recording("second", np.zeros(8000), 8000)
    >>> codec.decode(codec.encode(second), second).shape
    (8000,)
    """

    name: str
    label: str
    sample_rate: int
    encoder: list
    decoder: list
    package: str
    payload_bits: Callable
    audio: str = ".wav"
    frame_samples: int = 1

    def __post_init__(self):
        commands = (self.encoder, self.decoder)
        for program, *_ in commands:
            if shutil.which(program) is None:
                raise UnavailableError(
                    f"{program} is not installed (Debian package "
                    f"{self.package})"
                )
        self.fingerprint = " / ".join(
            f"{shlex.join(command)} {_version(command[0])}"
            for command in commands
        )

    def encode(self, recording):
        """Codes a `Recording`; RuntimeError if the program fails."""
        padding = -len(recording.signal) % self.frame_samples
        pcm = to_pcm16(np.pad(recording.signal, (0, padding)))
        if self.audio == ".raw":
            source = pcm.astype("<i2").tobytes()
        else:
            file = io.BytesIO()
            soundfile.write(file, pcm, self.sample_rate, format="WAV")
            source = file.getvalue()
        # "coded" has no suffix: c2enc would write a header into a ".c2"
        data = _convert(
            self.encoder,
            ("input" + self.audio, source),
            "coded",
            TIMEOUT_SECONDS + recording.seconds,
        )
        return Coded(data, self.payload_bits(data))

    def decode(self, coded, recording):
        """Decodes; RuntimeError if the program fails."""
        data = _convert(
            self.decoder,
            ("coded", coded.data),
            "output" + self.audio,
            TIMEOUT_SECONDS + recording.seconds,
        )
        if self.audio == ".raw":
            return np.frombuffer(data, "<i2") / 32768
        return soundfile.read(io.BytesIO(data))[0]


def _convert(command, source, target, timeout):
    """Runs a program in a folder of its own, from a file, by name and content,
    to a file; returns the bytes of that."""
    name, content = source
    command = [*command, name, target]
    with tempfile.TemporaryDirectory(prefix="flowmac-") as folder:
        Path(folder, name).write_bytes(content)
        done = _run(command, folder, timeout)
        output = Path(folder, target)
        written = output.read_bytes() if output.is_file() else b""
    # speexdec's exit status is 0 when it fails, too
    if done.returncode or not written:
        status = f"exit status {done.returncode}, {len(written)} bytes written"
        reason = _first_line(done.stderr) or status
        raise RuntimeError(f"{shlex.join(command)}: {reason}")
    return written


def _run(command, folder, timeout):
    try:
        return subprocess.run(
            command,
            cwd=folder,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=timeout,
        )
    except subprocess.TimeoutExpired:
        raise RuntimeError(
            f"{shlex.join(command)}: not done after {timeout:.0f} s"
        ) from None


def _first_line(output):
    lines = output.decode(errors="replace").strip().splitlines()
    return lines[0].strip() if lines else ""


def _version(program):
    """What tells one version of a program from another.

    opusenc says which library it found, c2enc and elc3 say nothing: the
    program itself stands for them.
    """
    said = _run([program, "--version"], None, TIMEOUT_SECONDS)
    content = Path(shutil.which(program)).read_bytes()
    version = _first_line(said.stdout) or _first_line(said.stderr)
    return f"[{version}; {digest(content)[:16]}]"


def _ogg_payload_bits(data):
    """Opus (RFC 7845) and Speex have two packets of headers, then audio."""
    return 8 * sum(map(len, ogg.packets(data)[2:]))


def _lc3_payload_bits(data):
    """Frames of elc3's file: each has its size in two bytes before it."""
    (position,) = struct.unpack_from("<H", data, 2)  # size of the header
    bits = 0
    while position < len(data):
        (size,) = struct.unpack_from("<H", data, position)
        position += 2 + size
        bits += 8 * size
    return bits


def _within(low, high):
    def check(text):
        value = float(text)
        if not low <= value <= high:
            raise ValueError(text)
        return value

    return check


def _opus(name, kbps, vbr="0", framesize="20"):
    label = f"Opus {kbps:g} kbps" + ", VBR" * (vbr == "1")
    if framesize != "20":
        label += f", {framesize} ms frames"
    encoder = ["opusenc", "--quiet", "--speech", "--bitrate", f"{kbps:g}"]
    encoder += ["--vbr" if vbr == "1" else "--hard-cbr"]
    # a stream's serial number is a random one otherwise
    encoder += ["--framesize", framesize, "--serial", "0"]
    # 48 kHz is what Opus works at, so that neither program resamples
    decoder = ["opusdec", "--quiet", "--no-dither", "--rate", "48000"]
    return ProgramCodec(
        name, label, 48_000, encoder, decoder, "opus-tools", _ogg_payload_bits
    )


def _codec2(name, mode):
    frame_ms = CODEC2_FRAME_MS[mode]
    # c2enc fills up every frame to whole bytes: 1300 bit/s has 52 bits in
    # 7 bytes. A channel would carry the 52, so they count.
    frame_bits = int(mode.rstrip("C")) * frame_ms // 1000
    frame_bytes = -(-frame_bits // 8)
    return ProgramCodec(
        name,
        f"Codec2 {mode}",
        8000,
        ["c2enc", mode],
        ["c2dec", mode],
        "codec2",
        lambda data: len(data) // frame_bytes * frame_bits,
        audio=".raw",
        frame_samples=8 * frame_ms,
    )


def _speex(name, mode):
    quality = mode.removeprefix("nb")
    band, flag, sample_rate = (
        ("WB", "-w", 16_000) if mode == quality else ("NB", "-n", 8000)
    )
    encoder = ["speexenc", "--quiet", flag, "--quality", quality]
    return ProgramCodec(
        name,
        f"Speex {band} quality {quality}",
        sample_rate,
        [*encoder, "--comp", "10"],
        ["speexdec"],
        "speex",
        _ogg_payload_bits,
    )


def _lc3(name, kbps):
    return ProgramCodec(
        name,
        f"LC3 {kbps:g} kbps",
        # as Bluetooth's Basic Audio Profile pairs them: 24 kHz has 48 kbps
        16_000 if kbps < 48 else 24_000,
        ["elc3", "-b", f"{1000 * kbps:.0f}"],
        ["dlc3"],
        "liblc3-tools",
        _lc3_payload_bits,
    )


# Payload bits are those of whole packets for Opus, Speex and LC3, as they are
# sent, and of frames for Codec2, whose frames need not fill bytes.
FAMILIES = {
    # hard constant bit rate and 20 ms frames unless told otherwise
    "opus": Family(
        "opus:KBPS[:vbr=1][:framesize=MS], KBPS 6..256, MS one of "
        + ", ".join(OPUS_FRAME_MS),
        _opus,
        _within(6, 256),
        {"vbr": one_of("0", "1"), "framesize": one_of(*OPUS_FRAME_MS)},
    ),
    "codec2": Family(
        f"codec2:MODE, MODE one of {', '.join(CODEC2_FRAME_MS)}",
        _codec2,
        one_of(*CODEC2_FRAME_MS),
    ),
    "speex": Family(
        "speex:QUALITY (wide-band) or speex:nbQUALITY (narrow-band), "
        "QUALITY 0..10",
        _speex,
        one_of(*(band + str(x) for band in ("", "nb") for x in range(11))),
    ),
    # A frame has 20 to 400 bytes; elc3 would take another rate in silence.
    "lc3": Family("lc3:KBPS, KBPS 16..320", _lc3, _within(16, 320)),
}
