#!/usr/bin/env python3
"""Speed of the codec on a CPU, beside EnCodec, Mimi and DAC.

> python benchmarks/codecs.py

Codecs are named as in `flowmac evaluate`; `weights=random` is the published
size with untrained weights. Measured are the networks: waveforms to codebook
indices and back, without packing and files. Each codec in turn encodes and
decodes the same batch, again and again, so that whatever else slows the
machine down slows all of them; the first turn warms up and is not counted.
Those that cannot run here (pip install transformers) are left out. (Speeds in
`flowmac evaluate` are of whole systems, each alone in a process of its own; here
ratios are wanted, of batches too.)
"""

import argparse
import statistics
import time

import torch
from tqdm import tqdm

from speechbrain_flowmac.evaluation.formats import markdown_table
from speechbrain_flowmac.evaluation.systems import (
    UnavailableError,
    make_system,
)

CODECS = [
    "flowmac:8",
    "flowmac:8:steps=4",
    "encodec:3:weights=random",
    "mimi:8:weights=random",
    "dac:16khz:weights=random",
]
BASELINE = "encodec"


def build(names):
    """The codec of each name, and the reason for each that cannot run."""
    codecs, reasons = {}, {}
    for name in names:
        try:
            codecs[name] = make_system(name)
        except UnavailableError as error:
            reasons[name] = error
    return codecs, reasons


def timed(function, x):
    """What a function of one argument returned, and wall time in seconds."""
    start = time.perf_counter()
    y = function(x)
    return y, time.perf_counter() - start


@torch.inference_mode()
def measure(codecs, batch, seconds, repeats):
    """Times the codecs, a dict of systems by name, in turn.

    Arguments
    ---------
    batch : int
        Signals at once.
    seconds : float
        Of each.
    repeats : int
        Turns that count.

    Returns
    -------
    dict
        By name, pairs of seconds of encoding and of decoding of each turn.
    """
    signals = {
        name: 0.1 * torch.randn(batch, round(seconds * codec.sample_rate))
        for name, codec in codecs.items()
    }
    times = {name: [] for name in codecs}
    bar = tqdm(range(1 + repeats), f"batch {batch}", dynamic_ncols=True)
    for turn in bar:
        for name, codec in codecs.items():
            codes, encoding = timed(codec.encode_batch, signals[name])
            _, decoding = timed(codec.decode_batch, codes)
            if turn:
                times[name].append((encoding, decoding))
    return times


def rows(codecs, times, batch, seconds):
    """Yields the cells of each codec, from what `measure` returned."""
    baseline = next((n for n in codecs if n.startswith(BASELINE)), None)
    for name, codec in codecs.items():
        millions = sum(p.numel() for p in codec.network.parameters()) / 1e6
        cells = [codec.label, f"{millions:.1f}", str(batch)]
        for way in range(2):
            mine = [turn[way] for turn in times[name]]
            factor = statistics.median(mine) / (batch * seconds)
            ratio = "-"
            if baseline is not None:
                # of each turn, so that a busy moment counts for both
                theirs = [turn[way] for turn in times[baseline]]
                ratios = [a / b for a, b in zip(mine, theirs, strict=True)]
                ratio = f"{statistics.median(ratios):.2f}"
            cells += [f"{factor:.4f}", ratio]
        yield cells


def main(arguments=None):
    """Measures and prints Markdown."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument(
        "codecs",
        nargs="*",
        default=CODECS,
        help="as in `flowmac evaluate`; ratios are to the first encodec",
    )
    parser.add_argument("--seconds", type=float, default=5.0, help="of audio")
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 16])
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args(arguments)
    torch.set_num_threads(arguments.threads)
    torch.manual_seed(0)
    codecs, reasons = build(arguments.codecs)
    lines = []
    for batch in arguments.batches:
        times = measure(codecs, batch, arguments.seconds, arguments.repeats)
        lines.extend(rows(codecs, times, batch, arguments.seconds))
    print(
        f"{arguments.seconds:g} s of audio, threads: {arguments.threads}, "
        f"median of {arguments.repeats}, torch {torch.__version__}. RTF: "
        "seconds of computing per second of audio; x: divided by EnCodec's.\n"
    )
    headings = ["codec", "parameters, M", "batch", "encode RTF", "x"]
    print(markdown_table([*headings, "decode RTF", "x"], lines))
    for name, reason in reasons.items():
        print(f"\nLeft out: {name} ({reason})")


if __name__ == "__main__":
    main()
