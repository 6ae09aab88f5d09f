"""Extraction in this process: exact tokens, broken audio, going on."""

import json
import os
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from corpus import speech_like
from speechbrain.dataio.dataset import DynamicItemDataset
from tiny_model import make_tiny_model

from speechbrain_flowmac.tokenizer import FlowMACTokenizer
from speechbrain_flowmac.tokens import extraction
from speechbrain_flowmac.tokens.extraction import Share, bucket, extract
from speechbrain_flowmac.tokens.plan import PlanMismatchError
from speechbrain_flowmac.tokens.stores import NpyStore, TarStore
from speechbrain_flowmac.tokens.summary import describe
from speechbrain_flowmac.training.speech_inputs import TokenInputs

SECONDS = {"a": 0.7, "b": 0.31, "c": 1.2, "d": 0.3, "e": 3.0}


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory):
    folder = make_tiny_model(tmp_path_factory.mktemp("model"))
    return FlowMACTokenizer(folder, num_codebooks=4)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Utterances of several rates, and files that hold no sound."""
    folder = tmp_path_factory.mktemp("data")
    rates = {"c": 16000, "d": 44100}
    for seed, (name, seconds) in enumerate(SECONDS.items()):
        rate = rates.get(name, 24000)
        signal = speech_like(seconds, seed, rate)
        soundfile.write(folder / f"{name}.wav", signal, rate)
    soundfile.write(folder / "empty.wav", np.zeros(0), 24000)
    (folder / "broken.wav").write_bytes(b"RIFF and nothing else")
    nan = np.full(24000, np.nan, np.float32)
    soundfile.write(folder / "nan.wav", nan, 24000, subtype="FLOAT")
    return folder


def manifest(*names):
    return {n: {"wav": f"{{data_root}}/{n}.wav", "label": n} for n in names}


def run(tokenizer, data, folder, names=SECONDS, store=None, **options):
    options = {"shard_size": 2, "batch_seconds": 2.0, **options}
    return extract(
        tokenizer,
        manifest(*names),
        folder,
        data,
        store or TarStore(),
        **options,
    )


@pytest.mark.parametrize("store", [TarStore(), NpyStore()])
def test_tokens_are_those_of_each_file_alone(store, tokenizer, data, tmp_path):
    summary = run(tokenizer, data, tmp_path, store=store)
    found = DynamicItemDataset.from_json(
        tmp_path / "tokens.json",
        replacements={"token_root": str(tmp_path), "data_root": str(data)},
        dynamic_items=[store.item()],
        output_keys=["id", "tokens", "num_frames", "label", "duration"],
    )
    assert [found[i]["id"] for i in range(5)] == list(SECONDS)
    frames = 0
    for i, (name, seconds) in enumerate(SECONDS.items()):
        alone = tokenizer.codec.encode_file(data / f"{name}.wav", 4)[0]
        # the longest is coded in chunks, the others in batches
        assert torch.equal(found[i]["tokens"], alone), name
        assert found[i]["num_frames"] == len(alone)
        assert found[i]["label"] == name
        assert found[i]["duration"] == pytest.approx(seconds, abs=1e-4)
        frames += len(alone)
    assert summary["utterances"] == 5
    assert summary["hours"] == pytest.approx(sum(SECONDS.values()) / 3600)
    assert summary["bits"] == frames * 4 * 8
    assert not summary["failures"]


def test_hours_are_those_of_the_sound_whatever_a_header_claims(
    tokenizer, data, tmp_path, monkeypatch
):
    # as a FLAC without a length, which a pipe leaves
    monkeypatch.setattr(extraction, "duration", lambda path: 1e12)
    summary = run(tokenizer, data, tmp_path)
    seconds = sum(SECONDS.values())
    frame = 512 / 24000
    assert seconds <= 3600 * summary["hours"] < seconds + 5 * frame


def test_entropy_is_that_of_the_codes(tokenizer, data, tmp_path):
    summary = run(tokenizer, data, tmp_path)
    codes = torch.cat(
        [tokenizer.codec.encode_file(data / f"{n}.wav", 4)[0] for n in SECONDS]
    )
    for k in range(4):
        _, counts = codes[:, k].unique(return_counts=True)
        share = counts / counts.sum()
        entropy = -(share * share.log2()).sum().item()
        assert summary["entropy"][k] == pytest.approx(entropy, abs=1e-4)
        assert summary["used"][k] == pytest.approx(len(counts) / 256)


def test_what_holds_no_sound_is_listed_and_the_rest_goes_on(
    tokenizer, data, tmp_path
):
    names = ["a", "empty", "b", "broken", "nan", "missing", "c"]
    summary = run(tokenizer, data, tmp_path, names)
    failures = summary["failures"]
    assert sorted(failures) == ["broken", "empty", "missing", "nan"]
    assert "no samples" in failures["empty"]
    assert "nan" in failures["nan"]
    assert "no such audio file" in failures["missing"]
    entries = json.loads((tmp_path / "tokens.json").read_text())
    assert sorted(entries) == ["a", "b", "c"]
    assert "4 utterances have no tokens" in describe(summary)


def test_a_training_is_told_what_is_left_out(tokenizer, data, tmp_path, caplog):
    listed = tmp_path / "train.json"
    listed.write_text(json.dumps(manifest("a", "nan", "empty")))
    inputs = TokenInputs(tokenizer, num_codebooks=2)
    path, root = inputs.prepare(listed, data, tmp_path / "tokens")
    assert list(json.loads(Path(path).read_text())) == ["a"]
    assert "2 utterances have no tokens" in caplog.text
    assert f"{root}{os.sep}summary.json" in caplog.text


def test_nothing_but_failures_is_summed_up_too(tokenizer, data, tmp_path):
    summary = run(tokenizer, data, tmp_path, ["empty", "broken", "nan"])
    assert summary["utterances"] == 0 and len(summary["failures"]) == 3
    assert summary["entropy"] == [0.0] * 4
    assert "0 utterances" in describe(summary)


def test_only_what_is_missing_is_done_again(tokenizer, data, tmp_path):
    run(tokenizer, data, tmp_path)
    shards = tmp_path / "shards"
    before = {p.name: p.stat().st_mtime_ns for p in shards.glob("*.tar")}
    contents = (shards / "000001.tar").read_bytes()
    first = json.loads((tmp_path / "tokens.json").read_text())
    (tmp_path / "done" / "000001.json").unlink()
    (shards / "000001.tar").write_bytes(b"half of it")
    run(tokenizer, data, tmp_path)
    after = {p.name: p.stat().st_mtime_ns for p in shards.glob("*.tar")}
    assert [n for n in after if after[n] != before[n]] == ["000001.tar"]
    assert (shards / "000001.tar").read_bytes() == contents
    assert json.loads((tmp_path / "tokens.json").read_text()) == first


def test_parts_of_an_array_make_the_whole(tokenizer, data, tmp_path):
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    run(tokenizer, data, whole)
    shares = [Share.of_this_process(part, 2) for part in range(2)]
    assert run(tokenizer, data, parts, share=shares[1]) is None
    assert not (parts / "tokens.json").exists()
    assert run(tokenizer, data, parts, share=shares[0])["utterances"] == 5
    for path in sorted(whole.glob("shards/*")):
        assert path.read_bytes() == (parts / "shards" / path.name).read_bytes()


def test_parts_that_do_not_exist_are_refused():
    with pytest.raises(ValueError, match="0..3, found 4"):
        Share.of_this_process(4, 4)


@pytest.mark.parametrize(
    "change, message",
    [
        ({"names": ["a", "b"]}, "shards"),
        ({"names": ["a", "b", "c", "d", "empty"]}, "utterances"),
        ({"shard_size": 3}, "shard_size=2, now it is 3"),
        ({"store": NpyStore()}, "TarStore"),
    ],
)
def test_another_extraction_may_not_go_on_with_this_one(
    change, message, tokenizer, data, tmp_path
):
    run(tokenizer, data, tmp_path)
    with pytest.raises(PlanMismatchError, match=message):
        run(tokenizer, data, tmp_path, **change)


@pytest.mark.parametrize(
    "change, message",
    [
        ({"names": []}, "found 0 utterances"),
        ({"shard_size": 0}, "shard_size=0"),
        ({"shard_size": -1}, "shard_size=-1"),
        ({"names": ["a", "b.c"]}, "no dot may be in .* b.c"),
    ],
)
def test_what_cannot_work_is_refused_before_anything_is_written(
    change, message, tokenizer, data, tmp_path
):
    with pytest.raises(ValueError, match=message):
        run(tokenizer, data, tmp_path / "tokens", **change)
    assert not (tmp_path / "tokens").exists()


def test_another_model_may_not_go_on_with_this_one(tokenizer, data, tmp_path):
    run(tokenizer, data, tmp_path / "tokens", ["a"])
    other = FlowMACTokenizer(
        make_tiny_model(tmp_path / "model", seed=1), num_codebooks=4
    )
    with pytest.raises(PlanMismatchError, match="model="):
        run(other, data, tmp_path / "tokens", ["a"])


def test_batches_are_of_like_length():
    rng = np.random.default_rng(0)
    durations = {str(i): rng.uniform(0.5, 12.0) for i in range(200)}
    durations["long"] = 100.0
    batches = bucket(durations, batch_seconds=60.0)
    assert sorted(sum(batches, [])) == sorted(durations)
    assert ["long"] in batches
    padded = 0.0
    for batch in batches:
        longest = max(durations[name] for name in batch)
        padded += longest * len(batch)
        assert longest * len(batch) <= 60.0 or len(batch) == 1
    assert padded < 1.1 * sum(durations.values())


def test_readers_may_be_processes(tokenizer, data, tmp_path):
    run(tokenizer, data, tmp_path / "here", ["a", "b"])
    run(tokenizer, data, tmp_path / "there", ["a", "b"], num_workers=1)
    here, there = (
        (tmp_path / p / "shards" / "000000.tar").read_bytes()
        for p in ("here", "there")
    )
    assert here == there
