#!/usr/bin/env python3
"""Computes the mean and deviation of a data set's log-mels, and prints them.

> python recipes/LibriTTS/codec/mel_statistics.py hparams/flowmac.yaml \
      --data_folder=/path/to/LibriTTS

`train.py` does the same before it trains; both keep the result in the YAML's
`statistics_file`.
"""

import sys
from pathlib import Path

from libritts_prepare import prepare_libritts
from train import load, prepare, set_statistics


def main(arguments):
    """Prepares the data, computes and prints."""
    hparams = load(arguments).hparams
    prepare(hparams, prepare_libritts)
    set_statistics(hparams)
    print(Path(hparams["statistics_file"]).read_text(encoding="utf-8"))


if __name__ == "__main__":
    main(sys.argv[1:])
