"""How frames are merged: a threshold, or a rate."""

import pytest
import torch

from speechbrain_flowmac.lobes.frame_merging import (
    average_rate,
    find_runs,
    neighbour_similarity,
)
from speechbrain_flowmac.lobes.merging import Merging


def frames(seed=0, size=60):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(3, size, 4, generator=generator).cumsum(1)


LENGTHS = torch.tensor([60, 33, 1])


def test_a_threshold_merges_as_find_runs_does():
    x = frames()
    runs = Merging(0.97, max_run=5).runs(x, LENGTHS, 25.0)
    expected = find_runs(neighbour_similarity(x), LENGTHS, 0.97, max_run=5)
    assert torch.equal(runs, expected)
    assert runs.max() == 5 and torch.equal(runs.sum(1), LENGTHS)


@pytest.mark.parametrize("rate", [4.0, 8.3, 20.0])
def test_a_rate_is_reached_and_not_exceeded(rate):
    runs = Merging(frame_rate=rate).runs(frames(), LENGTHS, 25.0)
    found = average_rate(runs, 25.0)[:2]
    assert (found <= rate).all()
    # a frame more would be too many
    assert (found + 25.0 / LENGTHS[:2] > rate).all() or rate < 25 / 8 + 1


def test_one_merges_nothing():
    runs = Merging(1.0).runs(frames(), LENGTHS, 25.0)
    assert torch.equal((runs > 0).sum(1), LENGTHS)


def test_changes_replace_one_another():
    merging = Merging(0.8, max_run=4)
    rated = merging.with_changes(frame_rate=6.0)
    assert rated == Merging(0.8, 6.0, 4)
    assert rated.with_changes() == rated
    assert rated.with_changes(merging_threshold=0.9) == Merging(0.9, None, 4)


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"merging_threshold": 1.1}, "-1..1, found 1.1"),
        ({"merging_threshold": float("nan")}, "-1..1, found nan"),
        ({"frame_rate": 0.0}, "above 0 Hz, found 0.0"),
        ({"frame_rate": 6.0, "merging_threshold": 0.9}, "found both"),
    ],
)
def test_impossible_changes_are_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        Merging().with_changes(**changes)


def test_a_run_has_a_frame():
    with pytest.raises(ValueError, match="max_run"):
        Merging(max_run=0)
