"""Stores of tokens: what is written is what SpeechBrain's data reads."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
import webdataset
from speechbrain.dataio.batch import PaddedBatch
from speechbrain.dataio.dataset import DynamicItemDataset
from torch.utils.data import DataLoader

from speechbrain_flowmac.bitstream import StreamHeader, write_tokens
from speechbrain_flowmac.tokens.stores import (
    FmacTokens,
    NpyStore,
    TarStore,
    TokenStoreError,
    smallest_dtype,
)

LENGTHS = {"a": 5, "b": 1, "c_long": 300}
STORES = [NpyStore, TarStore]


def utterances(seed=0, codebook_size=256):
    rng = np.random.default_rng(seed)
    kind = smallest_dtype(codebook_size)
    return [
        (name, {"label": f"é {name}"}, rng.integers(0, 256, (n, 8), kind))
        for name, n in LENGTHS.items()
    ]


def dataset(folder, written, item):
    """What a recipe does with the entries."""
    path = next(key for key in item.takes if key != "offset")
    entries = {
        name: {**entry, path: str(Path(folder, entry[path]))}
        for name, entry in written.items()
    }
    return DynamicItemDataset(
        entries, dynamic_items=[item], output_keys=["id", "tokens"]
    )


@pytest.mark.parametrize("store", STORES)
@pytest.mark.parametrize("count", [None, 1, 3])
def test_what_is_stored_is_read(store, count, tmp_path):
    written = store().write(tmp_path, "000000", utterances())
    found = dataset(tmp_path, written, store.item(num_codebooks=count))
    (batch,) = DataLoader(found, batch_size=3, collate_fn=PaddedBatch)
    assert batch.id == list(LENGTHS)
    assert batch.tokens.data.dtype == torch.int64
    assert batch.tokens.data.shape == (3, 300, count or 8)
    for i, (_, _, tokens) in enumerate(utterances()):
        expected = torch.from_numpy(tokens[:, :count].astype(np.int64))
        assert torch.equal(batch.tokens.data[i, : len(tokens)], expected)


@pytest.mark.parametrize("store", STORES)
def test_more_codebooks_than_are_stored_are_refused(store, tmp_path):
    written = store().write(tmp_path, "000000", utterances())
    found = dataset(tmp_path, written, store.item(num_codebooks=9))
    with pytest.raises(TokenStoreError, match="8 codebooks, asked for 9"):
        found[0]


@pytest.mark.parametrize("store", STORES)
def test_a_shard_is_replaced_whole(store, tmp_path):
    store().write(tmp_path, "000000", utterances(seed=1))
    for part in (".000000.part", ".000000.tar.0123456789abcdef.tmp"):
        if store is NpyStore and part.endswith("part"):
            (tmp_path / part).mkdir()
        elif store is TarStore and part.endswith("tmp"):
            (tmp_path / part).write_bytes(b"of a process that was killed")
    written = store().write(tmp_path, "000000", utterances()[:1])
    found = dataset(tmp_path, written, store.item())
    assert (
        found[0]["tokens"][:, 0].tolist() == utterances()[0][2][:, 0].tolist()
    )
    assert len(list(tmp_path.iterdir())) == 1
    if store is NpyStore:
        assert len(list((tmp_path / "000000").iterdir())) == 1


def test_shards_stream_through_webdataset(tmp_path):
    TarStore().write(tmp_path, "000000", utterances())
    shard = str(tmp_path / "000000.tar")
    stream = webdataset.WebDataset(shard, shardshuffle=False).decode()
    samples = list(stream)
    assert [sample["__key__"] for sample in samples] == list(LENGTHS)
    for sample, (_, entry, tokens) in zip(samples, utterances(), strict=True):
        assert sample["json"] == entry
        assert np.array_equal(sample["tokens.npy"], tokens)
        assert sample["tokens.npy"].dtype == np.uint8


def test_shards_are_reproducible(tmp_path):
    for name in ("one", "two"):
        TarStore().write(tmp_path, name, utterances())
    one, two = ((tmp_path / f"{n}.tar").read_bytes() for n in ("one", "two"))
    assert one == two


def test_names_that_webdataset_would_cut_are_refused(tmp_path):
    sample = [("a.b", {}, np.zeros((1, 8), np.uint8))]
    with pytest.raises(TokenStoreError, match="no dot"):
        TarStore().write(tmp_path, "000000", sample)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "size, kind", [(2, "uint8"), (256, "uint8"), (257, "uint16")]
)
def test_codes_take_few_bytes(size, kind):
    assert smallest_dtype(size) == np.dtype(kind)


def fmac(path, tokens):
    channels, frames, _ = tokens.shape
    header = StreamHeader(
        num_samples=frames * 512,
        fingerprint=bytes(8),
        num_channels=channels,
        num_codebooks=tokens.shape[2],
    )
    write_tokens(path, header, tokens)
    return str(path)


def test_coded_files_are_a_store(tmp_path):
    entries = {
        name: {"fmac": fmac(tmp_path / f"{name}.fmac", tokens[None])}
        for name, _, tokens in utterances()
    }
    (tmp_path / "manifest.json").write_text(json.dumps(entries))
    found = DynamicItemDataset.from_json(
        tmp_path / "manifest.json",
        dynamic_items=[FmacTokens(num_codebooks=2)],
        output_keys=["id", "tokens"],
    )
    for i, (_, _, tokens) in enumerate(utterances()):
        assert np.array_equal(found[i]["tokens"].numpy(), tokens[:, :2])


def test_coded_stereo_is_refused(tmp_path):
    path = fmac(tmp_path / "stereo.fmac", np.zeros((2, 3, 8), np.int64))
    with pytest.raises(TokenStoreError, match="2 channels"):
        FmacTokens()(path)
