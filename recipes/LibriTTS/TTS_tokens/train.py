#!/usr/bin/env python3
"""Trains a speech synthesiser: from text to the codec's tokens.

> python recipes/LibriTTS/TTS_tokens/train.py hparams/tts_tokens.yaml

Every key of the YAML can be given on the command line: --num_codebooks=2
"""

import sys

import speechbrain as sb
from libritts_prepare import prepare_libritts
from speechbrain.utils.distributed import run_on_main

from speechbrain_flowmac.training.brains.synthesiser import SynthesiserBrain
from speechbrain_flowmac.training.experiment import fit_and_test, load, prepare
from speechbrain_flowmac.training.transcribed import (
    batch_by_length,
    fit_symbols,
    keep_transcribed,
    make_transcribed,
)


def main(arguments):
    """Prepares texts and tokens, trains, tests, and says test sentences."""
    hparams, run_opts, hparams_file, overrides = load(arguments)
    sb.create_experiment_directory(
        experiment_directory=hparams["output_folder"],
        hyperparams_to_save=hparams_file,
        overrides=overrides,
    )
    prepare(hparams, prepare_libritts)
    run_on_main(keep_transcribed, args=[hparams])
    speech = {
        "train": hparams["speech"],
        "valid": hparams["valid_speech"],
        "test": hparams["valid_speech"],
    }
    datasets = make_transcribed(hparams, speech, hparams["symbols"])
    run_on_main(fit_symbols, args=[hparams, hparams["symbols"]])
    sampler = batch_by_length(datasets["train"], hparams)
    hparams["train_dataloader_opts"] = {"batch_sampler": sampler}
    brain = SynthesiserBrain(
        modules=hparams["modules"],
        opt_class=hparams["opt_class"],
        hparams=hparams,
        run_opts=run_opts,
        checkpointer=hparams["checkpointer"],
    )
    fit_and_test(brain, datasets, hparams)


if __name__ == "__main__":
    main(sys.argv[1:])
