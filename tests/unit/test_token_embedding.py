"""Embeddings of K codebooks, and attention over them."""

import pytest
import torch

from speechbrain_flowmac.lobes.token_embedding import (
    CodebookAttention,
    CodebookEmbedding,
    FrameRateEmbedding,
)

K, C, H = 3, 16, 6


@pytest.fixture(autouse=True)
def seeded():
    torch.manual_seed(0)


def test_each_codebook_has_its_own_table():
    embedding = CodebookEmbedding(K, C, 8)
    same = embedding(torch.full((1, 1, K), 5))[0, 0]
    assert not torch.equal(same[0], same[1])
    tokens = torch.randint(C + 3, (2, 7, K))
    vectors = embedding(tokens)
    assert vectors.shape == (2, 7, K, 8)
    for k in range(K):
        table = embedding.table.weight[k * (C + 3) : (k + 1) * (C + 3)]
        assert torch.equal(vectors[:, :, k], table[tokens[:, :, k]])


def test_padding_starts_at_zero():
    embedding = CodebookEmbedding(K, C, 8)
    padding = torch.full((1, 2, K), embedding.special.pad)
    assert not embedding(padding).any()


def test_it_starts_from_the_codecs_vectors():
    # the second codebook is far smaller, the third shifted
    scale = torch.tensor([1.0, 0.01, 1.0]).repeat_interleave(C)[:, None]
    vectors = torch.randn(K * C, H) * scale
    vectors[2 * C :] += 10
    embedding = CodebookEmbedding(K, C, H, vectors)
    codes = torch.arange(C)[None, :, None].expand(1, C, K)
    found = embedding(codes)[0]
    torch.testing.assert_close(found.std((0, 2)), torch.ones(K))
    for k in range(K):
        # the geometry of the codebook is kept
        given = vectors[k * C : (k + 1) * C]
        ratio = torch.pdist(found[:, k]) / torch.pdist(given)
        torch.testing.assert_close(ratio, ratio[:1].expand_as(ratio))
    assert not embedding(torch.full((1, 1, K), C)).any()
    assert embedding(torch.full((1, 1, K), C + 1)).any()


def test_another_width_is_reached_by_a_layer():
    embedding = CodebookEmbedding(K, C, 8, torch.randn(K * C, H))
    assert embedding(torch.zeros(1, 2, K, dtype=torch.long)).shape[-1] == 8


def test_wrong_numbers_are_refused():
    with pytest.raises(ValueError, match="48 in all, found 32"):
        CodebookEmbedding(K, C, H, torch.randn(2 * C, H))
    with pytest.raises(ValueError, match="3 codebooks, found 2"):
        CodebookEmbedding(K, C, H)(torch.zeros(1, 2, 2, dtype=torch.long))


def test_attention_weighs_the_codebooks():
    attention = CodebookAttention(H, 4)
    vectors = torch.randn(2, 5, K, H)
    mixed = attention(vectors)
    assert mixed.shape == (2, 5, H)
    # a convex combination, which the order of the codebooks does not change
    assert (mixed <= vectors.amax(2) + 1e-6).all()
    assert (mixed >= vectors.amin(2) - 1e-6).all()
    torch.testing.assert_close(attention(vectors.flip(2)), mixed)
    same = vectors[:, :, :1].expand_as(vectors)
    torch.testing.assert_close(attention(same), vectors[:, :, 0])


def test_a_task_trains_the_table():
    embedding, attention = CodebookEmbedding(K, C, 8), CodebookAttention(8, 4)
    tokens = torch.tensor([[[0, 1, 2], [3, 4, 5]]])
    attention(embedding(tokens)).square().sum().backward()
    rows = embedding.table.weight.grad.abs().sum(1) > 0
    assert rows.sum() == 6
    assert attention.score[0].weight.grad.any()


def test_a_frame_rate_is_a_number():
    torch.manual_seed(0)
    embedding = FrameRateEmbedding(16)
    rates = torch.linspace(3, 12.5, 2000)
    vectors = embedding(rates)
    steps = vectors.diff(dim=0).norm(dim=1)
    whole = (vectors[0] - vectors[-1]).norm()
    # near rates are near, far ones are not
    assert steps.max() < 0.05 * whole and steps.min() > 0
    for bad in (0.0, -1.0, float("nan")):
        with pytest.raises(ValueError, match="above 0 Hz"):
            embedding(torch.tensor([12.5, bad]))


def test_durations_are_rates_too():
    embedding = FrameRateEmbedding(16)
    durations = torch.tensor([[1, 3, 2], [2, 8, 1]])
    vectors = embedding(24.0 / durations)
    assert vectors.shape == (2, 3, 16)
    torch.testing.assert_close(vectors[1, 1], embedding(torch.tensor([3.0]))[0])


def test_codebooks_may_differ_in_size():
    sizes = [16, 4, 9]
    vectors = torch.randn(sum(sizes), H)
    embedding = CodebookEmbedding(K, sizes, H, vectors)
    assert len(embedding.table.weight) == sum(sizes) + 3 * K
    special = embedding.special
    assert special.codebook_size == 16
    rows = []
    for k, size in enumerate(sizes):
        numbers = [*range(size), special.pad, special.begin, special.end]
        tokens = torch.zeros(1, len(numbers), K, dtype=torch.long)
        tokens[0, :, k] = torch.tensor(numbers)
        found = embedding(tokens)[0, :, k]
        assert not found[size].any()
        given = vectors.split(sizes)[k]
        ratio = torch.pdist(found[:size]) / torch.pdist(given)
        torch.testing.assert_close(ratio, ratio[:1].expand_as(ratio))
        rows.append(found)
    # every row of the table is somebody's
    assert torch.equal(torch.cat(rows), embedding.table.weight)
