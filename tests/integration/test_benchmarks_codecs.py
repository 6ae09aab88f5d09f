"""The benchmark of codecs: what it times, and what it divides by what."""

import importlib.util
from pathlib import Path

import pytest
import torch
from tiny_model import make_tiny_model
from transformers import EncodecConfig, EncodecModel

SCRIPT = Path(__file__).resolve().parents[2] / "benchmarks" / "codecs.py"


@pytest.fixture(scope="module")
def benchmark():
    """The script as a module."""
    spec = importlib.util.spec_from_file_location("codecs_benchmark", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def models(tmp_path):
    """Names of two codecs with tiny weights."""
    config = EncodecConfig(
        num_filters=2, hidden_size=8, codebook_size=16, target_bandwidths=[1.2]
    )
    EncodecModel(config).save_pretrained(tmp_path / "encodec")
    flowmac = make_tiny_model(tmp_path / "tiny")
    return [
        f"flowmac:4:model={flowmac}",
        f"encodec:1.2:weights={tmp_path / 'encodec'}",
    ]


@pytest.fixture(autouse=True)
def same_threads():
    """Other tests run with the threads that they had."""
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)


def test_table_has_every_codec_at_every_batch(benchmark, models, capsys):
    missing = "flowmac:model=nowhere"
    benchmark.main(
        [*models, missing, "--seconds=0.2", "--batches", "1", "2"]
        + ["--repeats=2", "--threads=1"]
    )
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("0.2 s of audio, threads: 1, median of 2")
    table = [
        [cell.strip() for cell in line.strip("|").split("|")]
        for line in lines
        if line.startswith("|")
    ]
    assert len({len(cells) for cells in table}) == 1
    labels = ["FlowMAC 1.5 kbps, 1 step, tiny", "EnCodec 1.2 kbps"]
    found = [(cells[0], cells[2]) for cells in table[2:]]
    assert found == [(label, size) for size in "12" for label in labels]
    for cells in table[2:]:
        assert float(cells[3]) > 0 and float(cells[5]) > 0
    # EnCodec in times of itself
    assert table[3][4] == table[3][6] == "1.00"
    assert lines[-1].startswith(f"Left out: {missing} (")


def test_ratios_are_of_the_same_turn(benchmark, models):
    codecs, _ = benchmark.build(models)
    first, second = models
    # the machine is three times slower in the second turn
    times = {first: [(1, 2), (3, 6), (1, 2)], second: [(2, 1), (6, 3), (2, 1)]}
    ours, theirs = benchmark.rows(codecs, times, batch=4, seconds=5.0)
    assert ours[2:] == ["4", "0.0500", "0.50", "0.1000", "2.00"]
    assert theirs[2:] == ["4", "0.1000", "1.00", "0.0500", "1.00"]
    (alone,) = benchmark.rows({first: codecs[first]}, times, 4, 5.0)
    assert alone[2:] == ["4", "0.0500", "-", "0.1000", "-"]


def test_the_first_turn_warms_up_and_is_not_counted(benchmark):
    calls = []

    class Codec:
        sample_rate = 100

        def encode_batch(self, wavs):
            calls.append(("encode", tuple(wavs.shape)))
            return torch.ones(3)

        def decode_batch(self, codes):
            calls.append(("decode", tuple(codes.shape)))

    times = benchmark.measure({"a": Codec()}, 4, 0.5, repeats=2)
    assert len(times["a"]) == 2
    assert calls == 3 * [("encode", (4, 50)), ("decode", (3,))]
