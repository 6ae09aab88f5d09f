"""Mean and deviation of a training set's log-mels, kept in a file."""

import hashlib
import json
import logging
from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch
from tqdm import tqdm

from speechbrain_flowmac.lobes.features import RunningStatistics
from speechbrain_flowmac.training.data import Audio, make_dataset

logger = logging.getLogger(__name__)


def mel_statistics(dataset, features, max_utterances=1000, seed=0):
    """Global mean and standard deviation of a dataset's log-mels.

    Arguments
    ---------
    dataset : DynamicItemDataset
        Of whole utterances, with sig.
    features : LogMel
        Front end.
    max_utterances : int
        A random choice of so many is enough for two numbers.
    seed : int
        Of the choice.

    Returns
    -------
    dict
        mean, std, frames and utterances.
    """
    chosen = np.random.default_rng(seed).permutation(len(dataset))
    chosen = chosen[:max_utterances]
    statistics = RunningStatistics()
    for index in tqdm(chosen, desc="mel statistics", dynamic_ncols=True):
        signal = dataset[int(index)]["sig"]
        with torch.no_grad():
            statistics.update(features(signal.unsqueeze(0)))
    return {
        "mean": statistics.mean,
        "std": statistics.std,
        "frames": statistics.count // features.settings.n_mels,
        "utterances": len(chosen),
    }


def load_or_compute_statistics(path, manifest, data_folder, features):
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
    features : LogMel
        Front end.

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
    statistics = {**mel_statistics(dataset, features), "made_from": source}
    temporary = path.with_suffix(".tmp")
    text = json.dumps(statistics, indent=2) + "\n"
    temporary.write_text(text, encoding="utf-8")
    temporary.replace(path)
    logger.info("mel statistics %s", statistics)
    return statistics


def _source(manifest, settings):
    """What statistics depend on; paths in manifests have no data folder."""
    digest = hashlib.sha256(Path(manifest).read_bytes()).hexdigest()
    return {"manifest_sha256": digest, "mel_settings": asdict(settings)}
