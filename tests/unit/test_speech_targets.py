"""What a synthesiser says: codebooks, durations, rates, and their sound."""

from types import SimpleNamespace

import pytest
import soundfile
import torch
from corpus import speech_like
from tiny_model import make_tiny_model

from speechbrain_flowmac.lobes.token_language_model import TokenLanguageModel
from speechbrain_flowmac.tokenizer import FlowMACTokenizer
from speechbrain_flowmac.training.speech_targets import (
    MergedTokenTargets,
    TokenTargets,
)


@pytest.fixture(scope="module")
def dynamic(tmp_path_factory):
    folder = tmp_path_factory.mktemp("model")
    return FlowMACTokenizer(make_tiny_model(folder, dynamic=True))


@pytest.fixture(scope="module")
def wav(tmp_path_factory):
    path = tmp_path_factory.mktemp("wav") / "a.wav"
    soundfile.write(path, speech_like(3.0, 1), 24000)
    return str(path)


def merged(tokenizer, rates=(5.0, 20.0), epoch=1, num_codebooks=3):
    counter = SimpleNamespace(current=epoch)
    return MergedTokenTargets(tokenizer, num_codebooks, rates, 7, counter)


def one(codes):
    """A batch of one item."""
    return codes.unsqueeze(0), torch.tensor([len(codes)])


def test_durations_are_the_second_codebook(dynamic, wav):
    targets = merged(dynamic)
    assert targets.codebook_sizes == [512, 8, 16, 16]
    codes = targets("a", wav)
    assert codes.shape[1] == 4
    frames = dynamic.encode_batch(torch.from_numpy(speech_like(3.0, 1))[None])[
        1
    ]
    assert (codes[:, 1] + 1).sum() == frames.item()
    assert (codes < torch.tensor(targets.codebook_sizes)).all()
    assert len(targets.vectors) == sum(targets.codebook_sizes)


def test_tokens_are_those_of_the_codec_at_the_rate(dynamic, wav):
    codes = merged(dynamic, rates=(9.0, 9.0))("a", wav)
    signal = torch.from_numpy(soundfile.read(wav, dtype="float32")[0])[None]
    tokens, durations = dynamic.codec.encode_batch(
        signal, num_codebooks=3, frame_rate=9.0
    )
    assert torch.equal(codes[:, [0, 2, 3]], tokens[0])
    assert torch.equal(codes[:, 1] + 1, durations[0])
    found = merged(dynamic).frame_rates(*one(codes))
    seconds = durations.sum() / dynamic.frame_rate
    torch.testing.assert_close(found, (len(codes) / seconds)[None])
    assert found.item() <= 9.0


def test_each_epoch_and_utterance_has_a_rate_of_its_own(dynamic, wav):
    counts = {
        (epoch, name): len(merged(dynamic, epoch=epoch)(name, wav))
        for epoch in range(4)
        for name in "ab"
    }
    again = {
        (epoch, name): len(merged(dynamic, epoch=epoch)(name, wav))
        for epoch, name in counts
    }
    assert counts == again
    assert len({counts[epoch, "a"] for epoch in range(4)}) > 1
    assert any(counts[epoch, "a"] != counts[epoch, "b"] for epoch in range(4))


def test_the_sound_lasts_as_long_as_the_durations_say(dynamic, wav):
    targets = merged(dynamic)
    codes = targets("a", wav)
    codes[:, 1] = torch.arange(len(codes)) % 8
    sound = targets.decode(*one(codes), seed=1)
    assert sound.shape == (1, int((codes[:, 1] + 1).sum()) * 1024)
    shorter = targets.decode(codes[None], torch.tensor([2]), seed=1)
    assert shorter.shape == (1, (1 + 2) * 1024)


def test_whatever_a_model_says_has_a_sound(dynamic):
    targets = merged(dynamic)
    torch.manual_seed(0)
    model = TokenLanguageModel(
        5, targets.codebook_sizes, 16, 1, 2, vectors=targets.vectors
    ).eval()
    text = torch.tensor([[1, 2], [3, 0]]), torch.tensor([2, 1])
    codes, lengths = model.generate(*text, max_frames=5)
    sound = targets.decode(codes, lengths)
    last = [
        int((item[:n, 1] + 1).sum())
        for item, n in zip(codes, lengths.tolist(), strict=True)
    ]
    assert sound.shape == (2, 1024 * max(last))
    assert sound.isfinite().all()


def test_a_fixed_rate_has_codes_alone(tmp_path):
    tokenizer = FlowMACTokenizer(make_tiny_model(tmp_path))
    targets = TokenTargets(tokenizer, 2)
    assert targets.codebook_sizes == [256, 256]
    assert len(targets.vectors) == 512
    codes = torch.randint(256, (1, 4, 2))
    lengths = torch.tensor([4])
    assert targets.frame_rates(codes, lengths) is None
    sound = targets.decode(codes, lengths, seed=3)
    assert sound.shape == (1, 4 * 512)
    assert torch.equal(sound, targets.decode(codes, lengths, seed=3))
    with pytest.raises(ValueError, match="dynamic frame rate, found"):
        merged(tokenizer)
