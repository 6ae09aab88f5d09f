#!/usr/bin/env python3
"""How far a codec in the MDCT domain has learnt its field.

> python recipes/LibriTTS/mdct/velocity.py my_model --data_folder data/LibriTTS

Square errors of the velocity, relative to those of the Gaussian that the field
starts from, at times from noise (0) to data (1), where the sound is loud: in
the fifth of an utterance's coefficients with the largest gains. Prints a table
in Markdown. A mean flow is asked for its velocity at r = t.
"""

from itertools import pairwise

import torch
from torch import nn

from speechbrain_flowmac import FlowMACCodec
from speechbrain_flowmac.evaluation.split import spaced_files, split_parser
from speechbrain_flowmac.lobes.gain_shape import band_weights
from speechbrain_flowmac.lobes.noise import seeded_noise
from speechbrain_flowmac.lobes.residual_field import MeanResidualField
from speechbrain_flowmac.training.data import read_crop

TIMES = (0.3, 0.5, 0.7)
EDGES = (0, 750, 2250)  # of frequency bands, Hz
LOUD = 0.8


def make_parser():
    """The command line."""
    parser = split_parser(__doc__, limit=8)
    parser.add_argument("model", help="an exported model's folder")
    return parser


class Silence(nn.Module):
    """A network that adds nothing."""

    def forward(self, x, t, mu, mask):
        """Zeros."""
        return torch.zeros_like(x)


def square_errors(field, features, mu, t, noise):
    """Of a field and of its Gaussian.

    Arguments
    ---------
    field : ResidualField
        Trained.
    features, mu, noise : torch.Tensor
        Normalised, [1, N, M]: of the sound, decoded, and white.
    t : float
        Time.

    Returns
    -------
    torch.Tensor
        [2, N, M].
    """
    known = type(field)(Silence(), field.tau, field.sigma_min)
    shrink = 1 - field.sigma_min
    x_t = (1 - shrink * t) * noise + t * features
    times = mu.new_tensor([t])
    if isinstance(field, MeanResidualField):
        times = times.expand(1, 2)
    velocity = features - shrink * noise
    found = [part(x_t, times, mu) for part in (field, known)]
    return (torch.cat(found) - velocity).square()


@torch.no_grad()
def sum_errors(codec, wav, seed):
    """Sums over the loud coefficients of an utterance.

    Arguments
    ---------
    codec : FlowMAC
        In the MDCT domain.
    wav : torch.Tensor
        [1, T].
    seed : int
        Of the noise.

    Returns
    -------
    torch.Tensor
        [times, bands, 2]: of the field, and of its Gaussian.
    """
    settings = codec.mel_settings
    features, _, _ = codec.analyse(wav)
    tokens, lengths = codec.encode(wav)
    decoder = codec.sampling.with_changes(n_steps=0)
    mu = codec.normalizer(codec.decode(tokens, lengths, decoder))
    noise = seeded_noise(seed, 0, 0, *features.shape[1:])[None]
    gains = codec.normalizer.denormalize(features)[0, :, : settings.n_bands]
    gains = gains @ band_weights(settings).T
    loud = gains > gains.flatten().quantile(LOUD)
    edges = [
        round(2 * settings.hop_length * hz / settings.sample_rate)
        for hz in EDGES
    ]
    sums = []
    for t in TIMES:
        errors = square_errors(codec.flow.flow.field, features, mu, t, noise)
        errors = errors[..., settings.n_bands :] * loud
        sums += [
            errors[..., low:high].sum((1, 2)) for low, high in pairwise(edges)
        ]
    return torch.stack(sums).unflatten(0, (len(TIMES), -1))


def main(arguments=None):
    """Prints the table of a model."""
    options = make_parser().parse_args(arguments)
    files = spaced_files(options.data_folder / options.split, options.limit)
    codec = FlowMACCodec.from_hparams(
        options.model, run_opts={"device": "cpu"}
    ).codec
    rate = codec.mel_settings.sample_rate
    total = sum(
        sum_errors(codec, read_crop(path, None, rate)[None], seed)
        for seed, path in enumerate(files)
    )
    change = 100 * (total[..., 0] / total[..., 1] - 1)
    heads = [f"{low} to {high} Hz" for low, high in pairwise(EDGES)]
    print("| time t | " + " | ".join(heads) + " |")
    print("|---" * (len(heads) + 1) + "|")
    for t, row in zip(TIMES, change.tolist(), strict=True):
        print(f"| {t} | " + " | ".join(f"{v:.0f} %" for v in row) + " |")


if __name__ == "__main__":
    main()
