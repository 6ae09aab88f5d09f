#!/usr/bin/env python3
"""Speed of the vocoders on a CPU, beside Vocos and BigVGAN of PyPI.

> python benchmarks/vocoders.py

All have random weights at the size of their configuration and make 24 kHz
audio. Each in turn makes the same stretch, again and again, so that whatever
else slows the machine down slows all of them; the first turn warms up and is
not counted. A peer that is not installed (pip install vocos bigvgan) is left
out of the comparison.
"""

import argparse
import contextlib
import statistics
import sys
import time
from functools import partial
from pathlib import Path

import torch
from hyperpyyaml import load_hyperpyyaml
from torch.nn.utils import parametrize
from tqdm import tqdm

HPARAMS = Path(__file__).resolve().parents[1] / "hparams"
SAMPLE_RATE = 24000

# The 24 kHz configurations of the peers: charactr/vocos-mel-24khz and
# nvidia/bigvgan_base_24khz_100band on the Hub
PEER_BANDS, PEER_HOP = 100, 256
BIGVGAN = {
    "num_mels": PEER_BANDS,
    "upsample_rates": [8, 8, 2, 2],
    "upsample_kernel_sizes": [16, 16, 4, 4],
    "upsample_initial_channel": 512,
    "resblock": "1",
    "resblock_kernel_sizes": [3, 7, 11],
    "resblock_dilation_sizes": [[1, 3, 5], [1, 3, 5], [1, 3, 5]],
    "activation": "snakebeta",
    "snake_logscale": True,
}


def ours(name, seconds):
    """A vocoder of this project.

    Arguments
    ---------
    name : str
        Of its YAML.
    seconds : float
        Of audio.

    Returns
    -------
    tuple
        The vocoder and the mel [1, N, M] that it is given.
    """
    with open(HPARAMS / f"{name}.yaml", encoding="utf-8") as file:
        # nothing is trained: no folder for checkpoints
        unused = {"checkpointer": None, "discriminator": None}
        vocoder = load_hyperpyyaml(file, unused)["vocoder"]
    for part in vocoder.modules():
        if parametrize.is_parametrized(part, "weight"):
            # weight norm is for training
            parametrize.remove_parametrizations(part, "weight")
    settings = vocoder.mel_settings
    frames = round(seconds * settings.frame_rate)
    return vocoder, random_mel(frames, settings.n_mels)


def vocos(seconds):
    """Vocos and its mel [1, M, N]; arguments as for `ours`."""
    from vocos.heads import ISTFTHead
    from vocos.models import VocosBackbone

    model = torch.nn.Sequential(
        VocosBackbone(PEER_BANDS, dim=512, intermediate_dim=1536, num_layers=8),
        ISTFTHead(512, n_fft=1024, hop_length=PEER_HOP, padding="center"),
    )
    return model, peer_mel(seconds)


def bigvgan(seconds):
    """BigVGAN and its mel [1, M, N]; arguments as for `ours`."""
    from bigvgan.bigvgan import BigVGAN
    from bigvgan.env import AttrDict

    model = BigVGAN(AttrDict(BIGVGAN))
    # it prints what it does
    with contextlib.redirect_stdout(sys.stderr):
        model.remove_weight_norm()
    return model, peer_mel(seconds)


def peer_mel(seconds):
    """The mel [1, M, N] of the peers."""
    return random_mel(round(seconds * SAMPLE_RATE / PEER_HOP), PEER_BANDS).mT


def random_mel(num_frames, n_mels):
    """A mel [1, N, M] at the level of speech."""
    return 2 * torch.randn(1, num_frames, n_mels) - 5


VOCODERS = {
    "Vocos (PyPI vocos)": vocos,
    "BigVGAN base (PyPI bigvgan)": bigvgan,
    **{
        f"hparams/{name}.yaml": partial(ours, name)
        for name in ("istft_vocoder", "mb_istft", "harmonic_vocoder", "bigvgan")
    },
}
BASELINE = next(iter(VOCODERS))


def build(seconds):
    """Builds all that are there.

    Arguments
    ---------
    seconds : float
        Of audio.

    Returns
    -------
    dict
        For each name, a vocoder and its input, or the ImportError.
    """
    built = {}
    for name, make in VOCODERS.items():
        try:
            model, mel = make(seconds)
            built[name] = model.eval(), mel
        except ImportError as error:
            built[name] = error
    return built


@torch.inference_mode()
def measure(built, repeats):
    """Times the vocoders in turn.

    Arguments
    ---------
    built : dict
        For each name, a vocoder and its input.
    repeats : int
        Turns that count.

    Returns
    -------
    dict
        For each name, seconds of each turn.
    """
    times = {name: [] for name in built}
    for turn in tqdm(range(1 + repeats), dynamic_ncols=True):
        for name, (model, mel) in built.items():
            start = time.perf_counter()
            model(mel)
            if turn:
                times[name].append(time.perf_counter() - start)
    return times


def main():
    """Measures and prints Markdown."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--seconds", type=float, default=5.0, help="of audio")
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    torch.manual_seed(0)
    built = build(arguments.seconds)
    there = {k: v for k, v in built.items() if isinstance(v, tuple)}
    medians = {
        name: statistics.median(times) / arguments.seconds
        for name, times in measure(there, arguments.repeats).items()
    }
    print(
        f"{arguments.seconds:g} s of 24 kHz audio, threads: "
        f"{arguments.threads}, median of {arguments.repeats}, "
        f"torch {torch.__version__}\n"
    )
    print("| vocoder | parameters, M | s per s of audio | times Vocos |")
    print("|---|---|---|---|")
    for name, made in built.items():
        if name not in medians:
            print(f"| {name} | not installed: {made} | | |")
            continue
        size = sum(p.numel() for p in made[0].parameters()) / 1e6
        ratio = "-"
        if BASELINE in medians:
            ratio = f"{medians[name] / medians[BASELINE]:.2f}"
        print(f"| {name} | {size:.1f} | {medians[name]:.4f} | {ratio} |")


if __name__ == "__main__":
    main()
