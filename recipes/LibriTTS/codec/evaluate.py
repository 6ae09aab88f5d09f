#!/usr/bin/env python3
"""Codes a split through real files and prints a table by codebooks.

> python recipes/LibriTTS/codec/evaluate.py flowmac-24khz-3kbps \
      --data_folder data/LibriTTS --split test-clean

Each utterance is brought to -26 dB, written as a `.fmac` file, cut down to
fewer codebooks without the encoder, and decoded from the file.
"""

import argparse
import tempfile
from pathlib import Path

import numpy as np
import soundfile
from tqdm import tqdm

from speechbrain_flowmac import FlowMACCodec
from speechbrain_flowmac.bitstream import transcode
from speechbrain_flowmac.data import read_crop
from speechbrain_flowmac.metrics import (
    estoi,
    log_mel_distance,
    pesq_wb,
    to_level,
)

# name: (heading, decimals, function of reference, decoded and codec)
METRICS = {
    "pesq": (
        "PESQ-WB",
        2,
        lambda x, y, codec: pesq_wb(x, y, codec.sample_rate),
    ),
    "estoi": ("ESTOI", 3, lambda x, y, codec: estoi(x, y, codec.sample_rate)),
    "mel": (
        "log-mel L1",
        3,
        lambda x, y, codec: log_mel_distance(x, y, codec.codec.features),
    ),
}


def code(codec, signal, folder, counts, n_steps):
    """Codes a signal at each number of codebooks.

    Arguments
    ---------
    codec : FlowMACCodec
        The model.
    signal : numpy.ndarray
        Shape [T].
    folder : Path
        For the files.
    counts : list of int
        Numbers of codebooks.
    n_steps : int or None
        Of the solver.

    Yields
    ------
    tuple
        Number of codebooks, payload bits per second, decoded signal [T].
    """
    soundfile.write(
        folder / "in.wav", signal, codec.sample_rate, subtype="FLOAT"
    )
    codec.compress(folder / "in.wav", folder / "all.fmac")
    for count in counts:
        stream = folder / "some.fmac"
        header = transcode(folder / "all.fmac", stream, count)
        codec.decompress(stream, folder / "out.wav", n_steps=n_steps)
        decoded, _ = soundfile.read(folder / "out.wav")
        seconds = header.num_frames / codec.frame_rate
        yield count, 8 * header.payload_bytes / seconds, decoded


def evaluate(codec, files, arguments):
    """Means over files, by number of codebooks.

    Arguments
    ---------
    codec : FlowMACCodec
        The model.
    files : list of Path
        Audio.
    arguments : argparse.Namespace
        codebooks, steps and metrics.

    Returns
    -------
    dict
        For each number of codebooks, [bit/s, metrics...].
    """
    rows = {count: [] for count in arguments.codebooks}
    with tempfile.TemporaryDirectory() as folder:
        for path in tqdm(files, dynamic_ncols=True):
            signal = read_crop(path, None, codec.sample_rate).numpy()
            signal = to_level(signal.astype(np.float64))
            for count, bits, decoded in code(
                codec,
                signal,
                Path(folder),
                arguments.codebooks,
                arguments.steps,
            ):
                values = [
                    METRICS[name][2](signal, decoded, codec)
                    for name in arguments.metrics
                ]
                rows[count].append([bits, *values])
    return {count: np.nanmean(values, axis=0) for count, values in rows.items()}


def main():
    """Evaluates and prints."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("model", help="built-in name, folder or Hub id")
    parser.add_argument("--data_folder", default="data/LibriTTS", type=Path)
    parser.add_argument("--split", default="test-clean")
    parser.add_argument(
        "--codebooks", nargs="+", type=int, default=[1, 2, 4, 8]
    )
    parser.add_argument("--steps", type=int, default=None)
    parser.add_argument("--limit", type=int, default=None)
    parser.add_argument("--device", default="cpu")
    parser.add_argument(
        "--metrics", nargs="+", choices=METRICS, default=list(METRICS)
    )
    arguments = parser.parse_args()
    files = sorted((arguments.data_folder / arguments.split).rglob("*.wav"))
    files = files[: arguments.limit]
    if not files:
        parser.error(f"no wav under {arguments.data_folder / arguments.split}")
    codec = FlowMACCodec.from_hparams(
        arguments.model, run_opts={"device": arguments.device}
    )
    rows = evaluate(codec, files, arguments)
    print(f"{len(files)} utterances of {arguments.split}, {arguments.model}\n")
    headings = [METRICS[name][0] for name in arguments.metrics]
    print("| codebooks | bit/s | " + " | ".join(headings) + " |")
    print("|---" * (2 + len(headings)) + "|")
    for count, (bits, *values) in sorted(rows.items()):
        cells = [
            f"{value:.{METRICS[name][1]}f}"
            for name, value in zip(arguments.metrics, values, strict=True)
        ]
        print(f"| {count} | {bits:.0f} | " + " | ".join(cells) + " |")


if __name__ == "__main__":
    main()
