"""Runs of latents as their slowest cosines."""

import pytest
import torch

from speechbrain_flowmac.lobes.frame_merging import (
    merge_frames,
    unmerge_frames,
)
from speechbrain_flowmac.lobes.run_cosines import RunAnalysis, RunSynthesis

RUNS = torch.tensor([[2, 1, 3, 1], [1, 4, 0, 0]])
JOIN, W = 2, 3


def frames():
    torch.manual_seed(0)
    return torch.randn(2, 7, JOIN * W)


def tokens(runs=RUNS):
    return unmerge_frames(torch.arange(8).reshape(2, 4, 1), runs)


def mask():
    return torch.arange(7) < RUNS.sum(1)[:, None]


def there_and_back(x, num_coefficients):
    merged = RunAnalysis(num_coefficients, JOIN)(x, RUNS)
    assert merged.shape == (2, 4, num_coefficients * W)
    repeated = unmerge_frames(merged, RUNS)
    synthesis = RunSynthesis(num_coefficients, JOIN)
    return synthesis(repeated, tokens(), mask())


def test_enough_coefficients_lose_nothing():
    x = frames()
    # the longest run has 8 latents
    found = there_and_back(x, 8)
    torch.testing.assert_close(found[mask()], x[mask()])


def test_more_coefficients_are_never_further_away():
    x = frames()
    errors = [
        (there_and_back(x, j) - x)[mask()].square().sum() for j in range(1, 9)
    ]
    assert all(a >= b - 1e-5 for a, b in zip(errors, errors[1:], strict=False))


def test_the_first_coefficient_is_the_mean():
    x = frames()
    merged = RunAnalysis(4, JOIN)(x, RUNS)[..., :W]
    expected = merge_frames(x, RUNS).unflatten(-1, (JOIN, W)).mean(2)
    torch.testing.assert_close(merged, expected)


def test_short_runs_leave_the_rest_empty():
    merged = RunAnalysis(4, JOIN)(frames(), RUNS)
    assert not merged[0, 1, 2 * W :].any() and merged[0, 0, 3 * W :].any()


def test_a_batch_has_the_coefficients_of_its_items():
    analysis, synthesis = RunAnalysis(4, JOIN), RunSynthesis(4, JOIN)
    x = frames()
    merged = analysis(x, RUNS)
    alone = analysis(x[1:, :5], RUNS[1:, :2])
    assert torch.equal(merged[1, :2], alone[0])
    repeated = unmerge_frames(merged, RUNS)
    both = synthesis(repeated, tokens(), mask())
    one = synthesis(repeated[1:, :5], tokens()[1:, :5])
    torch.testing.assert_close(both[1, :5], one[0])


@pytest.mark.parametrize("max_run", [1, 4, 8])
def test_what_lies_beyond_its_reach_does_not_matter(max_run):
    synthesis = RunSynthesis(4, JOIN, max_run)
    reach = synthesis.receptive_field
    same = torch.zeros(1, 40, 1, dtype=torch.long)
    x = torch.randn(1, 40, 4 * W)
    whole = synthesis(x, same)
    part = synthesis(x[:, 10:30], same[:, 10:30])
    kept = slice(reach, 20 - reach)
    assert torch.equal(part[:, kept], whole[:, 10:30][:, kept])
