#!/usr/bin/env python3
"""Trains a vocoder on LibriTTS, for the mels of a codec.

> python recipes/LibriTTS/vocoder/train.py hparams/istft_vocoder.yaml

Every key of the YAML can be given on the command line: --data_folder=...
"""

import sys

import speechbrain as sb
from libritts_prepare import prepare_libritts

from speechbrain_flowmac import FlowMACCodec
from speechbrain_flowmac.training.brains import VocoderBrain
from speechbrain_flowmac.training.experiment import (
    audio_items,
    fit_and_test,
    load,
    make_datasets,
    prepare,
    start_from_pretrained,
)


def load_codec(hparams):
    """Puts the codec whose mels are wanted, if any, in place of its name."""
    source = hparams["codec"]
    if source is not None:
        codec = FlowMACCodec.from_hparams(source, run_opts={"device": "cpu"})
        hparams["vocoder"].mel_settings.check_same(
            codec.codec.mel_settings, names=("vocoder", source)
        )
        hparams["codec"] = codec.codec


def main(arguments):
    """Prepares the data, trains, and tests the best checkpoint."""
    hparams, run_opts, hparams_file, overrides = load(arguments)
    sb.create_experiment_directory(
        experiment_directory=hparams["output_folder"],
        hyperparams_to_save=hparams_file,
        overrides=overrides,
    )
    prepare(hparams, prepare_libritts)
    start_from_pretrained(hparams, "vocoder")
    load_codec(hparams)
    brain = VocoderBrain(
        modules=hparams["modules"],
        hparams=hparams,
        run_opts=run_opts,
        checkpointer=hparams["checkpointer"],
    )
    crops, whole = audio_items(hparams)
    labels = [hparams["f0_labels"]] if hparams["f0_labels"] else []
    datasets = make_datasets(hparams, [crops, *labels], [whole, *labels])
    fit_and_test(brain, datasets, hparams)


if __name__ == "__main__":
    main(sys.argv[1:])
