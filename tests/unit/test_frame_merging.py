"""Merging of neighbouring frames: the rule, masks, inverses, target rates."""

import numpy as np
import pytest
import torch

from speechbrain_flowmac.lobes.frame_merging import (
    average_rate,
    find_runs,
    frame_runs,
    merge_frames,
    neighbour_similarity,
    rate_curve,
    threshold_for_rate,
    unmerge_frames,
)

RATE = 12.5
LENGTHS = torch.tensor([40, 1, 17, 0, 33])


def walk(seed, items=5, frames=40, dim=6):
    """Frames that drift, so that neighbours are alike more or less."""
    generator = torch.Generator().manual_seed(seed)
    steps = torch.randn(items, frames, dim, generator=generator)
    return steps.cumsum(1)


def runs_by_hand(similarity, length, threshold, max_run):
    """The rule, a frame at a time."""
    runs = []
    for n in range(length):
        alike = n > 0 and similarity[n - 1] > threshold
        if alike and runs[-1] < max_run:
            runs[-1] += 1
        else:
            runs.append(1)
    return runs


def positive(runs):
    return [[run for run in item if run] for item in runs.tolist()]


@pytest.mark.parametrize("threshold", [-1.0, 0.3, 0.8, 0.95, 1.0])
@pytest.mark.parametrize("max_run", [1, 2, 8, 100])
def test_runs_are_those_of_the_rule(threshold, max_run):
    similarity = neighbour_similarity(walk(0))
    runs = find_runs(similarity, LENGTHS, threshold, max_run)
    expected = [
        runs_by_hand(row, length, threshold, max_run)
        for row, length in zip(
            similarity.tolist(), LENGTHS.tolist(), strict=True
        )
    ]
    assert positive(runs) == expected
    assert torch.equal(runs.sum(1), LENGTHS)
    # the zeros are behind
    assert not ((runs[:, 1:] > 0) & (runs[:, :-1] == 0)).any()


def test_similarity_is_the_cosine():
    x = walk(0).double()
    expected = torch.cosine_similarity(x[:, :-1], x[:, 1:], dim=-1)
    torch.testing.assert_close(neighbour_similarity(x), expected)
    scaled = x * torch.linspace(0.1, 9, 40).unsqueeze(-1)
    torch.testing.assert_close(neighbour_similarity(scaled), expected)


def test_a_batch_is_its_items_whatever_the_padding():
    x, thresholds = walk(1), torch.tensor([0.5, 0.9, 0.8, 0.9, 0.7])
    for i, length in enumerate(LENGTHS.tolist()):
        x[i, length:] = torch.tensor([7.0, float("nan"), 0.0, 1e4, 1.0])[i]
    runs = find_runs(neighbour_similarity(x), LENGTHS, thresholds)
    merged = merge_frames(x, runs)
    unmerged = unmerge_frames(merged, runs)
    assert merged.isfinite().all() and unmerged.isfinite().all()
    for i, length in enumerate(LENGTHS.tolist()):
        if not length:
            assert not merged[i].any() and not unmerged[i].any()
            continue
        single = x[i : i + 1, :length]
        own = find_runs(
            neighbour_similarity(single),
            LENGTHS[i : i + 1],
            thresholds[i].item(),
        )
        count = own.shape[1]
        assert torch.equal(runs[i : i + 1, :count], own)
        assert not runs[i, count:].any() and not merged[i, count:].any()
        alone = merge_frames(single, own)
        assert torch.equal(merged[i : i + 1, :count], alone)
        assert torch.equal(
            unmerged[i : i + 1, :length], unmerge_frames(alone, own)
        )
        assert not unmerged[i, length:].any()


def test_at_threshold_one_nothing_changes():
    x = walk(2)
    x[:, 5:9] = x[:, 4:5]  # equal frames too
    runs = find_runs(neighbour_similarity(x), LENGTHS, 1.0)
    assert int(runs.max()) == 1
    merged = merge_frames(x, runs)
    mask = runs > 0
    assert torch.equal(merged[mask], x[mask])
    assert torch.equal(unmerge_frames(merged, runs), merged)
    assert average_rate(runs, RATE)[LENGTHS > 0].eq(RATE).all()


@pytest.mark.parametrize("max_run", [1, 3, 8])
def test_equal_frames_merge_up_to_the_longest_run(max_run):
    x = torch.randn(1, 1, 4).expand(1, 20, 4)
    runs = find_runs(neighbour_similarity(x), torch.tensor([20]), 0.99, max_run)
    assert runs.shape[1] == -(-20 // max_run)
    assert runs[0, :-1].eq(max_run).all()


def test_merging_takes_means_and_unmerging_repeats():
    x = walk(3).double()
    runs = find_runs(neighbour_similarity(x), LENGTHS, 0.9)
    assert int(runs.max()) > 3
    merged = merge_frames(x, runs)
    unmerged = unmerge_frames(merged, runs)
    for i, own in enumerate(positive(runs)):
        parts = np.split(x[i, : sum(own)].numpy(), np.cumsum(own)[:-1])
        means = [part.mean(0) for part in parts if len(part)]
        for found, mean in zip(merged[i], means, strict=False):
            np.testing.assert_allclose(found, mean, rtol=1e-12, atol=1e-12)
        repeated = np.repeat(merged[i, : len(own)].numpy(), own, axis=0)
        assert np.array_equal(unmerged[i, : sum(own)], repeated)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_what_was_repeated_merges_into_itself_exactly(dtype):
    runs = torch.tensor([[3, 7, 1, 8, 5], [6, 2, 0, 0, 0]])
    merged = walk(4, 2, 5).to(dtype) * (runs > 0).unsqueeze(-1)
    assert torch.equal(merge_frames(unmerge_frames(merged, runs), runs), merged)


def test_tokens_are_repeated_as_they_are():
    runs = torch.tensor([[2, 1], [1, 0]])
    tokens = torch.tensor([[[5, 6], [7, 8]], [[9, 1], [0, 0]]])
    repeated = unmerge_frames(tokens, runs)
    assert repeated.dtype == torch.int64
    assert repeated[..., 0].tolist() == [[5, 5, 7], [9, 0, 0]]


def test_every_frame_knows_its_run():
    runs = torch.tensor([[3, 2, 4], [1, 1, 0]])
    index, mask = frame_runs(runs)
    assert index[0].tolist() == [0, 0, 0, 1, 1, 2, 2, 2, 2]
    assert index[1, :2].tolist() == [0, 1]
    assert torch.equal(mask.sum(1), runs.sum(1))


def test_gradients_are_those_of_means():
    x = walk(5, 2, 7, 3).double().requires_grad_()
    runs = torch.tensor([[3, 1, 3], [2, 2, 0]])
    assert torch.autograd.gradcheck(
        lambda x: unmerge_frames(merge_frames(x, runs), runs), x
    )
    merge_frames(x, runs).sum().backward()
    assert x.grad[1, 4:].eq(0).all()


def test_frames_that_are_not_numbers_are_merged_with_none():
    x = torch.ones(1, 6, 3)
    x[0, 2] = float("nan")
    runs = find_runs(neighbour_similarity(x), torch.tensor([6]), 0.0)
    assert positive(runs) == [[2, 1, 3]]


def test_the_rate_rises_with_the_threshold():
    similarity = neighbour_similarity(walk(6))
    thresholds = torch.linspace(-1, 1, 81).tolist()
    rates = rate_curve(similarity, LENGTHS, thresholds, RATE)
    assert (rates.diff() >= 0).all()
    lowest = sum(-(-length // 8) for length in LENGTHS.tolist())
    assert rates[0].item() == pytest.approx(RATE * lowest / LENGTHS.sum())
    assert rates[-1] == RATE
    runs = find_runs(similarity, LENGTHS, thresholds[60])
    own = average_rate(runs, RATE).nan_to_num() * LENGTHS / LENGTHS.sum()
    torch.testing.assert_close(own.sum(), rates[60])


@pytest.mark.parametrize("rate", [0.1, 2.0, 4.4, 6.25, 8.3, 12.4])
@pytest.mark.parametrize("max_run", [3, 8])
def test_a_target_rate_is_met_as_closely_as_can_be(rate, max_run):
    lengths = torch.tensor([40, 1, 17, 2, 33])
    similarity = neighbour_similarity(walk(7))
    thresholds = threshold_for_rate(similarity, lengths, rate, RATE, max_run)
    runs = find_runs(similarity, lengths, thresholds, max_run)
    for i, length in enumerate(lengths.tolist()):
        own = similarity[i, : max(length - 1, 0)].tolist()
        # every number of runs that any threshold gives
        counts = {
            len(runs_by_hand(own, length, threshold, max_run))
            for threshold in (-1.0, *own, 1.0)
        }
        within = [n for n in counts if n <= rate * length / RATE]
        best = max(within, default=min(counts))
        assert int((runs[i] > 0).sum()) == best


def test_a_target_rate_is_found_for_each_item_alone():
    x = walk(8)
    lengths = LENGTHS.clamp(min=1)
    for rate in (3.0, 8.3, 12.5, 100.0):
        thresholds = threshold_for_rate(
            neighbour_similarity(x), lengths, rate, RATE
        )
        for i, length in enumerate(lengths.tolist()):
            single = neighbour_similarity(x[i : i + 1, :length])
            alone = threshold_for_rate(single, lengths[i : i + 1], rate, RATE)
            assert torch.equal(thresholds[i : i + 1], alone)
        if rate >= RATE:
            assert thresholds.eq(1).all()


def test_a_tie_of_similarities_is_not_split():
    similarity = torch.full((1, 9), 0.5, dtype=torch.float64)
    threshold = threshold_for_rate(similarity, torch.tensor([10]), 9.0, RATE)
    runs = find_runs(similarity, torch.tensor([10]), threshold)
    assert positive(runs) == [[8, 2]]


@pytest.mark.parametrize("threshold", [1.01, -2.0, float("nan")])
def test_thresholds_that_are_no_cosines_are_refused(threshold):
    with pytest.raises(ValueError, match="in -1..1, found"):
        find_runs(torch.zeros(1, 3), torch.tensor([4]), threshold)


def test_other_numbers_out_of_range_are_refused():
    similarity, lengths = torch.zeros(1, 3), torch.tensor([4])
    with pytest.raises(ValueError, match="at least 1, found 0"):
        find_runs(similarity, lengths, 0.5, max_run=0)
    with pytest.raises(ValueError, match="above 0 Hz, found 0"):
        threshold_for_rate(similarity, lengths, 0, RATE)
    with pytest.raises(ValueError, match="runs of 9 frames, found 4"):
        merge_frames(torch.zeros(1, 4, 2), torch.tensor([[8, 1]]))
