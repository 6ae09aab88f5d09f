"""Systems and metrics for tests of evaluations, which log what they do.

Workers are other processes: they import this module, and find the log by an
environment variable.
"""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np

from speechbrain_flowmac.evaluation.systems import (
    Coded,
    System,
    UnavailableError,
)

LOG_VARIABLE = "FLOWMAC_TEST_LOG"
STALL_VARIABLE = "FLOWMAC_TEST_STALL"  # set: "stall" does
SAMPLE_RATE = 8000


def log(*words):
    """Adds a line to the log."""
    line = " ".join(map(str, words)) + "\n"
    with open(os.environ[LOG_VARIABLE], "a") as file:
        file.write(line)


def logged(first):
    """Lines of the log that start with a word, without it."""
    path = Path(os.environ[LOG_VARIABLE])
    lines = path.read_text().splitlines() if path.exists() else []
    return [x.split(" ", 1)[1] for x in lines if x.startswith(f"{first} ")]


class Rounding(System):
    """Rounds samples to a few bits, which are its payload: `round:BITS`."""

    sample_rate = SAMPLE_RATE

    def __init__(self, name, bits=8):
        log("make", name, os.getpid())
        self.name = name
        self.label = f"Rounding to {bits} bits"
        self.bits = bits
        self.fingerprint = f"rounding {bits}"
        self.options = {"codebooks": bits}

    def encode(self, recording):
        log("encode", self.name, recording.name)
        steps = 2 ** (self.bits - 1)
        indices = np.clip(np.floor(recording.signal * steps), -steps, steps - 1)
        return Coded(
            (indices + steps).astype(np.uint16).tobytes(),
            self.bits * len(indices),
        )

    def decode(self, coded, recording):
        indices = np.frombuffer(coded.data, np.uint16).astype(float)
        return (indices + 0.5) / 2 ** (self.bits - 1) - 1

    def tokens(self, coded):
        indices = np.frombuffer(coded.data, np.uint16).astype(np.int64)
        return indices[:, np.newaxis], 2**self.bits


class Plain(Rounding):
    """Keeps all, has neither rate nor tokens, and is 10 ms late and loud."""

    kind = "anchor"

    def encode(self, recording):
        log("encode", self.name, recording.name)
        return Coded(recording.signal.tobytes(), None)

    def decode(self, coded, recording):
        late = np.zeros(SAMPLE_RATE // 100)
        return 2 * np.concatenate([late, np.frombuffer(coded.data)])

    def tokens(self, coded):
        return None


class Failing(Plain):
    """Fails with files that have "bad" in their names, each in its way."""

    kind = "codec"

    def encode(self, recording):
        coded = super().encode(recording)
        if "bad" in recording.name:
            if self.name == "raise":
                raise ValueError("no such luck\nat all")
            if self.name == "stall" and STALL_VARIABLE in os.environ:
                time.sleep(600)
            if self.name == "die":
                os.kill(os.getpid(), signal.SIGKILL)
        return coded

    def decode(self, coded, recording):
        decoded = super().decode(coded, recording)
        if "bad" in recording.name:
            if self.name == "nan":
                decoded[5] = np.nan
            if self.name == "stereo":
                return np.stack([decoded, decoded])
        return decoded


class Slow(Rounding):
    """Takes a while: 0.3 s to load and for the first file, 0.05 s to encode,
    twice that to decode."""

    first = True

    def __init__(self, name):
        super().__init__(name)
        time.sleep(0.3)

    def encode(self, recording):
        time.sleep(0.35 if self.first else 0.05)
        self.first = False
        return super().encode(recording)

    def decode(self, coded, recording):
        time.sleep(0.1)
        return super().decode(coded, recording)


class Large(Rounding):
    """Uses 200 MB: itself, or a program that it starts."""

    def encode(self, recording):
        if self.name == "large":
            np.ones(25_000_000).sum()
        else:
            script = "b'1' * 200_000_000"
            subprocess.run([sys.executable, "-c", script], check=True)
        return super().encode(recording)


def make_system(name):
    """As `speechbrain_flowmac.evaluation.systems.make_system`."""
    family, _, detail = name.partition(":")
    if family == "round":
        return Rounding(name, int(detail or 8))
    if name == "plain":
        return Plain(name)
    if name in ("raise", "die", "nan", "stereo", "stall"):
        return Failing(name)
    if name == "slow":
        return Slow(name)
    if name in ("large", "large-program"):
        return Large(name)
    if name == "missing":
        raise UnavailableError("missing: its program is not installed")
    if name == "broken":
        raise KeyError("broken")
    raise ValueError(f"no system {name!r}")


def loudness(reference, decoded, sample_rate):
    """RMS of what was decoded."""
    log("score", "loudness", len(decoded))
    return float(np.sqrt(np.mean(decoded**2)))


def error(reference, decoded, sample_rate):
    """RMS of the difference."""
    log("score", "error", len(decoded))
    return float(np.sqrt(np.mean((decoded - reference) ** 2)))


def nothing(reference, decoded, sample_rate):
    """Is never a number."""
    log("score", "nothing", len(decoded))
    return float("nan")


def refusal(reference, decoded, sample_rate):
    """Fails."""
    log("score", "refusal", len(decoded))
    raise RuntimeError("no metric today")


def metrics(*names):
    """Part of a table as `speechbrain_flowmac.metrics.METRICS`.

    Arguments
    ---------
    *names : str
        Of functions here.

    Returns
    -------
    dict
    """
    # not needed by a worker that only codes, and it takes a while
    from speechbrain_flowmac.metrics import Metric

    return {
        name: Metric(
            heading=name.capitalize(),
            decimals=3,
            higher_is_better=name == "loudness",
            function=globals()[name],
            kind="reference_free" if name == "loudness" else "intrusive",
            packages=("numpy",),
        )
        for name in names
    }
