#!/usr/bin/env python3
"""Trains the codec (waveform -> tokens -> mel) on LibriTTS.

> python recipes/LibriTTS/codec/train.py hparams/flowmac.yaml
> torchrun --standalone --nproc_per_node=2 recipes/LibriTTS/codec/train.py \
      hparams/flowmac.yaml

Every key of the YAML can be given on the command line: --data_folder=...
"""

import sys

import speechbrain as sb
from libritts_prepare import prepare_libritts

from speechbrain_flowmac.training.brains import FlowMACBrain
from speechbrain_flowmac.training.experiment import (
    audio_items,
    fit_and_test,
    load,
    make_datasets,
    prepare,
    start_codebooks,
    start_from_pretrained,
    start_semantics,
)
from speechbrain_flowmac.training.statistics import set_statistics


def main(arguments):
    """Prepares the data, trains, and tests the best checkpoint."""
    hparams, run_opts, hparams_file, overrides = load(arguments)
    sb.create_experiment_directory(
        experiment_directory=hparams["output_folder"],
        hyperparams_to_save=hparams_file,
        overrides=overrides,
    )
    prepare(hparams, prepare_libritts)
    set_statistics(hparams)
    start_from_pretrained(hparams, "codec")
    start_semantics(hparams)
    crops, whole = audio_items(hparams)
    datasets = make_datasets(hparams, [crops], [whole])
    start_codebooks(hparams, datasets["train"])
    brain = FlowMACBrain(
        modules=hparams["modules"],
        opt_class=hparams["opt_class"],
        hparams=hparams,
        run_opts=run_opts,
        checkpointer=hparams["checkpointer"],
    )
    fit_and_test(brain, datasets, hparams)


if __name__ == "__main__":
    main(sys.argv[1:])
