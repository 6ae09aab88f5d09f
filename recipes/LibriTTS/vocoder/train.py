#!/usr/bin/env python3
"""Trains a vocoder on LibriTTS, for the mels of a codec.

> python recipes/LibriTTS/vocoder/train.py hparams/istft_vocoder.yaml

Every key of the YAML can be given on the command line: --data_folder=...
"""

import sys
from pathlib import Path

import speechbrain as sb
from hyperpyyaml import load_hyperpyyaml
from speechbrain.utils.distributed import ddp_init_group, run_on_main

from speechbrain_flowmac.brains import VocoderBrain
from speechbrain_flowmac.data import Cropper, make_dataset

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
    options = {
        "data_folder": hparams["data_folder"],
        "sample_rate": settings.sample_rate,
        "f0_labels": hparams["f0_labels"],
    }
    return {
        "train": make_dataset(
            hparams["train_json"], cropper=cropper, **options
        ),
        "valid": make_dataset(hparams["valid_json"], **options),
        "test": make_dataset(hparams["test_json"], **options),
    }


def main(arguments):
    """Prepares the data, trains, and tests the best checkpoint."""
    hparams_file, run_opts, overrides = sb.parse_arguments(arguments)
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
    brain = VocoderBrain(
        modules=hparams["modules"],
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
