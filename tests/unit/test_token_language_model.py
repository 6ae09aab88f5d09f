"""The language model of tokens: causality, batches, generation, learning."""

import math

import pytest
import torch

from speechbrain_flowmac.lobes.token_embedding import FrameRateEmbedding
from speechbrain_flowmac.lobes.token_language_model import (
    IGNORED,
    TokenLanguageModel,
    prefix_mask,
)

SIZES = [16, 5, 9]
SYMBOLS = 7
MAX_FRAMES = 12


def make(condition=None, seed=0):
    torch.manual_seed(seed)
    return TokenLanguageModel(
        SYMBOLS, SIZES, 32, 2, num_heads=2, dropout=0.0, condition=condition
    ).eval()


def data(seed=0):
    """Three texts with their tokens, padded with what must not matter."""
    generator = torch.Generator().manual_seed(seed)
    text = torch.randint(SYMBOLS, (3, 6), generator=generator)
    text_lengths = torch.tensor([4, 6, 1])
    tokens = torch.stack(
        [torch.randint(c, (3, 8), generator=generator) for c in SIZES], dim=2
    )
    return text, text_lengths, tokens, torch.tensor([8, 3, 5])


@pytest.fixture
def model():
    return make()


# Teacher forcing


def test_targets_are_codes_and_one_end(model):
    text, text_lengths, tokens, lengths = data()
    targets = model(text, text_lengths, tokens, lengths).targets
    assert targets.shape == (3, 8 + len(SIZES), len(SIZES))
    for item, length in zip(range(3), lengths.tolist(), strict=True):
        for k in range(len(SIZES)):
            told = targets[item, :, k]
            # codebook k starts k steps later
            codes = told[k : k + length]
            assert codes.tolist() == tokens[item, :length, k].tolist()
            end = [SIZES[0]] if k == 0 else [IGNORED]
            assert told[k + length :][:1].tolist() == end
            rest = torch.cat([told[:k], told[k + length + 1 :]])
            assert (rest == IGNORED).all()


def test_likelihoods_are_those_of_a_uniform_guess(model):
    for parameter in model.output.parameters():
        torch.nn.init.zeros_(parameter)
    nats, counts = model(*data()).nll()
    assert counts.tolist() == [16 + 3, 16, 16]
    guess = [math.log(size) for size in (SIZES[0] + 1, *SIZES[1:])]
    torch.testing.assert_close(nats / counts, torch.tensor(guess))


def test_later_tokens_do_not_change_earlier_logits(model):
    text, text_lengths, tokens, lengths = data()
    lengths = torch.full_like(lengths, 8)
    before = model(text, text_lengths, tokens, lengths).logits
    changed = tokens.clone()
    changed[:, 4] = (changed[:, 4] + 1) % 5
    after = model(text, text_lengths, changed, lengths).logits
    for k, (old, new) in enumerate(zip(before, after, strict=True)):
        # frame 4 of the first codebook is told at step 4, and heard after
        torch.testing.assert_close(old[:, :5], new[:, :5])
        assert not torch.allclose(old[:, 5], new[:, 5]), k


def test_every_symbol_changes_every_logit(model):
    text, text_lengths, tokens, lengths = data()
    before = model(text, text_lengths, tokens, lengths).logits
    for u in range(4):
        changed = text.clone()
        changed[0, u] = (changed[0, u] + 1) % SYMBOLS
        after = model(changed, text_lengths, tokens, lengths).logits
        difference = (before[0] - after[0])[0].abs().amax(-1)
        assert (difference > 0).all()


def test_an_item_is_told_as_if_it_were_alone(model):
    text, text_lengths, tokens, lengths = data()
    batch = model(text, text_lengths, tokens, lengths)
    for i in range(3):
        n, u = int(lengths[i]), int(text_lengths[i])
        single = model(
            text[i : i + 1, :u],
            text_lengths[i : i + 1],
            tokens[i : i + 1, :n],
            lengths[i : i + 1],
        )
        steps = single.targets.shape[1]
        assert torch.equal(batch.targets[i, :steps], single.targets[0])
        assert (batch.targets[i, steps:] == IGNORED).all()
        for together, alone in zip(batch.logits, single.logits, strict=True):
            torch.testing.assert_close(
                together[i, :steps], alone[0], atol=1e-5, rtol=1e-5
            )


def test_a_prefix_sees_itself_and_its_padding_is_not_seen():
    mask = prefix_mask(3, torch.tensor([0, 2]), 0, 5)[:, 0]
    assert mask[0, :3, :3].all() and not mask[0, :3, 3:].any()
    assert mask[0, 4].all() and not mask[0, 3, 4]
    assert not mask[1, :, :2].any() and mask[1, :, 2].all()
    part = prefix_mask(3, torch.tensor([0, 2]), 4, 5)[:, 0]
    assert torch.equal(part, mask[:, 4:])


# Generation


def generate(model, text, text_lengths, *condition, **options):
    options = {"max_frames": MAX_FRAMES, **options}
    return model.generate(text, text_lengths, *condition, **options)


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_steps_have_the_logits_of_teacher_forcing(model, seed, monkeypatch):
    text, text_lengths, _, _ = data()
    heard = []
    draw = TokenLanguageModel._draw

    def spy(self, scores, *args):
        heard.append(scores.clone())
        return draw(self, scores, *args)

    monkeypatch.setattr(TokenLanguageModel, "_draw", spy)
    codes, lengths = generate(model, text, text_lengths, seed=seed)
    forced = model(text, text_lengths, codes, lengths)
    stepped = torch.stack(heard, dim=1).split(model.num_classes, dim=-1)
    assert len(heard) == forced.targets.shape[1]
    for k, (logits, scores) in enumerate(
        zip(forced.logits, stepped, strict=True)
    ):
        told = forced.targets[..., k] != IGNORED
        if k == 0:
            # that the first frame is no end is not the model's to say
            assert (scores[:, 0, -1] == -torch.inf).all()
            told[:, 0] = False
        assert told.any()
        torch.testing.assert_close(
            scores[told], logits[told], atol=1e-5, rtol=1e-5
        )


def test_each_item_is_said_as_if_it_were_alone(model):
    text, text_lengths, _, _ = data()
    codes, lengths = generate(model, text, text_lengths, seed=3)
    assert codes.shape == (3, int(lengths.max()), len(SIZES))
    for i in range(3):
        u, n = int(text_lengths[i]), int(lengths[i])
        alone, length = generate(
            model, text[i : i + 1, :u], text_lengths[i : i + 1], seed=3
        )
        assert length.item() == n
        assert torch.equal(alone[0], codes[i, :n])
        assert not codes[i, n:].any()


def test_codes_are_those_of_their_codebook_and_of_the_seed(model):
    text, text_lengths, _, _ = data()
    drawn = [generate(model, text, text_lengths, seed=s)[0] for s in (0, 0, 1)]
    assert torch.equal(drawn[0], drawn[1])
    assert not torch.equal(drawn[0], drawn[2])
    many = [generate(model, text, text_lengths, seed=s)[0] for s in range(20)]
    largest = torch.stack([codes.amax((0, 1)) for codes in many]).amax(0)
    assert (largest < torch.tensor(SIZES)).all()
    # codebooks do not share the smallest one's entries
    assert largest[0] > SIZES[1]


def test_the_global_generator_is_left_alone(model):
    text, text_lengths, _, _ = data()
    torch.manual_seed(5)
    before = torch.get_rng_state()
    generate(model, text, text_lengths)
    assert torch.equal(torch.get_rng_state(), before)


def set_end(model, logit):
    """The end is as likely as said, whatever came before."""
    with torch.no_grad():
        model.output.weight[SIZES[0]] = 0.0
        model.output.bias[SIZES[0]] = logit


def test_the_end_stops_it_but_not_before_a_frame(model):
    text, text_lengths, _, _ = data()
    set_end(model, 100.0)
    codes, lengths = generate(model, text, text_lengths)
    assert lengths.tolist() == [1, 1, 1]
    assert codes.shape == (3, 1, len(SIZES))


@pytest.mark.parametrize("max_frames", [1, 2, 7])
def test_what_does_not_end_is_stopped(model, max_frames):
    text, text_lengths, _, _ = data()
    set_end(model, -100.0)
    codes, lengths = generate(model, text, text_lengths, max_frames=max_frames)
    assert lengths.tolist() == [max_frames] * 3
    assert codes.shape[1] == max_frames


def test_few_and_cold_codes_are_the_likeliest(model):
    text, text_lengths, _, _ = data()
    greedy = generate(model, text, text_lengths, top_k=1, seed=0)
    for options in ({"top_k": 1, "seed": 9}, {"temperature": 1e-4}):
        other = generate(model, text, text_lengths, **options)
        for a, b in zip(greedy, other, strict=True):
            assert torch.equal(a, b)


@pytest.mark.parametrize("wrong", [{"temperature": 0}, {"max_frames": 0}])
def test_what_cannot_be_drawn_is_refused(model, wrong):
    text, text_lengths, _, _ = data()
    with pytest.raises(ValueError, match="greedy is top_k=1"):
        generate(model, text, text_lengths, **wrong)


def test_a_condition_is_told_where_one_is_expected_and_nowhere_else(model):
    rates = torch.full((3,), 8.3)
    for told, condition in (
        (make(FrameRateEmbedding(32)), None),
        (model, rates),
    ):
        with pytest.raises(ValueError, match="expected condition for"):
            told(*data(), condition)


def test_draws_have_the_frequencies_of_the_softmax(model):
    scores = torch.zeros(1, sum(model.num_classes))
    scores[0, :4] = torch.tensor([0.5, 0.3, 0.15, 0.05]).log()
    scores[0, 4 : model.num_classes[0]] = -torch.inf
    generator = torch.Generator().manual_seed(0)
    count = 4000
    drawn = [model._draw(scores, None, [generator])[0, 0] for _ in range(count)]
    found = torch.stack(drawn).bincount(minlength=4) / count
    # 4 standard deviations of the most frequent one
    torch.testing.assert_close(
        found, torch.tensor([0.5, 0.3, 0.15, 0.05]), atol=0.032, rtol=0
    )


# Learning


def learn(model, batch, steps, condition=None):
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    losses = []
    for _ in range(steps):
        nats, counts = model(*batch, condition).nll()
        loss = nats.sum() / counts.sum()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses


def assert_said(model, batch, *condition):
    text, text_lengths, tokens, lengths = batch
    codes, found = generate(model, text, text_lengths, *condition, top_k=1)
    assert found.tolist() == lengths.tolist()
    for item, other, n in zip(codes, tokens, lengths.tolist(), strict=True):
        assert torch.equal(item[:n], other[:n])


def test_three_sentences_are_learnt_by_heart(model):
    batch = data()
    losses = learn(model, batch, 150)
    assert losses[-1] < 0.02 * losses[0]
    assert_said(model, batch)


def test_a_rate_tells_what_a_text_does_not():
    model = make(FrameRateEmbedding(32))
    text, text_lengths, tokens, lengths = data()
    text, text_lengths = text[:1].expand(3, -1), text_lengths[:1].expand(3)
    batch = text, text_lengths, tokens, lengths
    rates = torch.tensor([5.0, 8.3, 12.5])
    learn(model, batch, 150, rates)
    assert_said(model, batch, rates)
