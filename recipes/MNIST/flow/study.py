#!/usr/bin/env python3
"""Trains every objective, network and kind of tokens; one table, one picture.

> python recipes/MNIST/flow/study.py hparams/mnist_flow.yaml

Options go to every training. Models that have been scored are not trained
again, so the same command goes on where it was stopped. Writes `study.md` and
`study.png` into `study_folder`, anew after each model.
"""

import itertools
import json
import sys
from pathlib import Path
from typing import Any, NamedTuple

import torch
import train
from images import load_images
from matplotlib.figure import Figure
from model import NETWORKS
from scores import frechet_distance, get_classifier

from speechbrain_flowmac.training.experiment import load


class Cell(NamedTuple):
    """One of the models that are compared.

    Arguments
    ---------
    objective, network, tokens : str
        What it is.
    scores : dict
        From its `scores.json`.
    """

    objective: str
    network: str
    tokens: str
    scores: Any


def choices(hparams):
    """All (objective, network, tokens).

    Arguments
    ---------
    hparams : dict
        objectives and tokenisations.

    Returns
    -------
    list of tuple of str
    """
    # objectives are what is compared, so they are trained in a row
    found = itertools.product(
        hparams["tokenisations"], NETWORKS, hparams["objectives"]
    )
    return [
        (objective, network, tokens) for tokens, network, objective in found
    ]


def get_scores(arguments, chosen):
    """Scores of a model, which is trained if it has none.

    Arguments
    ---------
    arguments : list of str
        Those of all trainings.
    chosen : tuple of str
        objective, network and tokens.

    Returns
    -------
    dict
    """
    names = ("objective", "network", "tokens")
    own = [
        f"--{name}={value}" for name, value in zip(names, chosen, strict=True)
    ]
    whole = [*arguments, *own]
    folder = Path(load(whole).hparams["output_folder"])
    file = folder / "scores.json"
    if not file.exists():
        train.main(whole)
    scores = json.loads(file.read_text())
    if scores["arguments"] != whole:
        raise ValueError(
            f"{folder} was trained with {' '.join(scores['arguments'])}, now "
            f"asked for {' '.join(whole)}: give another --study_folder"
        )
    return scores


def table(cells, evaluations):
    """Markdown of all cells.

    Arguments
    ---------
    cells : list of Cell
        In the order of the rows.
    evaluations : list of int
        Steps of the samples.

    Returns
    -------
    str
    """
    steps = [f"{n}" for n in evaluations]
    head = ["objective", "network", "tokens"]
    head += [f"accuracy {n}" for n in steps] + [f"Frechet {n}" for n in steps]
    head += ["MSE", "ms a step", "parameters"]
    rows = [head, ["---"] * len(head)]
    for cell in cells:
        samples = cell.scores["samples"]
        rows.append(
            [
                *(cell.objective.replace("_", " "), cell.network, cell.tokens),
                *(f"{100 * s['accuracy']:.0f} %" for s in samples),
                *(f"{s['frechet']:.1f}" for s in samples),
                f"{cell.scores['mse']:.3f}",
                f"{1000 * cell.scores['seconds_per_step']:.0f}",
                f"{cell.scores['parameters'] / 1000:.0f} k",
            ]
        )
    return "".join("| " + " | ".join(row) + " |\n" for row in rows)


def real_digits(hparams):
    """What samples could reach: real digits that were trained on, as scored.

    Arguments
    ---------
    hparams : dict
        The options.

    Returns
    -------
    str
    """
    trained, test = load_images(hparams["data_set"], hparams["data_folder"])
    classifier = get_classifier(
        hparams["classifier_file"], trained, hparams["side"]
    )
    number = 10 * hparams["samples_each"]
    with torch.no_grad():
        distance = frechet_distance(
            classifier.features(trained.signals[:number]),
            classifier.features(test.signals),
        )
    return (
        f"Real digits: accuracy {100 * classifier.accuracy(*test):.1f} % "
        f"(test set), Frechet {distance:.1f} (training against test set).\n"
    )


def picture(cells, hparams):
    """Ten digits of each cell, at the fewest and at the most evaluations.

    Arguments
    ---------
    cells : list of Cell
        All of them, or those that are done.
    hparams : dict
        The options.

    Returns
    -------
    matplotlib.figure.Figure
    """
    side, objectives = hparams["side"], list(hparams["objectives"])
    rows = list(dict.fromkeys((c.network, c.tokens) for c in cells))
    figure = Figure((2.6 * len(objectives), 0.75 * len(rows)), dpi=100)
    figure.set_layout_engine("constrained")
    axes = figure.subplots(len(rows), len(objectives), squeeze=False)
    for axis in axes.flat:
        axis.set(xticks=[], yticks=[], frame_on=False)
    for axis, objective in zip(axes[0], objectives, strict=True):
        axis.set_title(objective.replace("_", " "), fontsize=8)
    for axis, (network, tokens) in zip(axes[:, 0], rows, strict=True):
        axis.set_ylabel(f"{network}\n{tokens}", fontsize=7)
    for cell in cells:
        few, many = (
            torch.tensor(cell.scores["pictures"][i]).unflatten(1, (side, side))
            for i in (0, -1)
        )
        strips = [torch.cat(list(part), dim=1) for part in (few, many)]
        axes[
            rows.index((cell.network, cell.tokens)),
            objectives.index(cell.objective),
        ].imshow(torch.cat(strips).numpy(), cmap="gray_r", vmin=-1, vmax=2)
    return figure


def main(arguments):
    """Trains what is missing, and writes the table and the picture."""
    hparams = load(arguments).hparams
    folder = Path(hparams["study_folder"])
    cells = []
    for chosen in choices(hparams):
        cells.append(Cell(*chosen, get_scores(arguments, chosen)))
        text = table(cells, hparams["evaluations"])
        (folder / "study.md").write_text(text + "\n" + real_digits(hparams))
        picture(cells, hparams).savefig(folder / "study.png")


if __name__ == "__main__":
    main(sys.argv[1:])
