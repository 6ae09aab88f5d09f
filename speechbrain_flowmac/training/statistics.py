"""Mean and deviation of a training set's features, kept in a file."""

import hashlib
import json
import logging
from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch
from speechbrain.utils.distributed import run_on_main
from tqdm import tqdm

from speechbrain_flowmac.lobes.normalizer import RunningStatistics
from speechbrain_flowmac.training.data import Audio, make_dataset

logger = logging.getLogger(__name__)


def mel_statistics(
    dataset, features, max_utterances=1000, seed=0, per_band=False
):
    """Mean and standard deviation of a dataset's log-mels or other features.

    Arguments
    ---------
    dataset : DynamicItemDataset
        Of whole utterances, with sig.
    features : FrontEnd
        Such as `LogMel`.
    max_utterances : int
        A random choice of so many is enough for two numbers.
    seed : int
        Of the choice.
    per_band : bool
        Whether each feature has its own.

    Returns
    -------
    dict
        mean, std, frames and utterances.
    """
    width = features.settings.width
    chosen = np.random.default_rng(seed).permutation(len(dataset))
    chosen = chosen[:max_utterances]
    statistics = RunningStatistics(per_band)
    for index in tqdm(chosen, desc="statistics", dynamic_ncols=True):
        signal = dataset[int(index)]["sig"]
        with torch.no_grad():
            statistics.update(features(signal.unsqueeze(0)))
    return {
        "mean": statistics.mean,
        "std": statistics.std,
        "frames": statistics.count // (1 if per_band else width),
        "utterances": len(chosen),
    }


def load_or_compute_statistics(
    path, manifest, data_folder, features, per_band=False
):
    """`mel_statistics`, kept in a JSON file for as long as they are true.

    Arguments
    ---------
    path : str
        Says what it was made from: read if that is what is asked for, else
        made anew.
    manifest : str
        JSON file of the training set.
    data_folder : str
        Stands for {data_root} in the manifest.
    features, per_band
        As for `mel_statistics`.

    Returns
    -------
    dict
        As from `mel_statistics`, and made_from.
    """
    path, source = Path(path), _source(manifest, features.settings)
    if path.exists():
        known = json.loads(path.read_text(encoding="utf-8"))
        if known.get("made_from") == source:
            return known
        logger.warning(
            "%s is of another training set or front end: made anew", path
        )
    audio = Audio(features.settings.sample_rate)
    dataset = make_dataset(manifest, data_folder, [audio])
    statistics = {
        **mel_statistics(dataset, features, per_band=per_band),
        "made_from": source,
    }
    temporary = path.with_suffix(".tmp")
    text = json.dumps(statistics, indent=2) + "\n"
    temporary.write_text(text, encoding="utf-8")
    temporary.replace(path)
    logger.info("statistics of %d frames are in %s", statistics["frames"], path)
    return statistics


def set_statistics(hparams):
    """Gives a normaliser the mean and deviation of the training data.

    Arguments
    ---------
    hparams : dict
        statistics_file, train_json, data_folder, features and normalizer.
    """
    normalizer = hparams["normalizer"]
    request = [
        hparams["statistics_file"],
        hparams["train_json"],
        hparams["data_folder"],
        hparams["features"],
        normalizer.per_band,
    ]
    run_on_main(load_or_compute_statistics, args=request)
    known = load_or_compute_statistics(*request)
    normalizer.set_statistics(known["mean"], known["std"])


def _source(manifest, settings):
    """What statistics depend on; paths in manifests have no data folder."""
    digest = hashlib.sha256(Path(manifest).read_bytes()).hexdigest()
    return {"manifest_sha256": digest, "mel_settings": asdict(settings)}
