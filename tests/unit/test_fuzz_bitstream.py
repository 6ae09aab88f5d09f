"""Attacked streams: only our errors, quickly, and never a wrong token."""

import importlib.util
from pathlib import Path

import numpy as np
import pytest

from speechbrain_flowmac.bitstream import BitstreamReader

PATH = Path(__file__).parents[2] / "benchmarks" / "fuzz_bitstream.py"


@pytest.fixture(scope="module")
def fuzz():
    """The script as a module."""
    spec = importlib.util.spec_from_file_location("fuzz_bitstream", PATH)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_no_attack_goes_unnoticed(fuzz, capsys):
    fuzz.main(["--streams", "3000", "--seed", "1"])
    out = capsys.readouterr().out
    assert "3000 streams: 0 crashes, 0 undetected" in out
    rows = [line.split("|")[1:5] for line in out.splitlines()[2:-1]]
    # every attack was refused by some reader, most were concealed by another
    assert len(rows) == len(fuzz.ATTACKS)
    assert all(int(row[1]) > 0 for row in rows)
    assert sum(int(row[2]) > 0 for row in rows) >= len(rows) - 1


def test_a_reader_that_checks_nothing_is_caught(fuzz, monkeypatch):
    def trusting(self, index, part, chunk=BitstreamReader._chunk):
        size = self.header.packed_bytes(part.frames)
        payload = (part.payload or b"").ljust(size, b"\0")
        return chunk(self, index, part._replace(payload=payload))

    monkeypatch.setattr(BitstreamReader, "_chunk", trusting)
    rng = np.random.default_rng(0)
    with pytest.raises(fuzz.FuzzError, match="wrong tokens"):
        for _ in range(300):
            fuzz.attack(rng)


def test_a_slow_reader_is_caught(fuzz):
    with pytest.raises(fuzz.FuzzError, match="s for"):
        fuzz.attack(np.random.default_rng(0), limit_seconds=0)
