#!/usr/bin/env python3
"""Trains a speech recogniser on the codec's tokens, or on its log-mels.

> python recipes/LibriTTS/ASR_tokens/train.py hparams/asr_tokens_lstm.yaml
> python recipes/LibriTTS/ASR_tokens/train.py hparams/asr_mel.yaml

Every key of the YAML can be given on the command line: --num_codebooks=2
"""

import csv
import json
import sys
from pathlib import Path

import speechbrain as sb
from libritts_prepare import prepare_libritts
from speechbrain.dataio.sampler import DynamicBatchSampler
from speechbrain.utils.distributed import run_on_main

from speechbrain_flowmac.training.brains.recogniser import RecogniserBrain
from speechbrain_flowmac.training.data import TextTokens, make_dataset
from speechbrain_flowmac.training.experiment import fit_and_test, load, prepare
from speechbrain_flowmac.training.targets import english_letters

SETS = ("train", "valid", "test")


def keep_transcribed(hparams):
    """Writes manifests of the utterances that have an English text.

    Arguments
    ---------
    hparams : dict
        output_folder, with the manifests of all utterances, and corpus_csv:
        None, or a CSV file with id and language of the utterances.
    """
    folder, english = Path(hparams["output_folder"]), None
    if hparams["corpus_csv"] is not None:
        english = english_of(hparams["corpus_csv"])
    for name in SETS:
        utterances = json.loads((folder / f"{name}.json").read_text("utf-8"))
        texts = {u: english_letters(e["label"]) for u, e in utterances.items()}
        kept = {
            utterance: {**utterances[utterance], "label": text}
            for utterance, text in texts.items()
            if text and (english is None or utterance in english)
        }
        if not kept:
            raise ValueError(f"no utterance of {name} has an English text")
        (folder / f"{name}_text.json").write_text(
            json.dumps(kept, indent=2), encoding="utf-8"
        )


def english_of(path):
    """Names of the utterances that a CSV file calls English."""
    with open(path, encoding="utf-8", newline="") as file:
        rows = csv.DictReader(file)
        if not {"id", "language"} <= set(rows.fieldnames or ()):
            raise ValueError(
                f"{path} needs the columns id and language, found "
                f"{rows.fieldnames}"
            )
        return {row["id"] for row in rows if row["language"] == "en"}


def fit_targets(hparams):
    """Learns the targets, where they are learnt, and checks their number."""
    path = Path(hparams["output_folder"], "train_text.json")
    utterances = json.loads(path.read_text(encoding="utf-8"))
    targets = hparams["targets"]
    targets.fit([entry["label"] for entry in utterances.values()])
    if len(targets.vocabulary) != hparams["num_symbols"]:
        raise ValueError(
            f"num_symbols must be {len(targets.vocabulary)}, the blank and "
            f"the symbols of the targets, found {hparams['num_symbols']}"
        )


def make_datasets(hparams):
    """Datasets of inputs and targets: train, valid and test."""
    folder, datasets = Path(hparams["output_folder"]), {}
    for name in SETS:
        manifest, root = hparams["inputs"].prepare(
            folder / f"{name}_text.json",
            hparams["data_folder"],
            Path(hparams["token_folder"], name),
        )
        datasets[name] = make_dataset(
            manifest,
            hparams["data_folder"],
            [hparams["inputs"], TextTokens(hparams["targets"].encode)],
            token_root=root,
        )
    return datasets


def batch_by_length(dataset, hparams):
    """A sampler of batches of utterances of like length."""
    return DynamicBatchSampler(
        dataset,
        max_batch_length=hparams["batch_seconds"],
        num_buckets=hparams["num_buckets"],
        length_func=lambda entry: entry["duration"],
        shuffle=True,
        seed=hparams["seed"],
    )


def main(arguments):
    """Prepares texts and inputs, trains, and tests the best checkpoint."""
    hparams, run_opts, hparams_file, overrides = load(arguments)
    sb.create_experiment_directory(
        experiment_directory=hparams["output_folder"],
        hyperparams_to_save=hparams_file,
        overrides=overrides,
    )
    prepare(hparams, prepare_libritts)
    run_on_main(keep_transcribed, args=[hparams])
    datasets = make_datasets(hparams)
    run_on_main(fit_targets, args=[hparams])
    sampler = batch_by_length(datasets["train"], hparams)
    hparams["train_dataloader_opts"] = {"batch_sampler": sampler}
    brain = RecogniserBrain(
        modules=hparams["modules"],
        opt_class=hparams["opt_class"],
        hparams=hparams,
        run_opts=run_opts,
        checkpointer=hparams["checkpointer"],
    )
    fit_and_test(brain, datasets, hparams)


if __name__ == "__main__":
    main(sys.argv[1:])
