#!/usr/bin/env python3
"""Trains the codec (waveform -> tokens -> mel) on LibriTTS.

> python recipes/LibriTTS/codec/train.py hparams/flowmac.yaml
> torchrun --standalone --nproc_per_node=2 recipes/LibriTTS/codec/train.py \
      hparams/flowmac.yaml

Every key of the YAML can be given on the command line: --data_folder=...
"""

import sys
from pathlib import Path

import speechbrain as sb
from speechbrain.utils.distributed import run_on_main

from speechbrain_flowmac.training.brains import FlowMACBrain
from speechbrain_flowmac.training.data import (
    load_or_compute_statistics,
    make_dataset,
)

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from experiment import (  # noqa: E402
    fit_and_test,
    load,
    make_datasets,
    prepare,
    start_from_pretrained,
)


def set_statistics(hparams):
    """Gives the normaliser the mean and deviation of the training data."""
    whole = make_dataset(
        hparams["train_json"],
        hparams["data_folder"],
        hparams["mel_settings"].sample_rate,
    )
    request = [hparams["statistics_file"], whole, hparams["features"]]
    run_on_main(load_or_compute_statistics, args=request)
    known = load_or_compute_statistics(*request)
    hparams["normalizer"].set_statistics(known["mean"], known["std"])


def main(arguments):
    """Prepares the data, trains, and tests the best checkpoint."""
    hparams, run_opts, hparams_file, overrides = load(arguments)
    sb.create_experiment_directory(
        experiment_directory=hparams["output_folder"],
        hyperparams_to_save=hparams_file,
        overrides=overrides,
    )
    prepare(hparams)
    set_statistics(hparams)
    start_from_pretrained(hparams, "codec")
    brain = FlowMACBrain(
        modules=hparams["modules"],
        opt_class=hparams["opt_class"],
        hparams=hparams,
        run_opts=run_opts,
        checkpointer=hparams["checkpointer"],
    )
    fit_and_test(brain, make_datasets(hparams), hparams)


if __name__ == "__main__":
    main(sys.argv[1:])
