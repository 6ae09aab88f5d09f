#!/usr/bin/env python3
"""Measures how much spread over bands a codec's decoding takes from mels.

> python recipes/LibriTTS/codec/mel_spread.py my_model --data_folder data/LibriTTS

Prints, for the `hyperparams.yaml` of the model's folder, a ratio for each number
of codebooks: the deviation over bands of true log-mels over that of decoded ones,
in a mean over the frames that are louder than their utterance's mean.
"""

import torch
from tqdm import tqdm

from speechbrain_flowmac import FlowMACCodec
from speechbrain_flowmac.evaluation.split import spaced_files, split_parser
from speechbrain_flowmac.training.data import read_crop


def make_parser():
    """The command line."""
    parser = split_parser(__doc__, limit=32)
    parser.add_argument("model", help="built-in name, folder or Hub id")
    return parser


def spread_ratios(codec, signal):
    """Ratios of one signal.

    Arguments
    ---------
    codec : FlowMACCodec
        The model.
    signal : torch.Tensor
        Shape [T], at the model's rate.

    Returns
    -------
    list of float
        For 1..K codebooks.
    """
    true = codec.codec.features(signal[None])
    tokens, _ = codec.codec.encode(signal[None])
    level = true.mean(2)
    loud = level > level.mean()
    sampling = codec.sampling(spread=0.0)
    ratios = []
    for k in range(1, tokens.shape[2] + 1):
        decoded = codec.codec.decode(tokens[..., :k], sampling=sampling)
        decoded = decoded[:, : true.shape[1]]
        ratio = true.std(2) / decoded.std(2)
        ratios.append(ratio[loud].mean().item())
    return ratios


def main(arguments=None):
    """Measures and prints."""
    arguments = make_parser().parse_args(arguments)
    files = spaced_files(
        arguments.data_folder / arguments.split, arguments.limit
    )
    codec = FlowMACCodec.from_hparams(arguments.model)
    ratios = torch.tensor(
        [
            spread_ratios(codec, read_crop(path, None, codec.sample_rate))
            for path in tqdm(files, dynamic_ncols=True)
        ]
    ).mean(0)
    print("spread: !new:speechbrain_flowmac.lobes.mel_spread.MelSpread")
    print(f"  ratios: [{', '.join(f'{ratio:.3f}' for ratio in ratios)}]")


if __name__ == "__main__":
    main()
