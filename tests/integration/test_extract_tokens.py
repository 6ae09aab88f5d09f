"""Extraction by the recipe: killed on two ranks, resumed, and in parts."""

import json
import os
import signal
import subprocess
import sys
from collections import Counter

import pytest
import soundfile
import webdataset
from corpus import make_libritts
from tiny_model import make_tiny_model
from training_runs import (
    EXTRACTION,
    LIMIT_SECONDS,
    ROOT,
    Training,
    arguments,
    recipe,
    two_ranks,
)

from speechbrain_flowmac import FlowMACCodec

COUNT = 23  # an odd number of shards, the last one shorter


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return make_tiny_model(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module")
def speech(tmp_path_factory):
    """A corpus with a file that is broken."""
    folder = make_libritts(
        tmp_path_factory.mktemp("speech"), {"dev-clean": COUNT}, duration=0.4
    )
    first = min(folder.rglob("*.wav"))
    first.with_name("broken_100_000000.wav").write_bytes(b"no sound")
    return folder


def options(model, **changes):
    return {
        "splits": "[dev-clean]",
        "model": model,
        "shard_size": 2,
        **changes,
    }


def check(folder, speech, model):
    """Each utterance is there once, with the tokens of its file."""
    shards = sorted(map(str, folder.glob("shards/*.tar")))
    assert len(shards) == 12
    stream = webdataset.WebDataset(shards, shardshuffle=False).decode()
    found = {}
    seen = Counter()
    for sample in stream:
        seen[sample["__key__"]] += 1
        found[sample["__key__"]] = sample["tokens.npy"]
    wavs = {p.stem: p for p in speech.rglob("*.wav") if "broken" not in p.stem}
    assert seen == Counter(wavs.keys())
    codec = FlowMACCodec.from_hparams(model, run_opts={"device": "cpu"})
    for name, path in list(wavs.items())[::6]:
        expected = codec.encode_file(path)[0].numpy()
        assert (found[name] == expected).all()
    manifest = json.loads((folder / "tokens.json").read_text())
    assert sorted(manifest) == sorted(wavs)
    summary = json.loads((folder / "summary.json").read_text())
    assert summary["utterances"] == COUNT
    assert list(summary["failures"]) == ["broken_100_000000"]
    seconds = sum(soundfile.info(p).duration for p in wavs.values())
    assert summary["hours"] == pytest.approx(seconds / 3600)


@pytest.mark.skipif(os.name == "nt", reason="no SIGKILL")
def test_two_ranks_killed_half_way_lose_and_repeat_nothing(
    speech, model, tmp_path
):
    folder = tmp_path / "tokens"
    ranks = two_ranks(EXTRACTION, speech, folder, kill_at=3, **options(model))
    # each dies after the tokens of its third shard, before it says so
    assert [rank.wait() for rank in ranks] == [-signal.SIGKILL] * 2
    assert len(list(folder.glob("done/*.json"))) == 4
    assert len(list(folder.glob("shards/*.tar"))) == 6
    assert not (folder / "tokens.json").exists()
    before = {p: p.stat().st_mtime_ns for p in folder.glob("done/*.json")}

    command = [
        *(sys.executable, "-m", "torch.distributed.run"),
        *("--standalone", "--nproc_per_node=2", str(recipe(EXTRACTION))),
        *arguments(
            EXTRACTION,
            speech,
            folder,
            distributed_backend="gloo",
            **options(model),
        ),
    ]
    result = subprocess.run(
        command,
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=LIMIT_SECONDS,
    )
    assert result.returncode == 0, result.stdout + result.stderr
    assert result.stdout.count("23 utterances") == 1
    assert all(p.stat().st_mtime_ns == t for p, t in before.items())
    assert len(list(folder.glob("done/*.json"))) == 12
    check(folder, speech, model)


def test_jobs_of_an_array_share_the_shards(speech, model, tmp_path):
    folder = tmp_path / "tokens"
    jobs = [
        Training(
            EXTRACTION, speech, folder, **options(model, part=part, parts=3)
        ).check()
        for part in range(3)
    ]
    check(folder, speech, model)
    assert "utterances" in jobs[-1].text
