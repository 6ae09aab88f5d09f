"""The codec with a dynamic frame rate, through the doors of every codec."""

import io
import re
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from corpus import speech_like
from hyperpyyaml import load_hyperpyyaml, resolve_references
from tiny_model import make_tiny_model

from speechbrain_flowmac import FlowMACCodec
from speechbrain_flowmac.admission import admit_tokens
from speechbrain_flowmac.bitstream import read_tokens, transcode
from speechbrain_flowmac.lobes.frame_merging import unmerge_frames
from speechbrain_flowmac.lobes.representation_alignment import (
    RepresentationAlignment,
)
from speechbrain_flowmac.models.loading import get_file, load_weights
from speechbrain_flowmac.stream import StreamMismatchError
from speechbrain_flowmac.tokenizer import FlowMACTokenizer
from speechbrain_flowmac.tokens.summary import summarise
from speechbrain_flowmac.training.experiment import start_from_pretrained

HOP = 1024


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return make_tiny_model(tmp_path_factory.mktemp("dynamic"), dynamic=True)


@pytest.fixture(scope="module")
def codec(folder):
    return FlowMACCodec.from_hparams(folder, run_opts={"device": "cpu"})


@pytest.fixture(scope="module")
def fixed(tmp_path_factory):
    folder = make_tiny_model(tmp_path_factory.mktemp("fixed"))
    return FlowMACCodec.from_hparams(folder, run_opts={"device": "cpu"})


def batch():
    lengths = torch.tensor([40000, 25001, 700])
    wavs = [
        torch.from_numpy(speech_like(n / 24000, i))
        for i, n in enumerate(lengths.tolist())
    ]
    return torch.nn.utils.rnn.pad_sequence(wavs, batch_first=True), lengths


RATES = [
    {"frame_rate": 12.5},
    {"frame_rate": 6.25},
    {"merging_threshold": 0.995},
    {"merging_threshold": 1.0},
]


@pytest.mark.parametrize("merging", RATES, ids=str)
def test_a_batch_has_the_tokens_of_its_items(codec, merging):
    wavs, lengths = batch()
    tokens, durations = codec.encode_batch(wavs, lengths, **merging)
    assert tokens.shape[:2] == durations.shape and tokens.shape[2] == 4
    assert torch.equal(durations.sum(1), -(-lengths // HOP))
    for i, length in enumerate(lengths):
        alone, lasts = codec.encode_batch(wavs[i : i + 1, :length], **merging)
        count = lasts.shape[1]
        assert torch.equal(durations[i, :count], lasts[0])
        assert torch.equal(tokens[i, :count], alone[0])
        assert not durations[i, count:].any() and not tokens[i, count:].any()


def test_rates_are_kept_and_one_merges_nothing(codec):
    wavs, lengths = batch()
    _, durations = codec.encode_batch(wavs, lengths, frame_rate=6.25)
    rate = codec.frame_rate * (durations > 0).sum(1) / durations.sum(1)
    assert (rate[:2] <= 6.25).all() and durations.max() <= 8
    _, durations = codec.encode_batch(wavs, lengths, merging_threshold=1.0)
    assert durations.max() == 1


def test_merged_tokens_decode_like_frames_of_time(codec):
    wavs, lengths = batch()
    pair = codec.encode_batch(wavs, lengths, frame_rate=8.0)
    frames, counts = codec.encode_frames(wavs, lengths, frame_rate=8.0)
    assert frames.shape == (3, 40, 4)
    assert torch.equal(counts, pair[1].sum(1))
    assert torch.equal(frames, unmerge_frames(*pair))
    heard = codec.decode_batch(*pair, seed=3)
    assert heard.shape == (3, 40 * HOP)
    assert torch.equal(heard, codec.decode_batch(frames, counts, seed=3))
    for i, count in enumerate(counts):
        alone = codec.decode_batch(frames[i : i + 1, :count], seed=3)
        torch.testing.assert_close(
            heard[i, : count * HOP], alone[0], atol=1e-4, rtol=1e-4
        )


def test_fewer_codebooks_are_the_first_ones(codec):
    wavs, lengths = batch()
    tokens, durations = codec.encode_batch(wavs, lengths)
    for count in (1, 3):
        fewer, lasts = codec.encode_batch(wavs, lengths, num_codebooks=count)
        assert torch.equal(fewer, tokens[..., :count])
        assert torch.equal(lasts, durations)
        codec.decode_batch(fewer, lasts)


def test_semantic_features_do_not_depend_on_the_batch(codec):
    wavs, lengths = batch()
    features, counts = codec.get_semantic_features(wavs, lengths)
    assert features.shape == (3, 40, 8)
    for i, count in enumerate(counts):
        alone, _ = codec.get_semantic_features(wavs[i : i + 1, : lengths[i]])
        torch.testing.assert_close(features[i, :count], alone[0])
        assert not features[i, count:].any()


def test_codecs_with_a_fixed_rate_merge_nothing(fixed):
    wavs, lengths = batch()
    assert fixed.merging(frame_rate=None) is None
    for change in ({"frame_rate": 6.0}, {"merging_threshold": 0.8}):
        with pytest.raises(ValueError, match="fixed frame rate, found"):
            fixed.encode_batch(wavs, lengths, **change)
    with pytest.raises(TypeError, match="threshhold"):
        fixed.encode_batch(wavs, lengths, threshhold=0.8)
    with pytest.raises(ValueError, match="no semantic stream"):
        fixed.get_semantic_features(wavs, lengths)


# Files


def test_files_carry_frames_that_last(codec, tmp_path):
    source, target = tmp_path / "a.wav", tmp_path / "a.fmac"
    wav = speech_like(3.0, seed=5)
    soundfile.write(source, wav, 24000)
    summary = codec.compress(source, target, frame_rate=8.0)
    assert target.stat().st_size == summary.stream_bytes
    header, tokens = summary.header, read_tokens(target)[1]
    assert header.runs and header.code_bits == (9, 4, 4, 4)
    expected = codec.encode_file(source, frame_rate=8.0)
    np.testing.assert_array_equal(tokens, expected.numpy())
    new = 1 + (np.diff(tokens[0], axis=0) != 0).any(1).sum()
    # a frame is written again where a chunk begins
    bits = tokens.shape[1] + (new + summary.num_chunks - 1) * 21
    assert bits <= 8 * summary.payload_bytes + 7 * summary.num_chunks
    assert 8 * summary.payload_bytes <= bits + 7 * summary.num_chunks
    codec.decompress(target, tmp_path / "b.wav", seed=1)
    half = tmp_path / "half.fmac"
    assert transcode(target, half, 1).payload_bytes < summary.payload_bytes
    np.testing.assert_array_equal(read_tokens(half)[1], tokens[..., :1])
    codec.decompress(half, tmp_path / "half.wav")


def test_streams_decode_to_what_the_batch_does(tmp_path):
    # A vocoder without F0: that of a random network is so unsure that 1e-6 in
    # its logits moves it by a step of its grid, which the phase sums up.
    folder = make_tiny_model(tmp_path, head="free", dynamic=True)
    codec = FlowMACCodec.from_hparams(folder, run_opts={"device": "cpu"})
    wav = torch.from_numpy(speech_like(40.0, seed=6))[None]
    tokens, lengths = codec.encode_frames(wav, frame_rate=8.0)
    heard = codec.decode_batch(tokens, lengths, seed=2)
    parts = codec.coder().decode(tokens.split(100, 1), codec.sampling(), 2)
    streamed = torch.cat(list(parts), 1)
    assert streamed.shape == heard.shape
    torch.testing.assert_close(streamed, heard, atol=1e-4, rtol=1e-3)


def test_streams_of_other_widths_are_refused(codec):
    from dataclasses import replace

    header = codec.header()
    codec.check_stream(header)
    with pytest.raises(StreamMismatchError, match="first codebook 10"):
        codec.check_stream(replace(header, first_code_bits=10))


def test_rates_are_stated(codec, fixed):
    assert codec.code_bits == [9, 4, 4, 4]
    assert codec.bit_rate() == 23.4375 * 22
    assert codec.bit_rate(2, merged_rate=8.0) == 8 * 13 + 23.4375
    assert fixed.bit_rate() == 3000


def test_other_recipes_get_frames_of_time(folder):
    tokenizer = FlowMACTokenizer(str(folder), num_codebooks=2)
    wavs, lengths = batch()
    tokens, frames = tokenizer.encode_batch(wavs, lengths)
    assert tokens.shape == (3, 40, 2)
    assert torch.equal(frames, -(-lengths // HOP))


def test_statistics_of_tokens_know_each_codebook():
    shard = dict(
        counts=[[1, 1, 0, 0], [2, 0, 0, 0]],
        audio_seconds=1.0,
        frames=2,
        process_seconds=1.0,
        failures={},
    )
    summary = summarise([shard], 1, codebook_sizes=[4, 2])
    assert summary["used"] == [0.5, 0.5]
    assert (summary["code_bits"], summary["bits"]) == ([2, 1], 2 * 3)


# What is let in


def test_durations_that_cannot_be_are_refused():
    tokens = torch.zeros(1, 3, 1, dtype=torch.long)
    for durations in ([[1, 0, 2]], [[0, 1, 1]], [[1, -1, 0]]):
        with pytest.raises(ValueError, match="1 or more, and 0 only past"):
            admit_tokens(tokens, torch.tensor(durations), [4])
    with pytest.raises(ValueError, match=r"integers \[1, 3\], found"):
        admit_tokens(tokens, torch.ones(1, 2, dtype=torch.long), [4])
    with pytest.raises(ValueError, match="a length for each of 1 items"):
        admit_tokens(tokens, torch.ones(1, 3), [4])


def test_each_codebook_has_its_own_limit(codec):
    tokens = torch.tensor([[[511, 15, 15, 15]]])
    codec.decode_batch(tokens)
    for k, size in enumerate((512, 16, 16, 16)):
        wrong = tokens.clone()
        wrong[..., k] = size
        with pytest.raises(ValueError, match=rf"0\.\.{size - 1}, .* {k} of"):
            codec.decode_batch(wrong)


# Training


def test_training_draws_rates_and_hears_both_streams(folder):
    model = FlowMACCodec.from_hparams(folder, freeze_params=False).codec
    model.train()
    torch.manual_seed(0)
    rates = [model._drawn_rate() for _ in range(200)]
    assert 5 <= min(rates) < 6 and 20 < max(rates) <= model.frame_rate
    wavs, lengths = batch()
    losses = model(wavs, lengths, torch.Generator())
    assert losses.tokens.shape == (3, 40, 4)
    weighted = (
        model.flow_weight * losses.flow
        + model.prior_weight * losses.prior
        + model.commitment_weight * losses.commitment
        + model.distillation_weight * losses.distillation
    )
    torch.testing.assert_close(losses.total, weighted)


def test_identity_covers_recogniser_and_aggregator_alone(codec):
    before = codec.fingerprint
    model = codec.codec
    for part, decides in (
        (model.semantic, True),
        (model.aggregator, True),
        (model.encoder.project, True),
        (model.quantizer.leave, True),
        (model.quantizer.teach, False),
        (model.expander, False),
        (model.decoder, False),
    ):
        parameter = next(part.parameters())
        old = parameter.data.clone()
        parameter.data += 1e-3
        assert (codec.fingerprint != before) is decides
        parameter.data.copy_(old)
    assert codec.fingerprint == before


def test_tokens_survive_casts(codec, folder):
    wavs, lengths = batch()
    expected = codec.encode_batch(wavs, lengths)
    cast = FlowMACCodec.from_hparams(folder, run_opts={"device": "cpu"})
    cast.codec.bfloat16()
    with torch.autocast("cpu", torch.bfloat16):
        found = cast.encode_batch(wavs, lengths)
    assert all(map(torch.equal, found, expected))
    assert cast.fingerprint == codec.fingerprint


def test_training_hears_what_files_decode_to(folder):
    model = FlowMACCodec.from_hparams(folder).codec
    wavs, lengths = batch()
    made = model.reconstruct(wavs, *model.analyse(wavs, lengths))
    tokens, counts = model.encode(wavs, lengths)
    assert torch.equal(tokens, made.tokens)
    decoded = model.decode(
        tokens, counts, model.sampling.with_changes(n_steps=0)
    )
    decoded = model.normalizer(decoded)[:, : made.mu.shape[1]]
    mask = model.analyse(wavs, lengths)[1]
    torch.testing.assert_close(decoded[mask], made.mu[mask])


def test_repeated_frames_are_told_apart(codec):
    model = codec.codec
    tokens = torch.zeros(1, 40, 4, dtype=torch.long)
    before = model.decode_mean(tokens)
    old = model.expander.before.data.clone()
    model.expander.before.data[5] += 1.0
    where = (model.decode_mean(tokens) != before).any(-1)[0].nonzero()
    model.expander.before.data.copy_(old)
    reach = model.decoder.receptive_field
    assert 20 in where and where.max() < model.stride * (6 + reach)


def test_representations_are_aligned_where_that_is_asked(folder):
    model = FlowMACCodec.from_hparams(folder, freeze_params=False).codec
    model.train()
    wavs, lengths = batch()
    torch.manual_seed(0)
    assert model(wavs, lengths, torch.Generator()).alignment is None
    model.alignment_loss = RepresentationAlignment(8, 8)
    model.alignment_weight = 3.0
    model.quantizer.frozen = True
    totals = []
    for _ in range(2):
        torch.manual_seed(0)
        losses = model(wavs, lengths, torch.Generator().manual_seed(0))
        totals.append(losses.total - model.alignment_weight * losses.alignment)
        model.alignment_weight = 0.0
    torch.testing.assert_close(*totals)
    losses.alignment.backward()
    assert model.decoder.bottleneck.blocks[0].qkv.weight.grad.abs().sum() > 0
    assert all(p.grad is None for p in model.semantic.parameters())


def test_the_recipe_starts_as_the_shipped_model():
    yaml = Path(__file__).parents[2] / "hparams" / "flowmac_dynamic.yaml"
    hparams = load_hyperpyyaml(yaml.read_text("utf-8"))
    assert hparams["pretrained"] == "flowmac-24khz-3kbps"
    start_from_pretrained(hparams, "codec")
    model = hparams["codec"]
    shipped = FlowMACCodec.from_hparams(hparams["pretrained"]).codec
    assert model.hop_length == 2 * shipped.hop_length
    for mine, theirs in (
        (model.encoder.encoder, shipped.encoder),
        (model.decoder.decoder, shipped.decoder),
        (model.normalizer, shipped.normalizer),
    ):
        for name, value in theirs.state_dict().items():
            assert torch.equal(mine.state_dict()[name], value), name
    velocity = model.flow.adopt(shipped.flow.state_dict())
    for name, value in model.flow.state_dict().items():
        assert torch.equal(velocity[name], value), name
    # one frame of time for each run, unquantized: what the shipped one hears
    mel = torch.randn(1, 32, 100)
    latents = model.encoder(mel).unflatten(-1, (2, -1)).flatten(1, 2)
    expected = shipped.quantizer._enter(shipped.encoder(mel))
    torch.testing.assert_close(latents, expected)
    torch.testing.assert_close(
        model.decoder(model.encoder(mel)),
        shipped.decoder(shipped.quantizer._leave(expected)),
    )


def test_what_the_recipe_makes_can_be_exported():
    yaml = Path(__file__).parents[2] / "hparams" / "flowmac_dynamic.yaml"
    text = resolve_references(yaml.read_text("utf-8")).getvalue()
    codec = text[text.index("\ncodec:") : text.index("\nmodules:")]
    for name in re.findall(r"!new:(\S+)", codec):
        assert name.startswith("speechbrain_flowmac."), name


def test_codebooks_start_from_what_they_are_to_code(folder):
    yaml = Path(folder, "hyperparams.yaml").read_text(encoding="utf-8")
    yaml = yaml.replace("kmeans_iterations: 0", "kmeans_iterations: 5")
    model = load_hyperpyyaml(yaml)["codec"].train()
    assert not model.quantizer.initialised
    wavs, lengths = batch()
    wavs = wavs.repeat(4, 1) + 0.01 * torch.randn(12, wavs.shape[1])
    data = [(wavs[:6], lengths.repeat(2)), (wavs[6:], lengths.repeat(2))]
    torch.manual_seed(0)
    model.start_codebooks(data)
    assert model.quantizer.initialised
    model.eval()
    _, latents, runs = model._merge(
        *(wavs, *model.analyse(wavs, lengths.repeat(4))), model.merging
    )
    known = latents[runs > 0][None]
    tokens = model.quantizer.acoustic.encode(known)
    left = known - model.quantizer.acoustic.decode(tokens)
    assert left.square().mean() < 0.3 * known.var()


def test_a_fixed_codec_is_a_start(codec, fixed, folder, tmp_path):
    from safetensors.torch import save_file

    start = FlowMACCodec.from_hparams(folder, run_opts={"device": "cpu"}).codec
    own = {k: v.clone() for k, v in start.state_dict().items()}
    state = {k: v.clone() for k, v in fixed.codec.state_dict().items()}
    save_file(state, str(tmp_path / "codec.safetensors"))
    load_weights(start, tmp_path / "codec.safetensors", start.adopt)
    adopted = 0
    for name, value in start.state_dict().items():
        part, _, rest = name.partition(".")
        old = f"{part}.{rest.removeprefix(part + '.')}"
        if rest.startswith("project."):
            old = {"encoder": "in", "decoder": "out"}[part]
            old = f"quantizer.project_{old}.{rest.removeprefix('project.')}"
        adopted += old in state
        assert torch.equal(value, state.get(old, own[name])), name
    unused = [name for name in state if ".rvq." in name]
    assert adopted == len(state) - len(unused)
    load_weights(start, get_file(folder, "codec.safetensors"), start.adopt)
    assert all(torch.equal(v, own[k]) for k, v in start.state_dict().items())


def test_streams_hold_what_write_stream_says(codec):
    file = io.BytesIO()

    class Noise:
        num_channels, num_samples = 2, 30000

        def blocks(self):
            yield torch.from_numpy(
                np.stack([speech_like(1.25, seed) for seed in (1, 2)])
            )

    summary = codec.write_stream(Noise(), file, frame_rate=10.0)
    assert summary.stream_bytes == len(file.getvalue())
    assert summary.num_frames == -(-30000 // HOP)
