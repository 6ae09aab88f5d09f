"""Coding in chunks gives what coding the whole gives."""

from dataclasses import replace

import pytest
import torch
from corpus import speech_like
from tiny_model import make_tiny_model

from speechbrain_flowmac import FlowMACCodec
from speechbrain_flowmac.chunking import windows

HOP = 512


@pytest.fixture(scope="module", params=["harmonic", "free"])
def codec(request, tmp_path_factory):
    folder = make_tiny_model(tmp_path_factory.mktemp("m"), head=request.param)
    return FlowMACCodec.from_hparams(folder, run_opts={"device": "cpu"})


def _blocks(signal, sizes):
    start, position = 0, 0
    while start < signal.shape[1]:
        size = sizes[position % len(sizes)]
        yield signal[:, start : start + size]
        start, position = start + size, position + 1


def coder(codec, chunk_frames):
    return replace(codec.coder(), chunk_frames=chunk_frames)


@pytest.fixture(scope="module")
def signal():
    # not a whole number of frames, two channels
    sides = [speech_like(6.1, seed) for seed in (1, 2)]
    return torch.stack([torch.as_tensor(side) for side in sides])


@pytest.mark.parametrize("total", [1, 5, 6, 7, 100])
@pytest.mark.parametrize("chunk, context", [(1, 0), (6, 2), (7, 30)])
def test_windows_cover_the_stream_once(total, chunk, context):
    stream = torch.arange(total * 4 - 1)[None]
    kept = []
    for window in windows(_blocks(stream, [3, 10]), chunk, context, 4):
        assert window.lo == max(window.start - context, 0)
        first = (window.start - window.lo) * 4
        last = (window.end - window.lo) * 4
        kept.append(window.data[:, first:last])
    assert torch.equal(torch.cat(kept, 1), stream)


@pytest.mark.parametrize("chunk", [16, 61])
def test_chunked_tokens_are_those_of_the_whole(codec, signal, chunk):
    whole, _ = codec.encode_batch(signal)
    parts = coder(codec, chunk).encode(_blocks(signal, [1000, 7777]))
    assert torch.equal(torch.cat(list(parts), 1), whole)


@pytest.mark.parametrize("n_steps", [0, 1, 3])
@pytest.mark.parametrize("chunk", [16, 61])
def test_chunked_samples_are_those_of_the_whole(codec, signal, chunk, n_steps):
    tokens, _ = codec.encode_batch(signal)
    whole = codec.decode_batch(tokens, n_steps=n_steps, seed=5)
    parts = coder(codec, chunk).decode(
        _blocks(tokens, [10, 1, 33]), codec.sampling(n_steps=n_steps), seed=5
    )
    chunked = torch.cat(list(parts), 1)
    assert chunked.shape == whole.shape
    assert whole.abs().max() > 1e-3
    # float32 phases of the 200th harmonic leave some 1e-5 of rounding
    torch.testing.assert_close(chunked, whole, atol=2e-4, rtol=1e-3)


def test_many_channels_take_no_more_memory(codec, signal, monkeypatch):
    many = signal[:, :20000].repeat(10, 1)[:19]
    few, _ = codec.encode_batch(signal[:, :20000])
    batches = []
    for name in ("encode", "decode"):
        method = getattr(codec.codec, name)

        def counted(given, *args, method=method, **options):
            batches.append(len(given))
            return method(given, *args, **options)

        monkeypatch.setattr(codec.codec, name, counted)
    tokens = torch.cat(list(coder(codec, 16).encode([many])), 1)
    assert torch.equal(tokens, few.repeat(10, 1, 1)[:19])
    parts = coder(codec, 16).decode([tokens], codec.sampling(), seed=5)
    wavs = torch.cat(list(parts), 1)
    expected = codec.decode_batch(few, seed=5).repeat(10, 1)[:19]
    torch.testing.assert_close(wavs, expected, atol=2e-4, rtol=1e-3)
    assert set(batches) == {8, 3, 2}  # 2 are the batch that was expected


def test_a_context_too_short_would_be_noticed(codec, signal, monkeypatch):
    whole, _ = codec.encode_batch(signal)
    kind = type(codec.codec)
    monkeypatch.setattr(kind, "encoder_receptive_field", 0)
    parts = coder(codec, 16).encode([signal])
    assert not torch.equal(torch.cat(list(parts), 1), whole)


def test_an_unbounded_receptive_field_is_coded_whole(
    codec, signal, monkeypatch
):
    kind = type(codec.codec)
    monkeypatch.setattr(kind, "encoder_receptive_field", None)
    parts = list(coder(codec, 16).encode([signal]))
    assert len(parts) == 1
