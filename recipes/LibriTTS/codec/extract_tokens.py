#!/usr/bin/env python3
"""Extracts the tokens of LibriTTS, or of any corpus in its layout.

> python recipes/LibriTTS/codec/extract_tokens.py \
      hparams/extract_tokens.yaml --data_folder data/LibriTTS
> torchrun --standalone --nproc_per_node=2 \
      recipes/LibriTTS/codec/extract_tokens.py hparams/extract_tokens.yaml \
      --distributed_backend=gloo --device=cpu

Every key of the YAML can be given on the command line. The same command goes
on after a stop.
"""

import sys

from libritts_prepare import list_libritts
from speechbrain.utils.distributed import if_main_process, infer_device

from speechbrain_flowmac.tokens.extraction import Share, extract
from speechbrain_flowmac.tokens.summary import describe
from speechbrain_flowmac.training.experiment import leave_group, load


def main(arguments):
    """Lists the utterances, extracts this process's share, sums up."""
    hparams, run_opts, _, _ = load(arguments)
    tokenizer = hparams["tokenizer"]
    tokenizer.device = run_opts["device"] or infer_device()
    summary = extract(
        tokenizer,
        list_libritts(hparams["data_folder"], hparams["splits"]),
        hparams["output_folder"],
        hparams["data_folder"],
        hparams["store"],
        shard_size=hparams["shard_size"],
        share=Share.of_this_process(hparams["part"], hparams["parts"]),
        batch_seconds=hparams["batch_seconds"],
        num_workers=hparams["num_workers"],
    )
    if summary is not None and if_main_process():
        print(describe(summary))
    leave_group()


if __name__ == "__main__":
    main(sys.argv[1:])
