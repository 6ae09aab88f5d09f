"""Data of the tasks that have text beside speech."""

import csv
import json
from pathlib import Path

from speechbrain.dataio.sampler import DynamicBatchSampler

from speechbrain_flowmac.training.data import TextTokens, make_dataset
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


def fit_symbols(hparams, symbols):
    """Learns the symbols of texts, where they are learnt, and checks them.

    Arguments
    ---------
    hparams : dict
        output_folder, where `keep_transcribed` wrote, and num_symbols.
    symbols : Characters or WordPieces
        What turns texts into numbers.
    """
    path = Path(hparams["output_folder"], "train_text.json")
    utterances = json.loads(path.read_text(encoding="utf-8"))
    symbols.fit([entry["label"] for entry in utterances.values()])
    if len(symbols.vocabulary) != hparams["num_symbols"]:
        raise ValueError(
            f"num_symbols must be {len(symbols.vocabulary)}, the blank and "
            f"the symbols of texts, found {hparams['num_symbols']}"
        )


def make_transcribed(hparams, speech, symbols):
    """Datasets of speech and text: train, valid and test.

    Arguments
    ---------
    hparams : dict
        output_folder, where `keep_transcribed` wrote, data_folder and
        token_folder.
    speech : dict
        What is wanted of the speech of each set, such as `TokenInputs`.
    symbols : Characters or WordPieces
        What turns texts into numbers.

    Returns
    -------
    dict
        Datasets by the names of sets.
    """
    folder, datasets = Path(hparams["output_folder"]), {}
    for name, item in speech.items():
        manifest, root = item.prepare(
            folder / f"{name}_text.json",
            hparams["data_folder"],
            Path(hparams["token_folder"], name),
        )
        datasets[name] = make_dataset(
            manifest,
            hparams["data_folder"],
            [item, TextTokens(symbols.encode)],
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
