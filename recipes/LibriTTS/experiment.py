"""What the LibriTTS recipes have in common: loading, data, fit and test."""

from typing import Any, NamedTuple

import speechbrain as sb
import torch
from hyperpyyaml import load_hyperpyyaml
from libritts_prepare import prepare_libritts
from speechbrain.utils.distributed import ddp_init_group, run_on_main
from torch.nn.utils.parametrizations import weight_norm
from torch.nn.utils.parametrize import (
    is_parametrized,
    remove_parametrizations,
)

from speechbrain_flowmac.models.loading import get_file, load_weights
from speechbrain_flowmac.training.brains.base import is_distributed
from speechbrain_flowmac.training.data import Cropper, make_dataset


class Experiment(NamedTuple):
    """A recipe's command line, read.

    Arguments
    ---------
    hparams : dict
        The YAML, loaded with the overrides.
    run_opts : Any
        SpeechBrain's run options.
    hparams_file : str
        Path of the YAML.
    overrides : str
        YAML text.
    """

    hparams: dict
    run_opts: Any
    hparams_file: str
    overrides: str


def load(arguments):
    """Reads the command line and the YAML; joins the other ranks, if any.

    Arguments
    ---------
    arguments : list of str
        The command line without the script.

    Returns
    -------
    Experiment
    """
    hparams_file, run_opts, overrides = sb.parse_arguments(arguments)
    # before the YAML: the quantizer must know that there are several ranks
    ddp_init_group(run_opts)
    with open(hparams_file, encoding="utf-8") as file:
        hparams = load_hyperpyyaml(file, overrides)
    return Experiment(hparams, run_opts, hparams_file, overrides)


def prepare(hparams):
    """Writes the manifests, on one rank.

    Arguments
    ---------
    hparams : dict
        data_folder, output_folder, the three lists of splits, skip_prep.
    """
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


def make_datasets(hparams, f0_labels=None):
    """Random crops for training, whole utterances elsewhere.

    Arguments
    ---------
    hparams : dict
        data_folder, the three manifests, mel_settings, crop_frames, seed,
        epoch_counter and sound_mixer.
    f0_labels : dict or None
        See `speechbrain_flowmac.training.data.make_dataset`.

    Returns
    -------
    dict
        Datasets: train, valid and test.
    """
    settings = hparams["mel_settings"]
    cropper = Cropper(
        settings.sample_rate,
        hparams["crop_frames"] * settings.hop_length,
        hparams["seed"],
        hparams["epoch_counter"],
        mixer=hparams["sound_mixer"],
    )
    options = {
        "data_folder": hparams["data_folder"],
        "sample_rate": settings.sample_rate,
        "f0_labels": f0_labels,
    }
    return {
        "train": make_dataset(
            hparams["train_json"], cropper=cropper, **options
        ),
        "valid": make_dataset(hparams["valid_json"], **options),
        "test": make_dataset(hparams["test_json"], **options),
    }


def start_from_pretrained(hparams, name):
    """Gives a model the weights of an exported one, where the YAML says so.

    A checkpoint of this training, if there is one, is loaded over them.

    Arguments
    ---------
    hparams : dict
        `pretrained` (None, or a source as `FlowMACCodec` takes it) and the
        model.
    name : str
        "codec" or "vocoder".
    """
    if hparams["pretrained"] is None:
        return
    path = get_file(hparams["pretrained"], f"{name}.safetensors")
    # exported weights have no weight norm: it is put on again
    normed = [part for part in hparams[name].modules() if is_parametrized(part)]
    for part in normed:
        remove_parametrizations(part, "weight")
    load_weights(hparams[name], path)
    for part in normed:
        weight_norm(part)


def fit_and_test(brain, datasets, hparams):
    """Trains, tests the best checkpoint, and leaves the other ranks, if any.

    Arguments
    ---------
    brain : TrainingBrain
        What trains.
    datasets : dict
        From `make_datasets`.
    hparams : dict
        The options of the data loaders.
    """
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
    if is_distributed():
        # a rank that exits while another still talks to it may abort
        torch.distributed.barrier()
        torch.distributed.destroy_process_group()
