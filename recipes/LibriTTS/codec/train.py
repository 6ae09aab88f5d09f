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
from hyperpyyaml import load_hyperpyyaml
from speechbrain.utils.distributed import ddp_init_group, run_on_main

from speechbrain_flowmac.brains import FlowMACBrain
from speechbrain_flowmac.data import (
    Cropper,
    load_or_compute_statistics,
    make_dataset,
)

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from libritts_prepare import prepare_libritts  # noqa: E402


def dataio_prepare(hparams):
    """Datasets: random crops for training, whole utterances elsewhere."""
    settings = hparams["mel_settings"]
    cropper = Cropper(
        settings.sample_rate,
        hparams["crop_frames"] * settings.hop_length,
        hparams["seed"],
        hparams["epoch_counter"],
    )
    folder, rate = hparams["data_folder"], settings.sample_rate
    return {
        "train": make_dataset(hparams["train_json"], folder, rate, cropper),
        "valid": make_dataset(hparams["valid_json"], folder, rate),
        "test": make_dataset(hparams["test_json"], folder, rate),
        "whole": make_dataset(hparams["train_json"], folder, rate),
    }


def main(arguments):
    """Prepares the data, trains, and tests the best checkpoint."""
    hparams_file, run_opts, overrides = sb.parse_arguments(arguments)
    # before the YAML: the quantizer must know that there are several ranks
    ddp_init_group(run_opts)
    with open(hparams_file, encoding="utf-8") as file:
        hparams = load_hyperpyyaml(file, overrides)
    sb.create_experiment_directory(
        experiment_directory=hparams["output_folder"],
        hyperparams_to_save=hparams_file,
        overrides=overrides,
    )
    run_on_main(
        prepare_libritts,
        kwargs={
            "data_folder": hparams["data_folder"],
            "save_folder": hparams["output_folder"],
            "train_splits": hparams["train_splits"],
            "valid_splits": hparams["valid_splits"],
            "test_splits": hparams["test_splits"],
            "skip_prep": hparams["skip_prep"],
        },
    )
    datasets = dataio_prepare(hparams)
    statistics = [hparams["statistics_file"], datasets["whole"]]
    run_on_main(
        load_or_compute_statistics, args=[*statistics, hparams["features"]]
    )
    known = load_or_compute_statistics(*statistics, hparams["features"])
    hparams["normalizer"].set_statistics(known["mean"], known["std"])

    brain = FlowMACBrain(
        modules=hparams["modules"],
        opt_class=hparams["opt_class"],
        hparams=hparams,
        run_opts=run_opts,
        checkpointer=hparams["checkpointer"],
    )
    brain.fit(
        brain.hparams.epoch_counter,
        datasets["train"],
        datasets["valid"],
        train_loader_kwargs=hparams["train_dataloader_opts"],
        valid_loader_kwargs=hparams["valid_dataloader_opts"],
    )
    brain.evaluate(
        datasets["test"],
        min_key="loss",
        test_loader_kwargs=hparams["valid_dataloader_opts"],
    )


if __name__ == "__main__":
    main(sys.argv[1:])
