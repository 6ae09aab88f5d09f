"""Recognisers: exact lengths, padding that changes nothing, targets."""

import pytest
import torch
from speechbrain.decoders.ctc import CTCPrefixBeamSearcher, ctc_greedy_decode

from speechbrain_flowmac.lobes.ctc_recogniser import (
    ConformerEncoder,
    CTCRecogniser,
    LSTMEncoder,
    TokenFrontEnd,
)
from speechbrain_flowmac.training.targets import (
    Characters,
    WordPieces,
    english_letters,
)

LENGTHS = torch.tensor([9, 4, 1])


@pytest.fixture(autouse=True)
def seeded():
    torch.manual_seed(0)


def recogniser(front_end, encoder):
    return CTCRecogniser(front_end, encoder, 16, 29).eval()


@pytest.mark.parametrize(
    "x, front_end",
    [
        (torch.randint(256, (3, 9, 8)), TokenFrontEnd(8, 256, 16)),
        (torch.randn(3, 9, 128), torch.nn.Linear(128, 16)),
    ],
    ids=["tokens", "mels"],
)
def test_a_batch_is_heard_as_its_items(x, front_end):
    model = recogniser(front_end, LSTMEncoder(16, 2))
    scores, lengths = model(x, LENGTHS)
    assert scores.shape == (3, 5, 29)
    assert lengths.tolist() == [5, 2, 1]
    torch.testing.assert_close(scores.exp().sum(-1), torch.ones(3, 5))
    for i, length in enumerate(LENGTHS.tolist()):
        alone, _ = model(x[i : i + 1, :length], LENGTHS[i : i + 1])
        torch.testing.assert_close(scores[i, : lengths[i]], alone[0])


def test_the_conformer_takes_the_place_of_the_lstm():
    front_end = TokenFrontEnd(8, 256, 16)
    model = recogniser(front_end, ConformerEncoder(16, 1, num_heads=2))
    scores, lengths = model(torch.randint(256, (3, 9, 8)), LENGTHS)
    assert scores.shape == (3, 5, 29) and lengths.tolist() == [5, 2, 1]


def test_all_parts_learn():
    model = recogniser(TokenFrontEnd(8, 256, 16), LSTMEncoder(16, 1)).train()
    scores, lengths = model(torch.randint(256, (3, 9, 8)), LENGTHS)
    scores[..., 0].sum().backward()
    assert all(p.grad is not None for p in model.parameters())


@pytest.mark.parametrize(
    "text, letters",
    [
        ("MIKE LIKES IT", "mike likes it"),
        ("Don’t -- go, 7 times!", "don't go times"),
        ("été  ", "t"),
        ("1984", ""),
    ],
)
def test_text_becomes_letters(text, letters):
    assert english_letters(text) == letters


def test_characters_and_back():
    characters = Characters()
    assert len(characters.vocabulary) == 29
    text = "it's so quick"
    numbers = characters.encode(text)
    assert min(numbers) >= 1  # 0 is the blank
    assert characters.decode(numbers) == text


def test_pieces_and_back(tmp_path):
    texts = ["the cat sat", "the dog sat on the cat", "a dog and a cat"] * 4
    pieces = WordPieces(tmp_path / "pieces.model", num_pieces=14)
    pieces.fit(texts)
    written = (tmp_path / "pieces.model").read_bytes()
    pieces.fit(["something else"])
    assert (tmp_path / "pieces.model").read_bytes() == written
    assert len(pieces.vocabulary) == 15
    for text in texts[:3]:
        numbers = pieces.encode(text)
        assert min(numbers) >= 1
        assert pieces.decode(numbers) == text
        assert len(numbers) < len(text)


@pytest.mark.parametrize("kind", ["characters", "pieces"])
def test_searches_find_what_is_certain(kind, tmp_path):
    targets = Characters()
    if kind == "pieces":
        targets = WordPieces(tmp_path / "pieces.model", num_pieces=14)
        targets.fit(["the cat sat", "the dog sat on the cat"] * 4)
    text = "the cat sat"
    path = [0]
    for number in targets.encode(text):
        path += [number, number, 0]
    scores = torch.full((1, len(path), len(targets.vocabulary)), -20.0)
    scores[0, torch.arange(len(path)), path] = -1e-3
    (greedy,) = ctc_greedy_decode(scores, torch.ones(1), 0)
    assert targets.decode(greedy) == text
    search = CTCPrefixBeamSearcher(0, targets.vocabulary, beam_size=10)
    ((best, *_),) = search(scores, torch.ones(1))
    assert best.text == text
