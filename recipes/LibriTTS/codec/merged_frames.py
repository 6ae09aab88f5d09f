#!/usr/bin/env python3
"""A picture of merged frames over the spectrogram of an utterance.

> python recipes/LibriTTS/codec/merged_frames.py MODEL speech.wav \
      --rates 12.5 8.3 6.25 --output merged_frames.svg

MODEL is one with a dynamic frame rate: a folder or a Hub id. Each line is where
a frame begins; `--thresholds` merges by thresholds instead.
"""

import argparse
from pathlib import Path

import torch

from speechbrain_flowmac import FlowMACCodec
from speechbrain_flowmac.training.data import read_crop


def make_parser():
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("model")
    parser.add_argument("audio", type=Path)
    parser.add_argument(
        "--rates", nargs="*", type=float, default=[12.5, 8.3, 6.25], help="Hz"
    )
    parser.add_argument("--thresholds", nargs="*", type=float, default=[])
    parser.add_argument("--seconds", type=float, default=3.0)
    parser.add_argument("--output", type=Path, default="merged_frames.svg")
    return parser


def runs_of(codec, signal, **merging):
    """Where frames begin, in seconds, and how many there are in one.

    Arguments
    ---------
    codec : FlowMACCodec
        With a dynamic frame rate.
    signal : torch.Tensor
        Shape [T].
    **merging
        As for `FlowMACCodec.encode_batch`.

    Returns
    -------
    tuple
        numpy.ndarray, and the rate in Hz.
    """
    _, durations = codec.encode_batch(signal[None], **merging)
    starts = (durations.cumsum(1) - durations)[0] / codec.frame_rate
    rate = codec.frame_rate * durations.shape[1] / durations.sum().item()
    return starts.cpu().numpy(), rate


def draw(codec, signal, ways):
    """The figure: one row for each way of merging.

    Arguments
    ---------
    codec : FlowMACCodec
        With a dynamic frame rate.
    signal : torch.Tensor
        Shape [T].
    ways : list of dict
        As `runs_of` takes them.

    Returns
    -------
    matplotlib.figure.Figure
    """
    # no pyplot: it keeps figures alive and picks a display
    from matplotlib.figure import Figure

    model = codec.codec
    with torch.no_grad():
        mel = model.analyse(signal[None].to(codec.device))[0][0].cpu().T
    seconds = len(signal) / codec.sample_rate
    figure = Figure(figsize=(8, 1.7 * len(ways)), layout="constrained")
    axes = figure.subplots(len(ways), 1, sharex=True, squeeze=False)[:, 0]
    for axis, way in zip(axes, ways, strict=True):
        starts, rate = runs_of(codec, signal, **way)
        extent = (0, seconds, 0, len(mel))
        axis.imshow(
            mel,
            origin="lower",
            aspect="auto",
            extent=extent,
            cmap="Greys",
            interpolation="none",
        )
        axis.vlines(starts, 0, len(mel), "C3", linewidth=0.8)
        axis.set_title(f"{rate:.1f} frames a second", fontsize=9)
        axis.set_ylabel("mel band")
    axes[-1].set_xlabel("s")
    return figure


def main(arguments=None):
    """Draws and saves."""
    args = make_parser().parse_args(arguments)
    codec = FlowMACCodec.from_hparams(args.model, run_opts={"device": "cpu"})
    count = round(args.seconds * codec.sample_rate)
    signal = read_crop(args.audio, None, codec.sample_rate)[:count]
    ways = [{"frame_rate": rate} for rate in args.rates]
    ways += [{"merging_threshold": value} for value in args.thresholds]
    draw(codec, signal, ways).savefig(args.output, dpi=100)


if __name__ == "__main__":
    main()
