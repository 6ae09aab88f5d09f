#!/usr/bin/env python3
"""What is in the shapes: scores of sound with true gains and other shapes.

> python recipes/LibriTTS/mdct/shapes.py --data_folder data/LibriTTS

No model is needed: this says what a flow must sample, and to what frequency.
Prints a table in Markdown.
"""

import torch

from speechbrain_flowmac.evaluation.split import spaced_files, split_parser
from speechbrain_flowmac.lobes.gain_shape import (
    GainShapeMDCT,
    InverseGainShapeMDCT,
    MDCTSettings,
)
from speechbrain_flowmac.metrics import METRICS
from speechbrain_flowmac.training.data import read_crop


def make_parser():
    """The command line."""
    parser = split_parser(__doc__, split="test-clean", limit=12)
    parser.add_argument(
        "--metrics", nargs="+", default=["pesq", "estoi"], choices=METRICS
    )
    return parser


def variants(shapes, sample_rate):
    """Other shapes, by what they are.

    Arguments
    ---------
    shapes : torch.Tensor
        True ones, [1, N, hop].
    sample_rate : int
        In Hz.

    Returns
    -------
    dict
        Shapes [1, N, hop].
    """
    chance = torch.Generator().manual_seed(0)
    noise = torch.randn(shapes.shape, generator=chance) * shapes.std((0, 1))
    signs = torch.randint(0, 2, shapes.shape, generator=chance) * 2 - 1
    bins = shapes.shape[-1]
    found = {"noise": noise, "true, but for their signs": shapes * signs}
    for hz in (750, 1500, 3000, 6000):
        above = torch.arange(bins) >= 2 * bins * hz / sample_rate
        name = f"true below {hz} Hz, noise above"
        found[name] = torch.where(above, noise, shapes)
    return {**found, "true": shapes}


def main(arguments=None):
    """Scores every kind of shapes on the utterances."""
    options = make_parser().parse_args(arguments)
    files = spaced_files(options.data_folder / options.split, options.limit)
    settings = MDCTSettings()
    features = GainShapeMDCT(settings)
    inverse = InverseGainShapeMDCT(settings)
    scores = {}
    for path in files:
        wav = read_crop(path, None, settings.sample_rate)[None]
        gains, shapes = features(wav).split(
            [settings.n_bands, settings.hop_length], dim=-1
        )
        for name, other in variants(shapes, settings.sample_rate).items():
            found = inverse(torch.cat([gains, other], -1))[0, : wav.shape[1]]
            pair = wav[0].numpy(), found.numpy(), settings.sample_rate
            row = [METRICS[key].function(*pair) for key in options.metrics]
            scores.setdefault(name, []).append(row)
    chosen = [METRICS[key] for key in options.metrics]
    print("| shapes | " + " | ".join(m.heading for m in chosen) + " |")
    print("|---" * (len(chosen) + 1) + "|")
    for name, rows in scores.items():
        means = torch.tensor(rows, dtype=torch.float64).mean(0).tolist()
        cells = [
            f"{v:.{m.decimals}f}" for v, m in zip(means, chosen, strict=True)
        ]
        print(f"| {name} | " + " | ".join(cells) + " |")


if __name__ == "__main__":
    main()
