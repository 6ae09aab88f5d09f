#!/usr/bin/env python3
"""Moves a trained model to the front end of other configurations.

> python recipes/LibriTTS/vocoder/change_front_end.py my_model \
      hparams/flowmac_bigvgan_v2.yaml hparams/harmonic_vocoder_256.yaml \
      results/moved --data_folder=/path/to/LibriTTS

writes codec.safetensors and vocoder.safetensors into the folder, from which
both trainings start with --pretrained=results/moved. Every key of the vocoder's
YAML can be given on the command line.
"""

import argparse
import sys
from itertools import cycle, islice
from pathlib import Path

import torch
from hyperpyyaml import load_hyperpyyaml
from libritts_prepare import prepare_libritts
from safetensors.torch import save_file

from speechbrain_flowmac import FlowMACCodec
from speechbrain_flowmac.lobes.normalizer import RunningStatistics
from speechbrain_flowmac.training.experiment import (
    audio_items,
    load,
    make_datasets,
    prepare,
)
from speechbrain_flowmac.training.front_end import move_codec, move_vocoder


def parse(arguments):
    """The script's own arguments, and those for the vocoder's YAML."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("source", help="trained model: name, folder or Hub id")
    parser.add_argument("codec_yaml")
    parser.add_argument("vocoder_yaml")
    parser.add_argument("target", type=Path, help="folder to write")
    parser.add_argument("--steps", type=int, default=2200)
    return parser.parse_known_args(arguments)


class Crops:
    """Batches of training crops, `steps` of them, read when asked for."""

    def __init__(self, dataset, batch_size, steps):
        loader = torch.utils.data.DataLoader(
            dataset, batch_size, shuffle=True, drop_last=True
        )
        epochs = (batch["sig"] for _ in cycle([0]) for batch in loader)
        self.batches = islice(epochs, steps)
        self.steps = steps

    def __len__(self):
        return self.steps

    def __iter__(self):
        return self.batches


def main(arguments):
    """Reads both models, moves them, and writes the weights."""
    options, overrides = parse(arguments)
    hparams = load([options.vocoder_yaml, *overrides]).hparams
    prepare(hparams, prepare_libritts)
    with open(options.codec_yaml, encoding="utf-8") as file:
        codec = load_hyperpyyaml(file)["codec"].eval()
    crops, whole = audio_items(hparams)
    train = make_datasets(hparams, [crops], [whole])["train"]
    train.set_output_keys(["sig"])
    old = FlowMACCodec.from_hparams(options.source)

    def batches(steps):
        return Crops(train, 2 * hparams["batch_size"], steps)

    statistics = RunningStatistics()
    for wav in batches(100):
        statistics.update(codec.features(wav))
    codec.normalizer.set_statistics(statistics.mean, statistics.std)
    move_codec(old.codec, codec, batches(options.steps // 2))
    vocoder = hparams["vocoder"]
    move_vocoder(
        old.vocoder,
        vocoder,
        old.codec.features,
        codec.features,
        batches(options.steps),
        batches(60),
    )
    options.target.mkdir(parents=True, exist_ok=True)
    for name, model in (("codec", codec), ("vocoder", vocoder)):
        state = {k: v.contiguous() for k, v in model.state_dict().items()}
        save_file(state, str(options.target / f"{name}.safetensors"))


if __name__ == "__main__":
    main(sys.argv[1:])
