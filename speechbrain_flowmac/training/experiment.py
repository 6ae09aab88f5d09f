"""What recipes have in common: command line, data, fit and test."""

import sys
from dataclasses import replace
from difflib import get_close_matches
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import speechbrain as sb
import torch
import yaml
from hyperpyyaml import load_hyperpyyaml
from speechbrain.dataio.dataloader import make_dataloader
from speechbrain.utils.distributed import ddp_init_group, run_on_main
from torch.nn.utils.parametrizations import weight_norm
from torch.nn.utils.parametrize import (
    is_parametrized,
    remove_parametrizations,
)

from speechbrain_flowmac.models.importers.training_folder import (
    averaged_weights,
)
from speechbrain_flowmac.models.loading import get_file, load_weights
from speechbrain_flowmac.training.brains.base import is_distributed
from speechbrain_flowmac.training.data import Audio, Cropper, make_dataset


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
    hparams_file = find_yaml(hparams_file)
    run_opts = checked(run_opts)
    check_overrides(overrides, Path(hparams_file).read_text("utf-8"))
    # before the YAML: the quantizer must know that there are several ranks
    ddp_init_group(run_opts)
    with open(hparams_file, encoding="utf-8") as file:
        hparams = load_hyperpyyaml(file, overrides)
    return Experiment(hparams, run_opts, hparams_file, overrides)


def find_yaml(path):
    """Looks up a YAML here, then in the folders above the script.

    So `python train.py hparams/flowmac.yaml` works in a recipe's folder, and
    the YAML is the one at the project's root.

    Arguments
    ---------
    path : str
        As the user gave it.

    Returns
    -------
    str
    """
    folders = [Path.cwd(), *Path(sys.argv[0]).resolve().parents]
    for folder in folders:
        if (folder / path).is_file():
            return str(folder / path)
    raise FileNotFoundError(
        f"no {path} in {folders[0]}, nor in {folders[1]} or above it"
    )


def checked(run_opts):
    """Refuses what cannot work, and mends what SpeechBrain leaves as text.

    Arguments
    ---------
    run_opts : speechbrain.utils.run_opts.RunOptions
        From the command line.

    Returns
    -------
    speechbrain.utils.run_opts.RunOptions
    """
    if run_opts.jit or run_opts.jit_module_keys:
        raise ValueError(
            "--jit and --jit_module_keys are refused: the models cannot be "
            "compiled to TorchScript"
        )
    limit = run_opts.optimizer_step_limit
    if limit is None:
        return run_opts
    if not str(limit).isdecimal():
        raise ValueError(
            f"--optimizer_step_limit={limit} is not a number of steps"
        )
    return replace(run_opts, optimizer_step_limit=int(limit))


def check_overrides(overrides, yaml_text):
    """ValueError if a key is given twice, or is none of the YAML's.

    Arguments
    ---------
    overrides, yaml_text : str
        What the command line gives, and the file that it changes.

    Example
    -------
    >>> check_overrides("lr: 0.1", "lr: 0.2")
    >>> check_overrides("lrr: 0.1", "lr: 0.2")
    Traceback (most recent call last):
    ValueError: the YAML has no key lrr; did you mean lr?
    """
    given, known = top_keys(overrides), top_keys(yaml_text)
    twice = sorted({f"--{key}" for key in given if given.count(key) > 1})
    if twice:
        raise ValueError(f"given more than once: {', '.join(twice)}")
    for key in given:
        if key not in known:
            near = get_close_matches(key, known, n=1)
            hint = f"; did you mean {near[0]}?" if near else ""
            raise ValueError(f"the YAML has no key {key}{hint}")


def top_keys(yaml_text):
    """Keys of a YAML's mapping, as often as they stand there; builds nothing.

    Example
    -------
    >>> top_keys("{a: 1, b: !new:os.getcwd {}, a: {c: 2}}")
    ['a', 'b', 'a']
    """
    root = yaml.compose(yaml_text)
    return [] if root is None else [key.value for key, _ in root.value]


def prepare(hparams, prepare_data):
    """Writes the manifests, on one rank.

    Arguments
    ---------
    hparams : dict
        data_folder, output_folder, the three lists of splits, skip_prep.
    prepare_data : callable
        The data set's own, as `libritts_prepare.prepare_libritts`.
    """
    run_on_main(
        prepare_data,
        kwargs={
            "data_folder": hparams["data_folder"],
            "save_folder": hparams["output_folder"],
            "train_splits": hparams["train_splits"],
            "valid_splits": hparams["valid_splits"],
            "test_splits": hparams["test_splits"],
            "skip_prep": hparams["skip_prep"],
        },
    )


def audio_items(hparams):
    """Random crops to train on, and whole utterances to validate.

    Arguments
    ---------
    hparams : dict
        mel_settings, crop_frames, seed, epoch_counter and augment.

    Returns
    -------
    tuple
        `Cropper` and `Audio`.
    """
    settings = hparams["mel_settings"]
    crops = Cropper(
        settings.sample_rate,
        hparams["crop_frames"] * settings.hop_length,
        hparams["seed"],
        hparams["epoch_counter"],
        augment=hparams["augment"],
    )
    return crops, Audio(settings.sample_rate)


def make_datasets(hparams, train_items, valid_items):
    """The three datasets of a training.

    Arguments
    ---------
    hparams : dict
        data_folder and the three manifests.
    train_items : list of DynamicItem
        Of the training set, as `training.data.make_dataset` takes them.
    valid_items : list of DynamicItem
        Of validation and test.
    Returns
    -------
    dict
        Datasets: train, valid and test.
    """
    wanted = {
        "train": (hparams["train_json"], train_items),
        "valid": (hparams["valid_json"], valid_items),
        "test": (hparams["test_json"], valid_items),
    }
    return {
        name: make_dataset(manifest, hparams["data_folder"], items)
        for name, (manifest, items) in wanted.items()
    }


def start_from_pretrained(hparams, name):
    """Gives a model the weights of an exported one, where the YAML says so.

    A checkpoint of this training, if there is one, is loaded over them. A
    codec takes the weights of one with another objective, see `Flow.adopt`.

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
    load_weights(hparams[name], path, getattr(hparams[name], "adopt", None))
    for part in normed:
        weight_norm(part)


def start_semantics(hparams):
    """Gives a codec with a semantic stream its recogniser, which stays as it is.

    Arguments
    ---------
    hparams : dict
        `semantic_folder`, the output folder of a recogniser's training on
        mels (None to keep what a pretrained codec has), and `codec`. A codec
        without a semantic stream has no such key.
    """
    if hparams.get("semantic_folder") is None:
        return
    state = averaged_weights(hparams["semantic_folder"])
    hparams["codec"].semantic.recogniser.load_state_dict(state)


def start_codebooks(hparams, dataset):
    """Starts a dynamic codec's codebooks from the data, before the training.

    Arguments
    ---------
    hparams : dict
        `codebook_batches` (how many to start from), the options of the
        training's loader, the checkpointer and the codec. A codec without
        runs of frames has no such key, and starts with its first batch.
    dataset : DynamicItemDataset
        What it is to be trained on.
    """
    codec, checkpointer = hparams["codec"], hparams["checkpointer"]
    if "codebook_batches" not in hparams or codec.quantizer.initialised:
        return
    if checkpointer.find_checkpoint() is not None:
        return
    # ranks are to find the same codebooks
    torch.manual_seed(hparams["seed"])
    options = {**hparams["train_dataloader_opts"], "num_workers": 0}
    batches = islice(
        make_dataloader(dataset, **options), hparams["codebook_batches"]
    )
    codec.start_codebooks(
        (batch.sig.data, torch.as_tensor(batch.num_samples))
        for batch in batches
    )


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
    leave_group()


def leave_group():
    """Ends what ranks share, once all are there."""
    if is_distributed():
        # a rank that exits while another still talks to it may abort
        torch.distributed.barrier()
        torch.distributed.destroy_process_group()
