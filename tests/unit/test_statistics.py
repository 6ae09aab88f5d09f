"""Intervals hold what they should, and entropies are exact."""

import math
from dataclasses import replace

import numpy as np
import pytest
from evaluation_numbers import number_results
from hypothesis import given, settings, strategies as st

from speechbrain_flowmac.evaluation.results import Tokens
from speechbrain_flowmac.evaluation.statistics import (
    bootstrap_interval,
    paired_difference,
    summarise,
    token_statistics,
)

FINITE = st.floats(-1e6, 1e6, allow_nan=False)

# Intervals


@settings(max_examples=50, deadline=None)
@given(st.lists(FINITE, min_size=1, max_size=20), st.randoms())
def test_interval_holds_the_mean_in_any_order(values, random):
    mean, low, high, count = bootstrap_interval(values)
    assert low <= mean <= high
    assert min(values) <= low and high <= max(values)
    assert count == len(values)
    assert mean == pytest.approx(np.mean(values), rel=1e-9, abs=1e-9)
    random.shuffle(values)
    assert bootstrap_interval(values) == (mean, low, high, count)


def test_nan_and_none_are_left_out():
    values = [2.5, 3.0, 4.5, 3.5]
    holes = [math.nan, 2.5, None, 3.0, 4.5, math.nan, 3.5]
    assert bootstrap_interval(holes) == bootstrap_interval(values)


@pytest.mark.parametrize("values", [[], [math.nan], [None, None]])
def test_no_value_has_no_mean(values):
    *numbers, count = bootstrap_interval(values)
    assert np.isnan(numbers).all() and count == 0


def test_values_that_differ_by_rounding_are_equal():
    values = 4.6438884735 * (1 + 1e-15 * np.arange(32))
    assert values[0] != values[-1]
    mean, low, high, count = bootstrap_interval(values)
    assert low == mean == high and count == 32
    assert mean == pytest.approx(4.6438884735)


@pytest.mark.parametrize("odd", [1, 2, 16, 31])
def test_intervals_of_two_values_are_finite(odd):
    values = np.r_[np.zeros(32 - odd), np.ones(odd)]
    mean, low, high, _ = bootstrap_interval(values)
    assert low <= mean <= high and mean == pytest.approx(odd / 32)


@pytest.mark.parametrize("values", [[1.7], [1.7] * 6, [0.1] * 3])
def test_equal_values_are_their_own_interval(values):
    assert bootstrap_interval(values) == (*[values[0]] * 3, len(values))


def test_intervals_move_and_stretch_with_the_values():
    values = np.random.default_rng(0).gamma(2, size=25)
    interval = np.array(bootstrap_interval(values)[:3])
    moved = bootstrap_interval(100 + 3 * values)[:3]
    assert moved == pytest.approx(100 + 3 * interval)


def test_more_files_and_less_confidence_shrink_intervals():
    values = np.random.default_rng(0).normal(3, 0.5, 400)

    def width(count, **options):
        _, low, high, _ = bootstrap_interval(values[:count], **options)
        return high - low

    # by the root of their number
    assert width(25) / width(400) == pytest.approx(4, rel=0.35)
    assert width(400) == pytest.approx(2 * 1.96 * 0.5 / 20, rel=0.15)
    assert width(100, confidence=0.68) < 0.6 * width(100)


def test_seed_decides():
    values = np.random.default_rng(0).normal(size=20)
    state = np.random.get_state()[1].copy()
    first = bootstrap_interval(values, seed=1)
    assert first == bootstrap_interval(values, seed=1)
    assert first != bootstrap_interval(values, seed=2)
    assert np.array_equal(np.random.get_state()[1], state)


@pytest.mark.parametrize("draw", ["normal", "exponential"])
def test_coverage(draw):
    rng = np.random.default_rng(0)
    true = {"normal": 0.0, "exponential": 1.0}[draw]
    hits = 0
    for _ in range(300):
        values = getattr(rng, draw)(size=30)
        _, low, high, _ = bootstrap_interval(values, resamples=500)
        hits += low <= true <= high
    # 95 % less what bootstraps of 30 fall short, +- 3 standard errors
    assert 0.88 < hits / 300 < 0.98


# Pairs


def test_pairs_tell_apart_what_intervals_do_not():
    rng = np.random.default_rng(0)
    files = rng.normal(3, 0.5, 30)
    one, other = files + 0.05, files + rng.normal(0, 0.02, 30)
    low_of_one = bootstrap_interval(one)[1]
    assert low_of_one < bootstrap_interval(other)[2]  # they overlap
    mean, low, high, count = paired_difference(one, other)
    assert 0 < low < mean < high and count == 30
    assert mean == pytest.approx((one - other).mean())


def test_pairs_need_both():
    values, others = [1.0, None, 3.0, 4.5], [0.5, 1.0, math.nan, 4.0]
    assert paired_difference(values, others) == (0.5, 0.5, 0.5, 2)
    with pytest.raises(ValueError, match="found 4 values and 3 others"):
        paired_difference(values, others[:3])


# Summaries


def test_summary_has_each_system_and_metric():
    results = number_results(12)
    assert [(x.system, x.metric) for x in results.summary] == [
        (system.name, metric.name)
        for system in results.systems
        if system.unavailable is None
        for metric in results.metrics
    ]
    for entry in results.summary:
        found = results.scores(entry.system, entry.metric)
        assert entry.mean == pytest.approx(np.mean(found))
        assert entry.low < entry.mean < entry.high
        assert entry.count == 12


def test_order_of_results_and_files_changes_no_summary():
    results = number_results(9)
    for key in ("results", "files"):
        setattr(results, key, getattr(results, key)[::-1])
    assert summarise(results) == results.summary


def test_missing_scores_are_not_counted():
    results = number_results(5)
    opus = [x for x in results.results if x.system == "opus:6"]
    opus[0].scores["pesq"] = None
    opus[1].scores = {}
    for result in opus:
        result.scores.pop("warpq", None)
    counts = {
        x.metric: x.count for x in summarise(results) if x.system == "opus:6"
    }
    assert counts == {"pesq": 3, "distillmos": 4}
    assert summarise(replace(results, results=[], files=[])) == []


# Tokens


@pytest.mark.parametrize("size", [2, 16, 256, 1024])
def test_uniform_tokens_need_all_bits(size):
    tokens = np.random.default_rng(0).permuted(
        np.tile(np.arange(size), (3, 4)), axis=1
    )
    found = token_statistics([(tokens.T, size)])
    bits = math.log2(size)
    assert found == Tokens(size, [1.0] * 3, [bits] * 3, bits)


def test_constant_tokens_need_none():
    found = token_statistics([(np.full((10, 2), 7), 256)])
    assert found.entropy_bits == [0.0, 0.0]
    assert found.usage == [1 / 256] * 2
    assert found.bits_spent == 8.0


def test_known_distribution_over_files():
    # half 0, a quarter 1, an eighth 2 and 3 each: 1.75 bits
    tokens = np.array([0, 0, 0, 0, 1, 1, 2, 3])[:, None]
    whole = token_statistics([(tokens, 8)])
    assert whole.entropy_bits == [1.75] and whole.usage == [0.5]
    parts = [(tokens[:3], 8), (tokens[3:3], 8), (tokens[3:], 8)]
    assert token_statistics(parts) == token_statistics(parts[::-1]) == whole


@given(
    st.lists(st.integers(0, 9), min_size=1, max_size=200),
)
def test_entropy_lies_between_none_and_that_of_the_used(column):
    found = token_statistics([(np.array(column)[:, None], 10)])
    (entropy,), (usage,) = found.entropy_bits, found.usage
    used = len(set(column))
    assert usage == used / 10
    assert 0 <= entropy <= math.log2(used) + 1e-9
    assert found.bits_spent == 4.0  # whole bits


@pytest.mark.parametrize("files", [[], [(np.empty((0, 8), int), 256)]])
def test_no_tokens_have_no_statistics(files):
    assert token_statistics(files) is None


def test_bad_tokens_are_refused():
    good = np.zeros((2, 4), int)
    with pytest.raises(ValueError, match="4 x 16, 8 x 16"):
        token_statistics([(good, 16), (np.zeros((2, 8), int), 16)])
    with pytest.raises(ValueError, match=r"0\.\.15, found 0\.\.16"):
        token_statistics([(good + [[0], [16]], 16)])
    with pytest.raises(ValueError, match=r"found -1\.\.0"):
        token_statistics([(good - [[0], [1]], 16)])
