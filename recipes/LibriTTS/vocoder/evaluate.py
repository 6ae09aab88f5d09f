#!/usr/bin/env python3
"""Synthesises a split from true and from decoded mels, and prints tables.

> python recipes/LibriTTS/vocoder/evaluate.py flowmac-24khz-3kbps \
      --data_folder data/LibriTTS --split test-clean

Each utterance is brought to -26 dB and synthesised whole: from its own mels,
which shows what the vocoder costs, and from those that the codec decodes.
(`flowmac evaluate` compares whole codecs.)

A vocoder with a pitch head gets a second table, of the F0 that it reads off
these mels: against Harvest (pip install pyworld) and against SwiftF0, which
made its labels (pip install swift-f0), whichever are there.
"""

import importlib.util
from collections import defaultdict

import numpy as np
import torch
from tqdm import tqdm

from speechbrain_flowmac import FlowMACCodec
from speechbrain_flowmac.evaluation.formats import markdown_table
from speechbrain_flowmac.evaluation.split import split_parser
from speechbrain_flowmac.metrics import (
    METRICS,
    harvest_f0,
    pitch_errors,
    to_level,
)
from speechbrain_flowmac.training.data import label_f0, read_crop

# name: (module, function)
F0_REFERENCES = {
    "Harvest": ("pyworld", harvest_f0),
    "SwiftF0": ("swift_f0", label_f0),
}


def read_arguments():
    """The command line."""
    parser = split_parser(__doc__, split="test-clean")
    parser.add_argument("model", help="built-in name, folder or Hub id")
    parser.add_argument("--codebooks", type=int, default=None)
    parser.add_argument("--steps", type=int, default=None, help="of the solver")
    parser.add_argument("--device", default="cpu")
    parser.add_argument(
        "--metrics",
        nargs="+",
        choices=METRICS,
        default=["pesq", "estoi", "mel"],
    )
    arguments = parser.parse_args()
    folder = arguments.data_folder / arguments.split
    arguments.files = sorted(folder.rglob("*.wav"))[: arguments.limit]
    if not arguments.files:
        parser.error(f"no wav under {folder}")
    return arguments


def print_means(metrics, scores):
    """Prints a table of means of scores, lists of floats by kind of mels."""
    rows = []
    for name, values in scores.items():
        # a metric says NaN where it finds no speech
        means = np.nanmean(values, axis=0)
        cells = zip(metrics, means, strict=True)
        rows.append([name, *(f"{x:.{m.decimals}f}" for m, x in cells)])
    print(markdown_table(["input", *(m.heading for m in metrics)], rows))


def make_mels(codec, wav, num_codebooks, n_steps):
    """Mels to synthesise from.

    Arguments
    ---------
    codec : FlowMACCodec
        The model.
    wav : torch.Tensor
        Shape [1, T].
    num_codebooks : int or None
        None for all.
    n_steps : int or None
        Of the solver.

    Returns
    -------
    dict
        For each name, a log-mel [1, N, M].
    """
    true = codec.codec.features(wav)
    tokens, _ = codec.encode_batch(wav, num_codebooks=num_codebooks)
    decoded = codec.codec.decode(
        tokens, sampling=codec.sampling(n_steps=n_steps)
    )
    # an encoder that joins frames may have added some
    return {"true mels": true, "decoded mels": decoded[:, : true.shape[1]]}


def true_f0(signal, head, settings, num_frames):
    """F0 by each reference that is installed.

    Arguments
    ---------
    signal : numpy.ndarray
        Shape [T].
    head : PitchPredictor
        Whose range and rate are wanted.
    settings : MelSettings
        Of the mels that it sees.
    num_frames : int
        How many values are wanted.

    Returns
    -------
    dict
        For each name, Hz or 0 where unvoiced, numpy.ndarray [num_frames].
    """
    return {
        name: function(
            torch.from_numpy(signal),
            settings.sample_rate,
            settings.hop_length // head.upsample,
            num_frames,
            head.f_min,
            head.f_max,
        ).numpy()
        for name, (module, function) in F0_REFERENCES.items()
        if importlib.util.find_spec(module)
    }


def print_pitch(tracks):
    """Prints the errors of F0 over all frames.

    Arguments
    ---------
    tracks : dict
        For each reference and kind of mels, a list of F0, voicing and
        reference F0.
    """
    rows = []
    for names, parts in tracks.items():
        joined = [np.concatenate(x) for x in zip(*parts, strict=True)]
        gross, cents, voicing = pitch_errors(*joined)
        cells = f"{100 * gross:.2f}", f"{cents:.1f}", f"{100 * voicing:.1f}"
        rows.append([*names, *cells])
    headings = ["gross errors, %", "other errors, cents", "voicing errors, %"]
    print("\nF0 of the pitch head\n")
    print(markdown_table(["reference", "input", *headings], rows))


@torch.no_grad()
def main():
    """Evaluates and prints."""
    arguments = read_arguments()
    codec = FlowMACCodec.from_hparams(
        arguments.model, run_opts={"device": arguments.device}
    )
    metrics = [METRICS[name] for name in arguments.metrics]
    # vocoders of other kinds have no head
    head = getattr(getattr(codec.vocoder, "head", None), "pitch", None)
    scores, tracks = defaultdict(list), defaultdict(list)
    for path in tqdm(arguments.files, dynamic_ncols=True):
        signal = read_crop(path, None, codec.sample_rate).numpy()
        signal = to_level(signal.astype(np.float64))
        wav = torch.from_numpy(signal).float().unsqueeze(0).to(codec.device)
        mels = make_mels(codec, wav, arguments.codebooks, arguments.steps)
        for name, mel in mels.items():
            made = codec.vocoder(mel)[0, : len(signal)].clamp(-1, 1)
            made = made.double().cpu().numpy()
            scores[name].append(
                [x.function(signal, made, codec.sample_rate) for x in metrics]
            )
        if head is None:
            continue
        settings = codec.codec.mel_settings
        frames = head.upsample * mels["true mels"].shape[1]
        references = true_f0(signal, head, settings, frames)
        for name, mel in mels.items():
            f0, voiced = (x[0].cpu().numpy() for x in head(mel))
            for reference, truth in references.items():
                tracks[reference, name].append((f0, voiced, truth))
    print(
        f"{len(arguments.files)} utterances of {arguments.split}, "
        f"{arguments.model}\n"
    )
    print_means(metrics, scores)
    if tracks:
        print_pitch(tracks)


if __name__ == "__main__":
    main()
