#!/usr/bin/env python3
"""Trains a codec in the MDCT domain, without mel and vocoder, on LibriTTS.

> python recipes/LibriTTS/mdct/train.py hparams/flowmac_mdct.yaml \
      --flow='!ref <improved_mean_flow>'

Every key of the YAML can be given on the command line: --data_folder=...
"""

import sys
from itertools import islice

import speechbrain as sb
from libritts_prepare import prepare_libritts
from torch.utils.data import DataLoader

from speechbrain_flowmac import FlowMACCodec
from speechbrain_flowmac.training.brains import FlowMACBrain
from speechbrain_flowmac.training.experiment import (
    audio_items,
    fit_and_test,
    load,
    make_datasets,
    prepare,
    start_from_pretrained,
)
from speechbrain_flowmac.training.front_end import move_codec
from speechbrain_flowmac.training.statistics import set_statistics


class MDCTBrain(FlowMACBrain):
    """Trains a codec whose features are sound; judges it by log-mels of that.

    hparams used, beside those of `FlowMACBrain`: vocoder, the inverse of the
    front end, and log_mel.
    """

    def mels(self, features, mask):
        """Log-mels [B, N, M] of the sound that features are."""
        vocoder = self.hparams.vocoder.to(self.device)
        num_samples = mask.sum(1) * vocoder.mel_settings.hop_length
        log_mel = self.hparams.log_mel.to(self.device)
        return log_mel(vocoder(features, mask), num_samples)


def start_from_mel_codec(hparams, dataset):
    """Gives a new training the trunks and codebooks of a codec of mels.

    Arguments
    ---------
    hparams : dict
        mel_codec (None, or a source as `FlowMACCodec` takes it),
        mel_codec_batches, batch_size, codec and checkpointer.
    dataset : DynamicItemDataset
        Of crops.
    """
    source, codec = hparams["mel_codec"], hparams["codec"]
    resumed = hparams["checkpointer"].find_checkpoint() is not None
    if source is None or resumed:
        return
    old = FlowMACCodec.from_hparams(
        source, vocoder=False, run_opts={"device": "cpu"}
    )
    with dataset.output_keys_as(["sig"]):
        loader = DataLoader(
            dataset, hparams["batch_size"], shuffle=True, drop_last=True
        )
        batches = islice(loader, hparams["mel_codec_batches"])
        move_codec(old.codec, codec, (batch["sig"] for batch in batches))


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
    crops, whole = audio_items(hparams)
    datasets = make_datasets(hparams, [crops], [whole])
    start_from_mel_codec(hparams, datasets["train"])
    brain = MDCTBrain(
        modules=hparams["modules"],
        opt_class=hparams["opt_class"],
        hparams=hparams,
        run_opts=run_opts,
        checkpointer=hparams["checkpointer"],
    )
    fit_and_test(brain, datasets, hparams)


if __name__ == "__main__":
    main(sys.argv[1:])
