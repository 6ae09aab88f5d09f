"""Special tokens, flattening and delays: inverses and exact layouts."""

import pytest
import torch

from speechbrain_flowmac.lobes.token_sequences import (
    SpecialTokens,
    delay_codebooks,
    flatten_codebooks,
    insert_durations,
    take_durations,
    undelay_codebooks,
    unflatten_codebooks,
)

C, K = 16, 4
LENGTHS = torch.tensor([5, 3, 1])


@pytest.fixture
def tokens():
    chance = torch.Generator().manual_seed(0)
    tokens = torch.randint(C, (3, 5, K), generator=chance)
    for item, length in zip(tokens, LENGTHS, strict=True):
        item[length:] = 0  # as the codec gives them
    return tokens


def test_special_tokens_are_no_codes():
    special = SpecialTokens(C)
    numbers = {special.pad, special.begin, special.end}
    assert numbers == set(range(C, special.vocabulary_size))


def test_padding_is_told_from_code_zero(tokens):
    special = SpecialTokens(C)
    tokens[1, 0] = 0
    padded = special.pad_past_end(tokens, LENGTHS)
    assert not padded[1, 0].any()
    assert (padded == special.pad).sum() == K * (15 - LENGTHS.sum())
    assert torch.equal(padded[0], tokens[0])


def test_wrapping_and_back(tokens):
    special = SpecialTokens(C)
    wrapped, lengths = special.wrap(tokens, LENGTHS)
    assert wrapped.shape == (3, 7, K)
    assert lengths.tolist() == [7, 5, 3]
    assert (wrapped[:, 0] == special.begin).all()
    for item, length in zip(wrapped, LENGTHS, strict=True):
        assert (item[length + 1] == special.end).all()
        assert (item[length + 2 :] == special.pad).all()
        assert (item[1 : length + 1] < C).all()
    codes, found = special.unwrap(wrapped)
    assert torch.equal(found, LENGTHS)
    assert torch.equal(codes, tokens)


def test_unwrapping_without_an_end_keeps_all():
    special = SpecialTokens(C)
    generated = torch.full((2, 4, K), 3)
    generated[1, 2, K - 1] = special.end  # one codebook is enough
    codes, lengths = special.unwrap(generated)
    assert lengths.tolist() == [3, 1]
    assert codes[1].tolist() == [[3] * K, [0] * K, [0] * K]


def test_flattening_and_back(tokens):
    flat = flatten_codebooks(tokens, C)
    assert flat.shape == (3, 5 * K)
    book, code = flat // C, flat % C
    assert torch.equal(book, torch.arange(K).repeat(3, 5))
    assert torch.equal(code, tokens.flatten(1))
    assert torch.equal(unflatten_codebooks(flat, K, C), tokens)


def test_what_is_no_flattened_sequence_is_refused(tokens):
    flat = flatten_codebooks(tokens, C)
    with pytest.raises(ValueError, match="whole number"):
        unflatten_codebooks(flat[:, :-1], K, C)
    with pytest.raises(ValueError, match="turn"):
        unflatten_codebooks(flat.roll(1, dims=1), K, C)


def test_flattened_sequences_take_special_tokens(tokens):
    special = SpecialTokens(K * C)
    flat = flatten_codebooks(tokens, C).unsqueeze(-1)
    wrapped, _ = special.wrap(flat, LENGTHS * K)
    codes, lengths = special.unwrap(wrapped)
    assert torch.equal(lengths, LENGTHS * K)
    first = codes[1, : lengths[1], 0][None]
    assert torch.equal(unflatten_codebooks(first, K, C)[0], tokens[1, :3])


def test_delaying_and_back(tokens):
    fill = SpecialTokens(C).pad
    delayed = delay_codebooks(tokens, fill)
    assert delayed.shape == (3, 5 + K - 1, K)
    for k in range(K):
        assert torch.equal(delayed[:, k : k + 5, k], tokens[:, :, k])
    assert (delayed == fill).sum() == 3 * K * (K - 1)
    assert torch.equal(undelay_codebooks(delayed), tokens)
    with pytest.raises(ValueError, match="steps"):
        undelay_codebooks(delayed[:, : K - 1])


def test_one_codebook_has_no_delay(tokens):
    assert torch.equal(delay_codebooks(tokens[..., :1], 99), tokens[..., :1])


def test_durations_go_in_and_come_out(tokens):
    mask = torch.arange(5) < LENGTHS[:, None]
    durations = torch.randint(1, 9, (3, 5)) * mask
    codes = insert_durations(tokens, durations)
    assert codes.shape == (3, 5, K + 1)
    assert torch.equal(codes[..., 0], tokens[..., 0])
    assert codes[..., 1].min() >= 0 and codes[..., 1].max() <= 7
    found = take_durations(codes, LENGTHS)
    assert torch.equal(found[0], tokens) and torch.equal(found[1], durations)
