#!/usr/bin/env python3
"""Codes a split through real files and prints a table by codebooks.

> python recipes/LibriTTS/codec/evaluate.py flowmac-24khz-3kbps \
      --data_folder data/LibriTTS --split test-clean

Each utterance is brought to -26 dB, written as a `.fmac` file, cut down to
fewer codebooks without the encoder, and decoded from the file.
"""

import sys
import tempfile
from collections import defaultdict
from pathlib import Path

import numpy as np
import soundfile

from speechbrain_flowmac.bitstream import transcode

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from scoring import Evaluation, make_parser  # noqa: E402


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
        summary = transcode(folder / "all.fmac", stream, count)
        codec.decompress(stream, folder / "out.wav", n_steps=n_steps)
        decoded, _ = soundfile.read(folder / "out.wav")
        seconds = summary.num_frames / codec.frame_rate
        yield count, 8 * summary.payload_bytes / seconds, decoded


def main():
    """Evaluates and prints."""
    parser = make_parser(__doc__)
    parser.add_argument(
        "--codebooks", nargs="+", type=int, default=[1, 2, 4, 8]
    )
    evaluation = Evaluation(parser)
    counts, n_steps = (
        evaluation.arguments.codebooks,
        evaluation.arguments.steps,
    )
    rates, scores = defaultdict(list), defaultdict(list)
    with tempfile.TemporaryDirectory() as folder:
        for signal in evaluation.signals():
            for count, bits, decoded in code(
                evaluation.codec, signal, Path(folder), counts, n_steps
            ):
                rates[count].append(bits)
                scores[count].append(evaluation.score(signal, decoded))
    evaluation.print_means(
        ["codebooks", "bit/s"],
        {
            (str(count), f"{np.mean(rates[count]):.0f}"): scores[count]
            for count in sorted(scores)
        },
    )


if __name__ == "__main__":
    main()
