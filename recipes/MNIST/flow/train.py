#!/usr/bin/env python3
"""Trains a flow of handwritten digits and scores its samples.

> python recipes/MNIST/flow/train.py hparams/mnist_flow.yaml \
      --objective=mean_flow --network=mlp --tokens=mdct

Every key of the YAML can be given on the command line.
"""

import json
import os
import sys
from functools import partial
from pathlib import Path

import speechbrain as sb
import torch
from images import ImageDataset, Images, as_they_are, load_images
from model import NETWORKS, LabelledFlow
from scores import get_classifier, score_samples, seconds_per_step
from torch.utils.data import DataLoader

from speechbrain_flowmac.training.brains.base import TrainingBrain
from speechbrain_flowmac.training.experiment import load

ERRORS = 2880  # pictures of the mean square error, with their own noise


class ImageBrain(TrainingBrain):
    """Trains a `LabelledFlow`; validation is its error without weights."""

    model_name = "model"

    def compute_forward(self, batch, stage):
        """The flow's losses."""
        train = stage == sb.Stage.TRAIN
        model = self.modules.model if train else self.averaged_model
        signals, labels = (part.to(self.device) for part in batch)
        return model(signals, labels, self.generator)

    def compute_objectives(self, losses, batch, stage):
        """The total in training, else the mean square error."""
        if stage != sb.Stage.TRAIN:
            return losses.mse
        self.track(loss=losses.total, mse=losses.mse)
        return losses.total


def choose(kind, name, known):
    """What an option of the command line names.

    Arguments
    ---------
    kind, name : str
        The option and its value.
    known : dict
        What there is, by name.

    Returns
    -------
    object
    """
    if name not in known:
        raise ValueError(
            f"{kind} must be one of {', '.join(known)}, found {name!r}"
        )
    return known[name]


def make_model(hparams):
    """The `LabelledFlow` that the options describe.

    Arguments
    ---------
    hparams : dict
        objective, network and tokens, with what they choose from.

    Returns
    -------
    LabelledFlow
    """
    network = choose("network", hparams["network"], NETWORKS)
    return LabelledFlow(
        tokens=choose("tokens", hparams["tokens"], hparams["tokenisations"]),
        num_samples=hparams["side"] ** 2,
        num_classes=10,
        network=partial(
            network,
            time_scale=hparams["time_scale"],
            **hparams["sizes"][hparams["network"]],
        ),
        objective=choose(
            "objective", hparams["objective"], hparams["objectives"]
        ),
        num_times=hparams["num_times"][hparams["objective"]],
    )


def score(model, train, test, hparams):
    """All figures of a trained model.

    Arguments
    ---------
    model : LabelledFlow
        On the CPU.
    train, test : Images
        The pictures.
    hparams : dict
        classifier_file, evaluations and samples_each.

    Returns
    -------
    dict
    """
    classifier = get_classifier(
        hparams["classifier_file"], train, hparams["side"]
    )
    samplings = [
        hparams["sampling"].with_changes(n_steps=steps)
        for steps in hparams["evaluations"]
    ]
    model.eval()
    with torch.no_grad():
        chance = torch.Generator().manual_seed(0)
        # the few digits that come with scikit-learn are taken several times
        some = Images(*(part[:ERRORS] for part in test))
        repeats = ERRORS // len(some.labels)
        mse = [model(*some, chance).mse for _ in range(repeats)]
    return {
        "samples": score_samples(
            model, classifier, test, samplings, hparams["samples_each"]
        ),
        "pictures": [
            model.sample(torch.arange(10), sampling).tolist()
            for sampling in samplings
        ],
        "mse": torch.stack(mse).mean().item(),
        "parameters": sum(p.numel() for p in model.parameters()),
        "seconds_per_step": seconds_per_step(
            model, train, hparams["batch_size"]
        ),
    }


def main(arguments):
    """Trains one model and writes its `scores.json`."""
    hparams, run_opts, hparams_file, overrides = load(arguments)
    train, test = load_images(hparams["data_set"], hparams["data_folder"])
    model = make_model(hparams)
    sb.create_experiment_directory(
        experiment_directory=hparams["output_folder"],
        hyperparams_to_save=hparams_file,
        overrides=overrides,
    )
    hparams["checkpointer"].add_recoverable("model", model)
    brain = ImageBrain(
        modules={"model": model},
        opt_class=hparams["opt_class"],
        hparams=hparams,
        run_opts=run_opts,
        checkpointer=hparams["checkpointer"],
    )
    loader = partial(
        DataLoader,
        batch_size=hparams["batch_size"],
        collate_fn=as_they_are,
    )
    brain.fit(
        brain.hparams.epoch_counter,
        loader(ImageDataset(train), shuffle=True, drop_last=True),
        loader(ImageDataset(test)),
    )
    figures = score(brain.averaged_model.cpu(), train, test, hparams)
    part = Path(hparams["output_folder"]) / "scores.json.part"
    part.write_text(json.dumps({"arguments": arguments, **figures}))
    os.replace(part, part.with_suffix(""))


if __name__ == "__main__":
    main(sys.argv[1:])
