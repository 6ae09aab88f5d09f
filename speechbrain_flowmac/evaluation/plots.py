"""Plots of an evaluation as SVG: the same results give the same bytes.

They are made to be read at the width of a phone, without titles: those stand
beside them. The colours are those of Okabe and Ito (2008) less yellow: they
can be told apart without colour vision. Families of systems also differ in
their markers.
"""

import io
import itertools
import math
import re
import textwrap
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np

from speechbrain_flowmac.evaluation.formats import printable
from speechbrain_flowmac.evaluation.labels import Labels
from speechbrain_flowmac.evaluation.results import Plot, SystemInfo
from speechbrain_flowmac.evaluation.tables import by_rate
from speechbrain_flowmac.files import atomic_write

FOLDER = "plots"
# In inches: at 4.8, text of 10 points can still be read on a phone
WIDTH, HEIGHT, ROW_HEIGHT = 4.8, 3.9, 0.3
COLOURS = (
    "#0072b2",
    "#d55e00",
    "#009e73",
    "#cc79a7",
    "#e69f00",
    "#56b4e9",
    "#000000",
)
MARKERS = "osD^vPX*"  # as many as share no divisor with the colours
TEXT, GREY = "#222222", "#6b6b6b"
STYLE = {
    "axes.axisbelow": True,
    "axes.edgecolor": GREY,
    "axes.grid": True,
    "axes.labelcolor": TEXT,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "font.family": "DejaVu Sans",  # matplotlib brings it along
    "font.size": 10,
    "grid.color": "#e6e6e6",
    "lines.linewidth": 1.3,
    "lines.markersize": 6,
    "svg.fonttype": "path",
    "svg.hashsalt": "flowmac",
    "text.color": TEXT,
    "text.parse_math": False,  # labels may have dollars
    "xtick.color": TEXT,
    "ytick.color": TEXT,
}
RATE = re.compile(r"\s*\b[\d.]+ kbps\b")  # in labels
STEPS = re.compile(r",?\s*\b\d+ steps?\b")
NUMBER = re.compile(r"\b\d[\w.]*")


class Point(NamedTuple):
    """A system in a plot: a mean, its interval, and what it is the mean of."""

    system: SystemInfo
    mean: float
    low: float
    high: float
    values: list


def write_plots(results, folder):
    """Draws what the results, with their summary, have enough of into the folder
    `plots` of a folder; returns a list of `Plot`.

    For each metric quality against bit rate and the spread over files; where
    systems differ in their numbers of solver steps, quality and decoding time
    against those.
    """
    folder, plots = Path(folder), []
    with _style():
        for name, title, figure in _figures(results):
            image = io.BytesIO()
            figure.savefig(
                image, format="svg", metadata={"Date": None, "Title": title}
            )
            (folder / FOLDER).mkdir(exist_ok=True)
            path = f"{FOLDER}/{name}.svg"
            with atomic_write(folder / path) as file:
                file.write(image.getvalue())
            plots.append(Plot(title, path))
    return plots


@contextmanager
def _style():
    """Ours alone: a user's own settings of matplotlib change nothing."""
    import matplotlib

    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(STYLE)
        yield


def _figures(results):
    """Name, title and figure of each plot."""
    systems = [replace(s, label=printable(s.label)) for s in results.systems]
    looks = _looks(_family(s) for s in systems if s.kbps)
    systems = by_rate(systems)
    points = {
        metric.name: _points(results, systems, metric.name)
        for metric in results.metrics
    }
    kinds = (
        ("rate", "Quality against bit rate", _rate_figure),
        ("spread", "Spread over files", _spread_figure),
        ("steps", "Quality against solver steps", _steps_figure),
    )
    for kind, title, draw in kinds:
        for metric in results.metrics:
            name, heading = metric.name, metric.heading
            better = "higher" if metric.higher_is_better else "lower"
            axis = f"{heading} ({better} is better)"
            figure = draw(points[name], axis, looks)
            if figure is not None:
                yield f"{kind}-{name}", f"{title}: {heading}", figure
    timed = [
        Point(system, *[system.speed.decode_rtf] * 3, [])
        for system in systems
        if system.speed
    ]
    figure = _steps_figure(timed, "Decoding (seconds per second)", looks)
    if figure is not None:
        yield "steps-speed", "Decoding time against solver steps", figure


def _points(results, systems, metric):
    """Of the systems that have a mean."""
    means = {x.system: x for x in results.summary if x.metric == metric}
    return [
        Point(
            system,
            *(getattr(means[system.name], x) for x in ("mean", "low", "high")),
            [
                x
                for x in results.scores(system.name, metric)
                if x is not None and not math.isnan(x)
            ],
        )
        for system in systems
        if system.name in means
    ]


def _rate_figure(points, axis, looks):
    """Systems with a bit rate as points, the others as horizontal lines."""
    rated = [p for p in points if p.system.kbps]
    if not rated:
        return None
    figure, axes = _subplots(HEIGHT)
    level = [p for p in points if not p.system.kbps]
    for point in level:
        axes.axhline(point.mean, color=GREY, linestyle=(0, (4, 3)))
    rates = sorted({p.system.kbps for p in rated})
    axes.set_xscale("log")
    axes.set_xlim(rates[0] / 1.4, rates[-1] * 1.4)
    axes.set_xlabel("Bit rate (kbps)")
    axes.set_ylabel(axis)
    spaced = _spaced(rates, 1.25)
    axes.set_xticks(spaced, [f"{rate:.2g}" for rate in spaced])
    axes.set_xticks([], minor=True)
    families = [
        (_shared([RATE.sub("", p.system.label) for p in x]), x, looks[family])
        for family, x in _grouped(rated, _family).items()
    ]
    _draw_families(axes, families, lambda point: point.system.kbps, level)
    return figure


def _spread_figure(points, axis, looks):
    """Files as dots in a row for each system, the mean as a bar."""
    if not points:
        return None
    figure, axes = _subplots(0.8 + ROW_HEIGHT * len(points))
    for row, point in enumerate(points):
        look = looks.get(_family(point.system), {"color": GREY})
        # neighbours in value are put apart: the golden ratio spreads them
        ranks = np.argsort(np.argsort(point.values, kind="stable"))
        shift = 0.5 * (ranks * 0.618034 % 1 - 0.5)
        axes.plot(
            point.values,
            row + shift,
            "o",
            color=look["color"],
            markersize=3.5,
            markeredgewidth=0,
            alpha=0.5,
        )
        axes.errorbar(
            point.mean,
            row,
            xerr=_interval([point]),
            color=TEXT,
            marker="|",
            markersize=11,
            markeredgewidth=1.6,
            capsize=2.5,
        )
    labels = [textwrap.fill(p.system.label, 25) for p in points]
    axes.set_yticks(range(len(points)), labels, fontsize=9)
    axes.set_ylim(len(points) - 0.5, -0.5)
    axes.tick_params(axis="y", length=0)
    axes.grid(axis="y", visible=False)
    axes.set_xlabel(axis)
    return figure


def _steps_figure(points, axis, looks):
    """Systems that differ only in their steps, joined."""
    points = [p for p in points if "steps" in p.system.options]
    counts = sorted({p.system.options["steps"] for p in points})
    if len(counts) < 2:
        return None
    figure, axes = _subplots(HEIGHT)
    # as categories: 0 steps have no logarithm
    axes.set_xticks(range(len(counts)), counts)
    axes.set_xlim(-0.4, len(counts) - 0.6)
    axes.set_xlabel("Steps of the solver")
    axes.set_ylabel(axis)
    groups = _grouped(points, lambda s: STEPS.sub("", s.label))
    own = _looks(groups)
    lines = [(label, members, own[label]) for label, members in groups.items()]

    def abscissa(point):
        return counts.index(point.system.options["steps"])

    _draw_families(axes, lines, abscissa)
    return figure


def _draw_families(axes, families, abscissa, level=()):
    """Draws lines through points, then labels where they hide least.

    families: label, points and look of each; abscissa: from a point;
    level: points of horizontal lines that are drawn already.
    """
    drawn = []
    for label, points, look in families:
        points = sorted(points, key=abscissa)
        x, y = [abscissa(p) for p in points], [p.mean for p in points]
        axes.errorbar(
            x, y, yerr=_interval(points), capsize=2.5, elinewidth=1, **look
        )
        drawn.append((label, x, y, points, _dark(look["color"])))
    axes.margins(y=0.08)
    labels = Labels(axes)
    for _, x, y, points, _ in drawn:
        labels.avoid(x, y)
        for at, point in zip(x, points, strict=True):
            labels.avoid([at, at], [point.low, point.high], 3)
    for point in level:
        labels.avoid(axes.get_xlim(), [point.mean] * 2, 1)
    for point in level:
        labels.put_on_line(
            point.system.label, point.mean, fontsize=9, color=GREY
        )
    for label, x, y, _, colour in drawn:
        places = list(zip(x, y, strict=True))
        labels.put(label, places, fontsize=9, color=colour)


def _dark(colour):
    """The same hue, dark enough for small text."""
    from matplotlib.colors import to_rgb

    return tuple(0.62 * part for part in to_rgb(colour))


def _subplots(height):
    # no pyplot: it keeps figures alive and picks a display
    from matplotlib.figure import Figure

    figure = Figure(figsize=(WIDTH, height), layout="constrained")
    return figure, figure.subplots()


def _interval(points):
    """Lengths of error bars, [2, N]; none is negative."""
    below = [max(p.mean - p.low, 0) for p in points]
    above = [max(p.high - p.mean, 0) for p in points]
    return [below, above]


def _family(system):
    """What a line joins: one codec at several rates, all else alike."""
    if system.kind == "folder":
        return system.name
    # modes and qualities are numbers too
    return NUMBER.sub("", system.label), system.options.get("steps")


def _shared(labels):
    """The words that labels begin with."""
    words = zip(*(label.split() for label in labels), strict=False)
    same = itertools.takewhile(lambda group: len(set(group)) == 1, words)
    return " ".join(group[0] for group in same).rstrip(" ,") or labels[0]


def _grouped(points, key):
    groups = {}
    for point in points:
        groups.setdefault(key(point.system), []).append(point)
    return groups


def _looks(families):
    """A colour and a marker for each, in their order."""
    cycle = zip(itertools.cycle(COLOURS), itertools.cycle(MARKERS))
    return {
        family: {"color": colour, "marker": marker}
        for family, (colour, marker) in zip(
            dict.fromkeys(families), cycle, strict=False
        )
    }


def _spaced(values, factor):
    """Those of rising values that are far enough from the one before."""
    kept = values[:1]
    for value in values[1:]:
        if value > factor * kept[-1]:
            kept.append(value)
    return kept
