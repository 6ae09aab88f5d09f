#!/usr/bin/env python3
"""Measures what a search of residual codes gives, by the size of its beam.

> python recipes/LibriTTS/codec/beam_sizes.py my_model --data_folder data/LibriTTS

Prints, for each beam and number of codebooks, the L1 between true and decoded
log-mels (without steps of a flow), and the time of coding over that of the
first beam.
"""

import time

import torch
from tqdm import tqdm

from speechbrain_flowmac import FlowMACCodec
from speechbrain_flowmac.evaluation.split import spaced_files, split_parser
from speechbrain_flowmac.lobes.quantizer import ResidualQuantizer
from speechbrain_flowmac.training.data import read_crop


def make_parser():
    """The command line."""
    parser = split_parser(__doc__, limit=24)
    parser.add_argument("model", help="built-in name, folder or Hub id")
    parser.add_argument(
        "--beams", type=int, nargs="+", default=[1, 2, 4, 8, 16]
    )
    parser.add_argument(
        "--codebooks", type=int, nargs="+", default=[1, 2, 4, 6, 8]
    )
    return parser


def errors(codec, signal, counts):
    """L1 of one signal for each number of codebooks.

    Arguments
    ---------
    codec : FlowMAC
        The model.
    signal : torch.Tensor
        Shape [T], at the model's rate.
    counts : list of int
        Numbers of codebooks.

    Returns
    -------
    tuple
        A list of float, natural logarithms, and the seconds of coding.
    """
    start = time.process_time()
    tokens, _ = codec.encode(signal[None])
    seconds = time.process_time() - start
    true = codec.features(signal[None])
    found = []
    for count in counts:
        mean = codec.decode_mean(tokens[..., :count])[:, : true.shape[1]]
        error = codec.normalizer.denormalize(mean) - true
        found.append(error.abs().mean().item())
    return found, seconds


@torch.no_grad()
def main(arguments=None):
    """Measures and prints."""
    options = make_parser().parse_args(arguments)
    files = spaced_files(options.data_folder / options.split, options.limit)
    model = FlowMACCodec.from_hparams(
        options.model, run_opts={"device": "cpu"}
    ).codec
    if not isinstance(model.quantizer, ResidualQuantizer):
        raise ValueError(
            f"{options.model} has no residual quantizer alone, but a "
            f"{type(model.quantizer).__name__}"
        )
    rate = model.mel_settings.sample_rate
    rows = {beam: [] for beam in options.beams}
    for path in tqdm(files, dynamic_ncols=True):
        signal = read_crop(path, None, rate)
        # beams take turns, so that they share what else runs
        for beam, row in rows.items():
            model.quantizer.beam_size = beam
            row.append(errors(model, signal, options.codebooks))
    heads = [*map(str, options.codebooks), "time"]
    print("| beam | " + " | ".join(heads) + " |")
    print("|---" * (len(heads) + 1) + "|")
    times = {beam: sum(t for _, t in row) for beam, row in rows.items()}
    for beam, row in rows.items():
        means = torch.tensor([found for found, _ in row]).mean(0).tolist()
        cells = [f"{mean:.4f}" for mean in means]
        ratio = times[beam] / times[options.beams[0]]
        print(f"| {beam} | " + " | ".join([*cells, f"{ratio:.2f}"]) + " |")


if __name__ == "__main__":
    main()
