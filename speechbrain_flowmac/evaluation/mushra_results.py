"""What MUSHRA ratings say: post-screening, intervals, pairs, a box plot.

ITU-R BS.1534-3 excludes listeners who are not reliable (4.1.2), and reports
means with 95 % intervals by Student's t, and medians with quartiles.
"""

import itertools
import math
from collections import defaultdict
from typing import NamedTuple

import numpy as np
from scipy import stats

from speechbrain_flowmac.evaluation.formats import (
    csv_text,
    markdown_table,
    markdown_text,
    printable,
)
from speechbrain_flowmac.evaluation.mushra import LABELS, MID_ANCHOR
from speechbrain_flowmac.evaluation.mushra_csv import RatingsError
from speechbrain_flowmac.evaluation.results import REFERENCE

GOOD = 90  # what a reference gets at least, and an anchor at most
MAX_SHARE = 0.15  # of a listener's items where it is otherwise
MAX_FOOLED = 0.25  # of all listeners, else the item's anchor is too good
CONFIDENCE = 0.95


class Summary(NamedTuple):
    """Describes scores, all in 0..100 but their number: mean with its interval,
    NaN for a single score, median and quartiles."""

    mean: float
    low: float
    high: float
    median: float
    lower: float
    upper: float
    count: int


class Pair(NamedTuple):
    """Two systems, compared.

    `difference` is the mean of the first's scores less the second's over
    `count` listeners x items that rated both; `p` that they differ so much
    by chance, `corrected` by Holm's correction for all pairs."""

    first: str
    second: str
    difference: float
    count: int
    p: float
    corrected: float


class Analysis(NamedTuple):
    """All that the ratings of a test say.

    ratings: of all listeners; excluded: why, by listener; labels: by system,
    those with the best mean first; systems: `Summary` by system; items:
    `Summary` by item and system; pairs: of neither reference nor anchors.
    """

    ratings: list
    excluded: dict
    labels: dict
    systems: dict
    items: dict
    pairs: list


def post_screening(ratings):
    """Listeners that BS.1534-3 (4.1.2) excludes: a dict of reasons.

    These are listeners who rate the hidden reference below 90, or the anchor
    of 7 kHz above 90, for more than 15 % of the items. Where more than 25 %
    of the listeners rate that anchor of an item above 90, the item may have
    little above 7 kHz, and says nothing about listeners."""
    below = _shares(ratings, REFERENCE, lambda score: score < GOOD)
    above = _shares(ratings, MID_ANCHOR, lambda score: score > GOOD)
    fooled = defaultdict(list)
    for items in above.values():
        for item, wrong in items.items():
            fooled[item].append(wrong)
    for items in above.values():
        for item in list(items):
            if np.mean(fooled[item]) > MAX_FOOLED:
                del items[item]
    excluded = defaultdict(list)
    for text, shares in (
        (f"hidden reference below {GOOD}", below),
        (f"anchor of 7 kHz above {GOOD}", above),
    ):
        for listener, items in shares.items():
            wrong = sum(items.values())
            if items and wrong / len(items) > MAX_SHARE:
                excluded[listener].append(
                    f"{text} for {wrong} of {len(items)} items"
                )
    return {listener: ", ".join(why) for listener, why in excluded.items()}


def _shares(ratings, system, is_wrong):
    """Whether each rating of a system is wrong: by listener, then item."""
    found = defaultdict(dict)
    for rating in ratings:
        if rating.system == system:
            found[rating.listener][rating.item] = is_wrong(rating.score)
    return found


def summarise(scores):
    """Describes at least one score by a `Summary`.

    Example
    -------
    >>> found = summarise([60, 70, 80])
    >>> found.mean, round(found.low, 2), found.count  # 70 - 4.303 * 5.774
    (70.0, 45.16, 3)
    """
    scores = np.asarray(scores, dtype=float)
    count, mean = len(scores), float(scores.mean())
    half = math.nan
    if count > 1:
        t = stats.t.ppf((1 + CONFIDENCE) / 2, count - 1)
        half = float(t * scores.std(ddof=1) / math.sqrt(count))
    lower, median, upper = (
        float(x) for x in np.percentile(scores, [25, 50, 75])
    )
    return Summary(mean, mean - half, mean + half, median, lower, upper, count)


def signed_rank(differences):
    """p of Wilcoxon's signed-rank test of paired differences, two-sided.

    Example
    -------
    >>> signed_rank([1, 2, 3, 4, 5, 6]), signed_rank([0, 0])  # 2 / 2^6
    (0.03125, 1.0)
    """
    # means of several sessions differ by rounding where they are equal
    differences = np.round(np.asarray(differences, dtype=float), 9)
    differences = differences[differences != 0]
    if not len(differences):
        return 1.0
    return float(stats.wilcoxon(differences).pvalue)


def holm(p_values):
    """Holm's correction for multiple tests (1979), in the same order.

    Example
    -------
    >>> holm([0.02, 0.01, 0.5])
    [0.04, 0.03, 0.5]
    """
    order = sorted(range(len(p_values)), key=p_values.__getitem__)
    corrected, highest = [0.0] * len(p_values), 0.0
    for rank, index in enumerate(order):
        p = min(1.0, p_values[index] * (len(p_values) - rank))
        corrected[index] = highest = max(highest, p)
    return corrected


def compare(scores, systems):
    """Compares systems, the better ones first, in pairs: list of `Pair`.

    `scores` has, by system, scores by listener and item."""
    found = []
    for first, second in itertools.combinations(systems, 2):
        both = [what for what in scores[first] if what in scores[second]]
        if both:
            differences = [scores[first][x] - scores[second][x] for x in both]
            mean, p = float(np.mean(differences)), signed_rank(differences)
            found.append(Pair(first, second, mean, len(both), p, math.nan))
    corrected = holm([pair.p for pair in found])
    return [
        pair._replace(corrected=p)
        for pair, p in zip(found, corrected, strict=True)
    ]


def analyse(ratings, key=None):
    """Screens listeners, describes and compares systems: an `Analysis` of the
    ratings of all listeners, with the labels of the test's `Key` or None."""
    excluded = post_screening(ratings)
    scores, items = defaultdict(dict), defaultdict(list)
    for rating in ratings:
        if rating.listener not in excluded:
            what = (rating.listener, rating.item)
            scores[rating.system][what] = rating.score
            items[rating.item, rating.system].append(rating.score)
    if not scores:
        raise RatingsError(
            "post-screening excludes all listeners: "
            + "; ".join(f"{who}: {why}" for who, why in excluded.items())
        )
    systems = {
        name: summarise(list(found.values())) for name, found in scores.items()
    }
    order = sorted(systems, key=lambda name: (-systems[name].mean, name))
    labels = {**LABELS, **(key.systems if key else {})}
    return Analysis(
        ratings=ratings,
        excluded=excluded,
        labels={name: labels.get(name, name) for name in order},
        systems={name: systems[name] for name in order},
        items={
            (item, name): summarise(items[item, name])
            for item in sorted({item for item, _ in items})
            for name in order
            if (item, name) in items
        },
        pairs=compare(scores, [name for name in order if name not in LABELS]),
    )


# What is written


def markdown(analysis):
    """Tables of an `Analysis` for people."""
    listeners = {rating.listener for rating in analysis.ratings}
    items = {item for item, _ in analysis.items}
    kept = len(listeners) - len(analysis.excluded)
    names = {n: markdown_text(x) for n, x in analysis.labels.items()}
    lines = [
        "# MUSHRA listening test",
        "",
        f"Listeners: {kept} of {len(listeners)} after post-screening (ITU-R "
        f"BS.1534-3). Items: {len(items)}.",
        "",
        markdown_table(
            ["system", "mean", "95 % interval", "median", "quartiles"]
            + ["ratings"],
            [
                [names[name], *_cells(found)]
                for name, found in analysis.systems.items()
            ],
        ),
        "",
        "Intervals of the mean: Student's t over listeners x items.",
    ]
    if analysis.pairs:
        lines += [
            "",
            markdown_table(
                ["better", "than", "by", "p", "p corrected", "pairs"],
                [
                    [names[pair.first], names[pair.second]]
                    + [f"{pair.difference:.1f}", _p(pair.p)]
                    + [_p(pair.corrected), str(pair.count)]
                    for pair in analysis.pairs
                ],
            ),
            "",
            "Wilcoxon's signed-rank test over listeners x items, with Holm's "
            "correction for all pairs; below 0.05 a difference is more than "
            "chance.",
        ]
    if analysis.excluded:
        lines += ["", "Excluded listeners:", ""]
    for listener, why in analysis.excluded.items():
        lines.append(f"- {markdown_text(listener)}: {why}")
    return "\n".join(lines) + "\n"


def _cells(found):
    """Of a `Summary`."""
    interval = f"{found.low:.1f} to {found.high:.1f}"
    return [
        f"{found.mean:.1f}",
        interval if found.count > 1 else "–",
        f"{found.median:.1f}",
        f"{found.lower:.1f} to {found.upper:.1f}",
        str(found.count),
    ]


def _p(value):
    return "< 0.001" if value < 0.001 else f"{value:.3f}"


def write_analysis(analysis, folder):
    """Writes an `Analysis` into a folder: mushra.md, mushra.svg (a box plot),
    systems.csv, items.csv, pairs.csv, and ratings.csv with the systems."""
    (folder / "mushra.md").write_text(markdown(analysis), encoding="utf-8")
    excluded = analysis.excluded
    _write_csv(
        folder / "systems.csv",
        ["system", "label", *Summary._fields],
        *((n, analysis.labels[n], *x) for n, x in analysis.systems.items()),
    )
    _write_csv(
        folder / "items.csv",
        ["item", "system", *Summary._fields],
        *((*what, *found) for what, found in analysis.items.items()),
    )
    _write_csv(folder / "pairs.csv", Pair._fields, *analysis.pairs)
    _write_csv(
        folder / "ratings.csv",
        ["listener", "item", "system", "score", "excluded"],
        *((*x, excluded.get(x.listener, "")) for x in analysis.ratings),
    )
    box_plot(analysis, folder / "mushra.svg")


def _write_csv(path, *rows):
    path.write_text(csv_text(rows), encoding="utf-8", newline="")


def box_plot(analysis, path):
    """Draws medians, quartiles and means of all systems as SVG; the same
    analysis gives the same file."""
    import matplotlib
    from matplotlib.figure import Figure

    scores = defaultdict(list)
    for rating in analysis.ratings:
        if rating.listener not in analysis.excluded:
            scores[rating.system].append(rating.score)
    places = range(1, len(analysis.systems) + 1)
    settings = {
        "svg.hashsalt": "mushra",
        "svg.fonttype": "none",
        "text.parse_math": False,
    }
    with matplotlib.rc_context(settings):
        figure = Figure((2 + 0.8 * len(places), 4.5), layout="constrained")
        axes = figure.add_subplot()
        axes.boxplot(
            [scores[name] for name in analysis.systems],
            positions=places,
            widths=0.5,
            flierprops={"marker": ".", "markersize": 4},
            medianprops={"color": "C0", "linewidth": 2},
        )
        means = list(analysis.systems.values())
        axes.errorbar(
            places,
            [found.mean for found in means],
            [np.nan_to_num(found.high - found.mean) for found in means],
            fmt="D",
            color="C1",
            markersize=4,
            capsize=4,
            label="mean, 95 % interval",
        )
        axes.set_xticks(
            places,
            [printable(analysis.labels[name]) for name in analysis.systems],
            rotation=30,
            ha="right",
        )
        axes.set_ylim(-2, 102)
        axes.set_yticks(range(0, 101, 20))
        axes.grid(axis="y", alpha=0.4)
        axes.set_ylabel("MUSHRA score")
        axes.legend(loc="lower left")
        figure.savefig(path, format="svg", metadata={"Date": None})
