"""Means over files with their uncertainty, and how well tokens use their bits."""

import math
from typing import NamedTuple

import numpy as np
from scipy import stats

from speechbrain_flowmac.evaluation.results import Mean, Tokens


class Interval(NamedTuple):
    """A mean, the ends of its interval, and of how many values it is."""

    mean: float
    low: float
    high: float
    count: int


def bootstrap_interval(values, confidence=0.95, resamples=2000, seed=0):
    """Mean of scores, one a file, and its bootstrap confidence interval.

    Bias-corrected and accelerated (BCa: Efron, "Better bootstrap confidence
    intervals", 1987). Below some 20 values it is too narrow, as bootstraps
    are: 10 values hold the true mean in 86 to 89 % of cases, not 95 %.

    NaN and None are left out, the order does not matter. All is NaN without a
    value; one value, or equal ones, are their own interval.

    Example
    -------
    >>> mean, low, high, count = bootstrap_interval([1.0, 2.0, 3.0, math.nan])
    >>> mean, low < mean < high, count
    (2.0, True, 3)
    """
    values = np.sort(_numbers(values))
    values = values[~np.isnan(values)]
    if not len(values):
        return Interval(math.nan, math.nan, math.nan, 0)
    mean = float(values.mean())
    # values that differ by rounding only leave BCa nothing to divide by
    if np.isclose(values[0], values[-1], rtol=1e-9, atol=1e-12):
        return Interval(*[float(values[0])] * 3, len(values))
    interval = stats.bootstrap(
        (values,),
        np.mean,
        confidence_level=confidence,
        n_resamples=resamples,
        method="BCa",
        rng=np.random.default_rng(seed),
    ).confidence_interval
    # means of resamples leave the range by rounding
    low, high = np.clip(interval, values[0], values[-1])
    return Interval(mean, float(low), float(high), len(values))


def paired_difference(values, others, **options):
    """Mean of `values - others` over the files that have both, an `Interval`.

    Files differ more than systems do. Where the files are the same, their
    differences tell two systems apart whose own intervals overlap. Options are
    those of `bootstrap_interval`.

    Example
    -------
    >>> tuple(paired_difference([1.0, 2.0, None], [0.5, 1.5, 9.0]))
    (0.5, 0.5, 0.5, 2)
    """
    values, others = _numbers(values), _numbers(others)
    if len(values) != len(others):
        raise ValueError(
            f"pairs are of the same files: found {len(values)} values and "
            f"{len(others)} others"
        )
    return bootstrap_interval(values - others, **options)


def summarise(results):
    """Mean and interval of every metric for every system of `Results`, in
    the order of these; without those that have no score: list of `Mean`."""
    rows = [
        Mean(
            system.name,
            metric.name,
            *bootstrap_interval(results.scores(system.name, metric.name)),
        )
        for system in results.systems
        for metric in results.metrics
    ]
    return [row for row in rows if row.count]


def token_statistics(files):
    """How many of the codes are used, and how many bits they needed.

    The entropy is of first order: of each codebook's index by itself, without
    its neighbours in time or in other codebooks. It is that of the counts,
    and so too low for few tokens: by (codes used - 1) / (2 N ln 2) bits
    (Miller, 1955), 0.2 for 256 codes and 1000 tokens.

    Arguments
    ---------
    files : list of tuple
        Tokens, int [N, K], and the codebook size, of each file. ValueError if
        they differ in K or in size, or an index is not below the size.

    Returns
    -------
    Tokens or None
        For each of the K codebooks the share of codes that occur, 0..1, and
        the bits that an index needs. None without tokens.

    Example
    -------
    >>> found = token_statistics([(np.array([[0, 5], [1, 5]]), 8)])
    >>> found.usage, found.entropy_bits, found.bits_spent
    ([0.25, 0.125], [1.0, 0.0], 3.0)
    """
    kinds = {(np.shape(tokens)[1], int(size)) for tokens, size in files}
    if len(kinds) > 1:
        found = ", ".join(f"{k} x {size}" for k, size in sorted(kinds))
        raise ValueError(f"files differ in their codebooks: {found}")
    tokens = np.concatenate([t for t, _ in files]) if files else np.empty(0)
    if not tokens.size:
        return None
    ((_, size),) = kinds
    if tokens.min() < 0 or tokens.max() >= size:
        raise ValueError(
            f"indices must be 0..{size - 1}, "
            f"found {tokens.min()}..{tokens.max()}"
        )
    shares = [
        np.bincount(column, minlength=size) / len(tokens) for column in tokens.T
    ]
    return Tokens(
        codebook_size=size,
        usage=[float(np.mean(share > 0)) for share in shares],
        entropy_bits=[_entropy(share[share > 0]) for share in shares],
        bits_spent=float((size - 1).bit_length()),
    )


def _entropy(shares):
    return abs(float(np.sum(shares * np.log2(shares))))


def _numbers(values):
    return np.array([math.nan if v is None else v for v in values], float)
