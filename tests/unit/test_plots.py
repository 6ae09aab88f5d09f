"""Plots are drawn where there is something to draw, and always alike."""

import itertools
import subprocess
import sys
from dataclasses import replace
from xml.etree import ElementTree

import matplotlib
import numpy as np
import pytest
from evaluation_numbers import SYSTEMS, number_results
from matplotlib.figure import Figure

from speechbrain_flowmac.evaluation import plots as module
from speechbrain_flowmac.evaluation.labels import Labels
from speechbrain_flowmac.evaluation.plots import write_plots
from speechbrain_flowmac.evaluation.results import Plot

METRICS = ("pesq", "warpq", "distillmos")
STEPS = [*(f"steps-{x}" for x in METRICS), "steps-speed"]


@pytest.fixture
def drawn(monkeypatch):
    """Figures that were drawn, by the names of their files."""
    figures = {}
    found = module._figures

    def keep(results):
        for name, title, figure in found(results):
            figures[name] = figure
            yield name, title, figure

    monkeypatch.setattr(module, "_figures", keep)
    return figures


def _one_metric(num_files, systems=SYSTEMS):
    results = number_results(num_files, systems)
    return replace(results, metrics=results.metrics[:1])


def _names(plots):
    return [x.path.removeprefix("plots/")[:-4] for x in plots]


def _texts(axes):
    return [text.get_text() for text in axes.texts]


def test_every_plot_is_an_svg_with_its_title(tmp_path):
    plots = write_plots(number_results(8), tmp_path)
    assert _names(plots) == [
        *(f"{kind}-{x}" for kind in ("rate", "spread") for x in METRICS),
        *STEPS,
    ]
    assert plots[0] == Plot(
        "Quality against bit rate: PESQ-WB", "plots/rate-pesq.svg"
    )
    for plot in plots:
        root = ElementTree.parse(tmp_path / plot.path).getroot()
        assert root.tag.endswith("svg")
        assert root[0].text == plot.title
    assert len(list((tmp_path / "plots").iterdir())) == len(plots)


def test_the_same_results_give_the_same_bytes(tmp_path, monkeypatch):
    results = _one_metric(4)
    folders = [tmp_path / name for name in "ab"]
    for folder, order, width in zip(folders, (1, -1), (0.8, 3.0), strict=True):
        folder.mkdir()
        results.results = results.results[::order]
        results.summary = results.summary[::order]
        # neither a user's settings nor the clock matter
        monkeypatch.setitem(matplotlib.rcParams, "xtick.major.width", width)
        monkeypatch.setenv("SOURCE_DATE_EPOCH", str(round(width)))
        plots = write_plots(results, folder)
        assert matplotlib.rcParams["xtick.major.width"] == width
    for plot in plots:
        first, second = ((f / plot.path).read_bytes() for f in folders)
        assert first == second
        assert b"1970" not in first


def test_rate_plot_has_points_intervals_and_levels(tmp_path, drawn):
    results = number_results(8)
    results.metrics = results.metrics[:2]
    write_plots(results, tmp_path)
    (axes,) = drawn["rate-pesq"].axes
    assert axes.get_xlabel() == "Bit rate (kbps)"
    assert axes.get_ylabel() == "PESQ-WB (higher is better)"
    assert "lower is better" in drawn["rate-warpq"].axes[0].get_ylabel()
    means = {x.system: x for x in results.summary if x.metric == "pesq"}
    families = {
        tuple(container[0].get_xdata()): container
        for container in axes.containers
    }
    # FlowMAC of one step at two rates, of four at one, and Opus
    assert set(families) == {(1.5, 3.0), (3.0,), (6.0, 12.0)}
    opus, bars = families[6.0, 12.0][0], families[6.0, 12.0][2][0]
    expected = [means[name] for name in ("opus:6", "opus:12")]
    assert list(opus.get_ydata()) == [x.mean for x in expected]
    for segment, x in zip(bars.get_segments(), expected, strict=True):
        assert segment[:, 1] == pytest.approx([x.low, x.high])
    levels = {line.get_ydata()[0] for line in axes.lines}
    assert {means["reference"].mean, means["lowpass:3.5"].mean} <= levels
    assert sorted(_texts(axes)) == [
        "FlowMAC, 1 step",
        "FlowMAC, 4 steps",
        "Low-pass 3.5 kHz",
        "Opus",
        "Reference",
    ]


def test_folders_are_no_family(tmp_path, drawn):
    systems = [
        (f"folder:{x}", f"run {x}", "folder", 3.0 + x, {}, (2, 2, 3))
        for x in (1, 2)
    ]
    write_plots(_one_metric(3, systems), tmp_path)
    (axes,) = drawn["rate-pesq"].axes
    assert sorted(_texts(axes)) == ["run 1", "run 2"]


def test_spread_has_a_dot_for_each_file(tmp_path, drawn):
    results = _one_metric(8)
    results.results[3].scores["pesq"] = None
    write_plots(results, tmp_path)
    (axes,) = drawn["spread-pesq"].axes
    dots = [x for x in axes.lines if x.get_linestyle() == "None"]
    dots = [x for x in dots if x.get_marker() == "o"]
    labels = [text.get_text() for text in axes.get_yticklabels()]
    assert labels[0] == "Reference" and "LC3 16 kbps" not in labels
    row = labels.index("Opus 6 kbps")
    found = [
        x.scores["pesq"]
        for x in results.results
        if x.system == "opus:6" and x.scores["pesq"] is not None
    ]
    assert len(found) == 7
    assert sorted(dots[row].get_xdata()) == sorted(found)
    assert np.abs(dots[row].get_ydata() - row).max() < 0.5


def test_steps_need_two_counts(tmp_path, drawn):
    assert not set(STEPS) & set(
        _names(write_plots(_one_metric(3, SYSTEMS[:1]), tmp_path))
    )
    write_plots(_one_metric(3, SYSTEMS[:3]), tmp_path)
    (axes,) = drawn["steps-pesq"].axes
    ticks = [text.get_text() for text in axes.get_xticklabels()]
    assert ticks == ["1", "4"]
    assert sorted(_texts(axes)) == ["FlowMAC 1.5 kbps", "FlowMAC 3.0 kbps"]
    lines = {
        tuple(c[0].get_ydata()) for c in drawn["steps-speed"].axes[0].containers
    }
    assert lines == {(0.1,), (0.1, 0.25)}


@pytest.mark.parametrize("case", ["no results", "all unavailable", "no metric"])
def test_nothing_to_draw(case, tmp_path):
    results = number_results(2)
    if case == "no metric":
        results.metrics = []
        results.systems = results.systems[-3:]
    elif case == "no results":
        results.systems = results.systems[-3:]
    else:
        results.systems = results.systems[-1:]
    results.results, results.summary = [], []
    assert write_plots(results, tmp_path) == []
    assert not list(tmp_path.iterdir())


def test_one_file_and_odd_labels(tmp_path):
    systems = [
        ("a:1", "$x_{$ <&> 3 kbps", "codec", 3.0, {}, (2.0, 1.0, 3.0)),
        ("b", "a name that is too long for a line 6 kbps", "codec", 6.0)
        + ({}, (2.0, 1.0, 3.0)),
    ]
    plots = write_plots(number_results(1, systems), tmp_path)
    assert len(plots) == 6
    for plot in plots:
        ElementTree.parse(tmp_path / plot.path)


def test_importing_it_imports_no_matplotlib():
    code = (
        "import sys, speechbrain_flowmac.evaluation.plots;"
        "sys.exit('matplotlib' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


# Labels


def _crossing(boxes):
    return [
        (a, b)
        for a, b in itertools.combinations(boxes, 2)
        if a.fully_overlaps(b)
    ]


def test_labels_keep_off_each_other_and_stay_inside():
    axes = Figure(figsize=(4.8, 3.9)).subplots()
    points = np.random.default_rng(0).uniform(size=(12, 2))
    axes.set(xlim=(-0.1, 1.1), ylim=(-0.1, 1.1))
    labels = Labels(axes)
    for x, y in points:
        labels.avoid([x], [y])
    for i, point in enumerate(points):
        labels.put(f"label {i}", [point], fontsize=9)
    labels.put_on_line("a level", 1.05)
    boxes = [x.get_window_extent(labels.renderer) for x in axes.texts]
    assert len(boxes) == 13 and not _crossing(boxes)
    frame = axes.get_window_extent(labels.renderer)
    for box in boxes:
        assert np.all(box.min >= frame.min - 1e-6)
        assert np.all(box.max <= frame.max + 1e-6)
    dots = axes.transData.transform(points)
    assert not any(box.contains(*dot) for box in boxes for dot in dots)


def test_a_label_stands_where_its_line_is_free():
    axes = Figure(figsize=(4.8, 3.9)).subplots()
    axes.set(xlim=(0, 1), ylim=(0, 1))
    labels = Labels(axes)
    labels.avoid([0.8, 0.8], [0, 1], 60)  # a broad bar
    labels.put("here", [(0.8, 0.5), (0.2, 0.5)])
    labels.put_on_line("there", 0.5)
    for text in axes.texts:
        box = text.get_window_extent(labels.renderer)
        assert axes.transData.inverted().transform((box.x1, 0))[0] < 0.7
