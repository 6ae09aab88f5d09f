"""The tokenizer inside other recipes: DASB's contract and SpeechBrain's."""

import pytest
import soundfile
import speechbrain as sb
import torch
from corpus import speech_like
from speechbrain.dataio.batch import PaddedBatch
from speechbrain.dataio.dataset import DynamicItemDataset
from speechbrain.utils.checkpoints import Checkpointer
from tiny_model import make_tiny_model
from torch.utils.data import DataLoader

from speechbrain_flowmac import FlowMACCodec
from speechbrain_flowmac.inference import VocoderNotLoadedError
from speechbrain_flowmac.tokenizer import FlowMACTokenizer

LENGTHS = [24000, 16001, 7999]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return make_tiny_model(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module")
def tokenizer(folder):
    return FlowMACTokenizer(folder)


@pytest.fixture(scope="module")
def codec(folder):
    return FlowMACCodec.from_hparams(folder, run_opts={"device": "cpu"})


def utterances(sample_rate=24000):
    """Speech of the durations of `LENGTHS` at 24 kHz."""
    return [
        torch.as_tensor(speech_like(length / 24000, i, sample_rate))
        for i, length in enumerate(LENGTHS)
    ]


def padded(signals):
    """A batch [B, T] and its relative lengths, as PaddedBatch makes them."""
    batch = PaddedBatch([{"sig": signal} for signal in signals])
    return batch.sig.data, batch.sig.lengths


@pytest.fixture
def manifest(tmp_path):
    """A SpeechBrain manifest of the utterances."""
    entries = {}
    for i, signal in enumerate(utterances()):
        path = tmp_path / f"{i}.wav"
        soundfile.write(path, signal.numpy(), 24000, subtype="FLOAT")
        entries[f"utt{i}"] = {"wav": str(path)}
    return entries


def test_contract_of_dasb_through_speechbrains_data(manifest, folder, codec):
    """What DASB's recipes call, in their order, on what its loaders give."""
    yaml = f"""
    tokenizer: !new:speechbrain_flowmac.tokenizer.FlowMACTokenizer
        source: {folder}
    """
    from hyperpyyaml import load_hyperpyyaml

    tokenizer = load_hyperpyyaml(yaml)["tokenizer"]
    assert tokenizer.sample_rate == 24000
    tokenizer.device = "cpu"  # as its TTS recipes do

    dataset = DynamicItemDataset(manifest)
    dataset.add_dynamic_item(sb.dataio.dataio.read_audio, "wav", "sig")
    dataset.set_output_keys(["id", "sig"])
    (batch,) = DataLoader(dataset, batch_size=3, collate_fn=PaddedBatch)
    signal, lengths = batch.sig

    # extraction: tokens of each utterance, then the embeddings
    tokens = tokenizer.sig_to_tokens(signal, lengths, num_codebooks=4)
    assert tokens.dtype == torch.int64 and tokens.shape == (3, 47, 4)
    exact, frames = tokenizer.encode_batch(signal, lengths, num_codebooks=4)
    assert frames.tolist() == [47, 32, 16]
    for i, item in enumerate(utterances()):
        alone, _ = codec.encode_batch(item[None], num_codebooks=4)
        assert torch.equal(exact[i, : frames[i]], alone[0])
    vectors = tokenizer.get_pretrained_embeddings(
        vocab_size=256, num_codebooks=4
    )
    assert vectors.shape == (4 * 256, codec.vocabulary.shape[-1])
    rows = tokens + 256 * torch.arange(4)
    torch.testing.assert_close(
        vectors[rows].sum(2), codec.codec.quantizer.decode(tokens)
    )

    # synthesis, with an argument that only other tokenizers know
    wav = tokenizer.tokens_to_sig(tokens, length=lengths, bandwidth=6.0)
    assert wav.shape == (3, 47 * 512)
    with pytest.raises(ValueError, match="1..8"):
        tokenizer.sig_to_tokens(signal, lengths, num_codebooks=9)
    with pytest.raises(ValueError, match="256"):
        tokenizer.get_pretrained_embeddings(vocab_size=1024)


def test_contract_of_speechbrains_own_wrappers(tokenizer, codec):
    signal, lengths = padded(utterances())
    tokens, vectors = tokenizer(signal, lengths)
    assert tokens.shape == (3, 47, 8) and vectors.shape == (3, 47, 8, 8)
    assert torch.equal(vectors, tokenizer.embeddings(tokens))
    assert torch.equal(tokenizer.encode(signal, lengths)[0], tokens)
    wav = tokenizer.decode(tokens, lengths, seed=1)
    assert wav.shape == (3, 1, 47 * 512)
    assert torch.equal(
        wav[:, 0], tokenizer.tokens_to_sig(tokens, length=lengths, seed=1)
    )
    again = tokenizer.reconstruct(signal, lengths, seed=1)
    assert torch.equal(again, wav)
    assert tokenizer.vocabulary.shape == (8, 256, 8)
    assert torch.equal(tokenizer.vocabulary, codec.vocabulary)
    names = ("num_heads", "num_tokens", "emb_dim", "frame_rate", "hop_length")
    values = [getattr(tokenizer, name) for name in names]
    assert values == [8, 256, 8, 46.875, 512]
    with pytest.raises(ValueError, match="0..255"):
        tokenizer.embeddings(torch.full((1, 2, 8), 256))


def test_a_channel_of_one_is_accepted(tokenizer):
    signal, lengths = padded(utterances())
    assert torch.equal(
        tokenizer.sig_to_tokens(signal.unsqueeze(1), lengths),
        tokenizer.sig_to_tokens(signal, lengths),
    )


def test_it_can_be_made_for_fewer_codebooks(folder, codec):
    tokenizer = FlowMACTokenizer(folder, num_codebooks=2)
    signal, lengths = padded(utterances())
    tokens = tokenizer.sig_to_tokens(signal, lengths)
    assert torch.equal(tokens, codec.sig_to_tokens(signal, lengths, 2))
    assert tokenizer.vocabulary.shape == (2, 256, 8)
    assert tokenizer.get_pretrained_embeddings().shape == (512, 8)
    assert tokenizer.sig_to_tokens(signal, num_codebooks=3).shape[2] == 3
    with pytest.raises(ValueError, match="1..8"):
        FlowMACTokenizer(folder, num_codebooks=9)


def test_the_vocoder_is_read_when_sound_is_asked_for(folder, tmp_path):
    copy = tmp_path / "model"
    copy.mkdir()
    for path in folder.iterdir():
        if path.name != "vocoder.safetensors":
            (copy / path.name).write_bytes(path.read_bytes())
    tokenizer = FlowMACTokenizer(copy)
    signal, lengths = padded(utterances())
    tokens = tokenizer.sig_to_tokens(signal, lengths)
    with pytest.raises(VocoderNotLoadedError):
        tokenizer.codec.decode_batch(tokens)
    vocoder = (folder / "vocoder.safetensors").read_bytes()
    (copy / "vocoder.safetensors").write_bytes(vocoder)
    assert tokenizer.tokens_to_sig(tokens).shape == (3, 47 * 512)
    assert torch.equal(tokenizer.sig_to_tokens(signal, lengths), tokens)


# Rates


@pytest.mark.parametrize("sample_rate", [16000, 22050, 48000])
def test_other_rates_are_resampled(folder, sample_rate):
    tokenizer = FlowMACTokenizer(folder, sample_rate=sample_rate)
    signals = utterances(sample_rate)
    signal, lengths = padded(signals)
    signal[2, len(signals[2]) :] = 0.5  # what no item may hear
    tokens, frames = tokenizer.encode_batch(signal, lengths)
    for i, item in enumerate(signals):
        alone, count = tokenizer.encode_batch(item[None])
        expected = -(-len(item) * 24000 // sample_rate)
        assert count.item() == -(-expected // 512) == frames[i]
        assert torch.equal(tokens[i, : frames[i]], alone[0])
    wav = tokenizer.tokens_to_sig(tokens)
    assert wav.shape[1] == -(-47 * 512 * sample_rate // 24000)


@pytest.mark.parametrize("sample_rate", [16000, 44100])
def test_tokens_at_another_rate_are_those_of_a_file(
    folder, codec, tmp_path, sample_rate
):
    tokenizer = FlowMACTokenizer(folder, sample_rate=sample_rate)
    for i, signal in enumerate([*utterances(sample_rate), torch.ones(1, 1)[0]]):
        path = tmp_path / f"{i}.wav"
        soundfile.write(path, signal.numpy(), sample_rate, subtype="FLOAT")
        tokens = tokenizer.sig_to_tokens(signal[None])
        assert torch.equal(tokens[0], codec.encode_file(path)[0])


@pytest.mark.parametrize("rate", [0, -16000, 16000.5, "16000", True])
def test_rates_that_are_none_are_refused(folder, rate):
    with pytest.raises(ValueError, match=f"of Hz, found {rate!r}"):
        FlowMACTokenizer(folder, sample_rate=rate)


# Inside a Brain


class Classifier(sb.Brain):
    """A downstream task on tokens, all of it in `modules`."""

    def compute_forward(self, batch, stage):
        tokens = self.modules.tokenizer.sig_to_tokens(*batch.sig)
        self.seen = tokens
        vectors = self.modules.tokenizer.embeddings(tokens).sum(2)
        return self.modules.head(vectors).mean((1, 2))

    def compute_objectives(self, predictions, batch, stage):
        return predictions.square().mean()


def brain(folder, head, save_folder=None, **options):
    modules = {"tokenizer": FlowMACTokenizer(folder), "head": head}
    checkpointer = None
    if save_folder is not None:
        # the whole of the modules, as careless people save them
        everything = torch.nn.ModuleDict(modules)
        checkpointer = Checkpointer(save_folder, {"model": everything})
    return Classifier(
        modules,
        lambda parameters: torch.optim.SGD(parameters, 0.1),
        run_opts={"device": "cpu", "noprogressbar": True, **options},
        checkpointer=checkpointer,
    )


def train(task):
    """One epoch of one batch."""
    examples = {str(i): {"sig": s} for i, s in enumerate(utterances())}
    dataset = DynamicItemDataset(examples, output_keys=["sig"])
    task.fit(range(1), dataset, train_loader_kwargs={"batch_size": 3})


def test_it_stays_as_it_is_in_training(folder):
    head = torch.nn.Linear(8, 1)
    task = brain(folder, head)
    before = {k: v.clone() for k, v in head.state_dict().items()}
    codec = task.modules.tokenizer.codec
    weights = {k: v.clone() for k, v in codec.state_dict().items()}
    train(task)
    assert task.modules.training and not codec.training
    assert not any(module.training for module in codec.modules())
    assert not list(task.modules.tokenizer.parameters())
    for name, value in codec.state_dict().items():
        assert torch.equal(value, weights[name]), name
    changed = [
        k for k, v in head.state_dict().items() if (v != before[k]).any()
    ]
    assert changed == ["weight", "bias"]


def test_checkpoints_do_not_hold_it(folder, tmp_path):
    task = brain(folder, torch.nn.Linear(8, 1), tmp_path)
    train(task)
    task.checkpointer.save_checkpoint()
    (checkpoint,) = tmp_path.glob("CKPT*/model.ckpt")
    saved = torch.load(checkpoint, weights_only=True)
    assert sorted(saved) == ["head.bias", "head.weight"]
    assert checkpoint.stat().st_size < 10_000
    resumed = brain(folder, torch.nn.Linear(8, 1), tmp_path)
    resumed.checkpointer.recover_if_possible()
    for name, value in task.modules.head.state_dict().items():
        assert torch.equal(resumed.modules.head.state_dict()[name], value)


def test_precision_does_not_change_the_tokens(folder):
    expected = FlowMACTokenizer(folder).sig_to_tokens(*padded(utterances()))
    task = brain(folder, torch.nn.Linear(8, 1), precision="bf16")
    train(task)
    assert torch.equal(task.seen, expected)
    for convert in ("half", "bfloat16", "double"):
        module = torch.nn.ModuleList([FlowMACTokenizer(folder)])
        tokenizer = getattr(module, convert)()[0]
        tokens = tokenizer.sig_to_tokens(*padded(utterances()))
        assert torch.equal(tokens, expected), convert


def test_precision_does_not_change_the_tokens_of_other_rates(folder):
    tokenizer = FlowMACTokenizer(folder, sample_rate=16000)
    batch = padded(utterances(16000))
    expected = tokenizer.sig_to_tokens(*batch)
    sound = tokenizer.tokens_to_sig(expected, seed=1)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(tokenizer.sig_to_tokens(*batch), expected)
        assert tokenizer.tokens_to_sig(expected, seed=1).dtype == sound.dtype
    torch.set_default_dtype(torch.float64)
    try:
        assert torch.equal(tokenizer.sig_to_tokens(*batch), expected)
    finally:
        torch.set_default_dtype(torch.float32)


def test_it_moves_with_the_brain(folder):
    tokenizer = FlowMACTokenizer(folder)
    torch.nn.ModuleDict({"tokenizer": tokenizer}).to("meta")
    assert tokenizer.device.type == "meta"


def test_training_on_the_embeddings_leaves_the_codec_alone(tmp_path):
    # without factorised codes the codebook itself is the vocabulary
    tokenizer = FlowMACTokenizer(make_tiny_model(tmp_path))
    quantizer = tokenizer.codec.codec.quantizer
    quantizer.project_out = None
    before = quantizer.rvq.codebooks.clone()
    layer = torch.nn.Embedding.from_pretrained(
        tokenizer.get_pretrained_embeddings(), freeze=False
    )
    optimizer = torch.optim.SGD(layer.parameters(), 1.0)
    layer(torch.arange(2048)).sum().backward()
    optimizer.step()
    tokenizer.vocabulary.zero_()
    assert torch.equal(quantizer.rvq.codebooks, before)
    assert (layer.weight != before.flatten(0, 1)).any()


def test_gradients_flow_through_what_follows_the_embeddings(tokenizer):
    head = torch.nn.Linear(8, 1)
    tokens = tokenizer.sig_to_tokens(*padded(utterances()))
    head(tokenizer.embeddings(tokens)).sum().backward()
    assert head.weight.grad.abs().sum() > 0
