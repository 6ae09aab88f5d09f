#!/usr/bin/env python3
"""What steps of the flow buy: quality and time against evaluations.

> python recipes/LibriTTS/codec/solvers.py flowmac-24khz-3kbps \
      --data_folder data/LibriTTS --split dev-clean --output results/solvers

Codes utterances, decodes them with every solver, grid, number of evaluations of
the field, temperature, guidance and rescaling, and writes solvers.csv,
solvers.md (a table) and solvers.svg (a plot) into the output folder. Mels are
compared before the vocoder, in natural-log units: `mel L1` with the true one,
`roughness` as `mel_roughness` has it. `time` is that of the sampler alone, in
seconds of one CPU for a second of sound.
"""

import csv
import time
from itertools import product
from pathlib import Path

import numpy as np
import torch
from tqdm import tqdm

from speechbrain_flowmac import FlowMACCodec
from speechbrain_flowmac.evaluation.split import split_parser
from speechbrain_flowmac.lobes.solvers import SCHEDULES, Dopri5, get_solver
from speechbrain_flowmac.metrics import METRICS, mel_roughness, to_level
from speechbrain_flowmac.training.data import read_crop

COUNTS = (1, 2, 4, 8, 16, 32)
FIXED = ("euler", "midpoint", "heun", "rk4")
SETTINGS = ("solver", "grid", "temperature", "guidance", "rescale")


def make_parser():
    """The command line."""
    parser = split_parser(__doc__, limit=16)
    parser.add_argument("model", help="built-in name, folder or Hub id")
    parser.add_argument(
        "--seconds", type=float, default=None, help="of each; None for all"
    )
    parser.add_argument("--codebooks", type=int, default=None)
    parser.add_argument("--output", type=Path, default="results/solvers")
    parser.add_argument("--solvers", nargs="+", default=FIXED, choices=FIXED)
    parser.add_argument(
        "--schedules",
        nargs="+",
        default=["uniform", "sway"],  # cosine is the same as sway
        choices=SCHEDULES,
    )
    parser.add_argument("--counts", nargs="+", type=int, default=COUNTS)
    parser.add_argument("--temperatures", nargs="+", type=float, default=[1.0])
    parser.add_argument(
        "--guidances",
        nargs="+",
        type=float,
        default=[0.0],
        help="scales; above 0 for fields trained with condition_dropout",
    )
    parser.add_argument(
        "--rescales", nargs="+", type=float, default=[0.0], help="of guidance"
    )
    parser.add_argument(
        "--tolerances",
        nargs="*",
        type=float,
        default=[],
        help="of dopri5, which needs torchdiffeq",
    )
    parser.add_argument(
        "--metrics", nargs="*", default=[], choices=METRICS, help="of sound"
    )
    return parser


def samplings(codec, arguments):
    """Ways of sampling with a given number of evaluations.

    Arguments
    ---------
    codec : FlowMACCodec
        The model.
    arguments : argparse.Namespace
        From `make_parser`.

    Returns
    -------
    dict
        `Sampling` by (solver, grid, temperature, guidance, rescale, count);
        where the count is no multiple of a step's, there is none.
    """
    default = codec.codec.sampling.with_changes(spread=0.0)
    plain = {"temperature": 1.0, "guidance": 0.0, "rescale": 0.0}
    ways = {("decoder", "", "", "", "", 0): default.with_changes(n_steps=0)}
    for tolerance in arguments.tolerances:
        way = "dopri5", f"tolerance {tolerance:g}", *plain.values(), None
        ways[way] = default.with_changes(solver=Dopri5(tolerance), **plain)
    for solver, schedule, count, *noise_and_guidance in product(
        arguments.solvers,
        arguments.schedules,
        arguments.counts,
        arguments.temperatures,
        arguments.guidances,
        arguments.rescales,
    ):
        settings = dict(zip(plain, noise_and_guidance, strict=True))
        steps, rest = divmod(count, get_solver(solver).evaluations_per_step)
        one_grid = steps == 1 and schedule != arguments.schedules[0]
        nothing_to_rescale = (
            settings["guidance"] == 0
            and settings["rescale"] != arguments.rescales[0]
        )
        if rest or one_grid or nothing_to_rescale:
            continue
        way = solver, schedule, *noise_and_guidance, count
        ways[way] = default.with_changes(
            solver=solver, schedule=schedule, n_steps=steps, **settings
        )
    return ways


def measure(codec, signal, tokens, sampling, metrics):
    """Figures of one utterance.

    Arguments
    ---------
    codec : FlowMACCodec
        The model.
    signal : torch.Tensor
        Shape [T].
    tokens : torch.Tensor
        Shape [1, N, K].
    sampling : Sampling
        How to sample.
    metrics : list of Metric
        Of the sound.

    Returns
    -------
    list of float
        Evaluations, time, mel L1, roughness and the metrics.
    """
    model = codec.codec
    calls = []
    hook = model.flow.field.register_forward_pre_hook(
        lambda *_: calls.append(None)
    )
    start = time.process_time()
    mel = model.decode(tokens, sampling=sampling)
    seconds = time.process_time() - start
    hook.remove()
    with torch.no_grad():
        true = model.features(signal[None])
    mel = mel[:, : true.shape[1]]
    values = [
        len(calls),
        seconds * codec.sample_rate / len(signal),
        float((mel - true).abs().mean()),
        mel_roughness(mel),
    ]
    if metrics:
        with torch.no_grad():
            wav = codec.vocoder(mel, None, codec.vocoder.start(0))
        wav = wav[0, : len(signal)].numpy().astype(np.float64)
        pair = signal.numpy().astype(np.float64), wav
        values += [m.function(*pair, codec.sample_rate) for m in metrics]
    return values


def study(codec, files, arguments):
    """A row for each way of sampling, and one for the true mel.

    Arguments
    ---------
    codec : FlowMACCodec
        The model.
    files : list of Path
        Utterances.
    arguments : argparse.Namespace
        From `make_parser`.

    Returns
    -------
    list of dict
    """
    ways = samplings(codec, arguments)
    metrics = [METRICS[name] for name in arguments.metrics]
    found = {way: [] for way in ways}
    truth = []
    length = None
    if arguments.seconds is not None:
        length = int(arguments.seconds * codec.sample_rate)
    for path in tqdm(files, dynamic_ncols=True):
        signal = read_crop(path, length, codec.sample_rate).numpy()
        signal = torch.from_numpy(to_level(signal.astype(np.float64))).float()
        truth.append(mel_roughness(codec.codec.features(signal[None])))
        tokens, _ = codec.codec.encode(
            signal[None], num_codebooks=arguments.codebooks
        )
        if not truth[1:]:
            codec.codec.decode(tokens)  # what runs first is slower
        for way, sampling in ways.items():
            values = measure(codec, signal, tokens, sampling, metrics)
            found[way].append(values)
    names = ["evaluations", "time", "mel L1", "roughness"]
    names += [metric.heading for metric in metrics]
    rows = [{"solver": "(true mel)", "roughness": np.mean(truth)}]
    for way, values in found.items():
        means = dict(zip(names, np.nanmean(values, axis=0), strict=True))
        rows.append(dict(zip(SETTINGS, way[:-1], strict=True)) | means)
    # what the mel decoder takes is not the flow's
    own = rows[1]["time"]
    for row in rows[1:]:
        row["time"] = max(row["time"] - own, 0.0)
    return rows


def write_tables(rows, folder):
    """Writes solvers.csv and solvers.md.

    Arguments
    ---------
    rows : list of dict
        From `study`.
    folder : Path
        To write into.
    """
    names = list(rows[-1])
    with open(folder / "solvers.csv", "w", newline="") as file:
        writer = csv.DictWriter(file, names)
        writer.writeheader()
        writer.writerows(rows)
    lines = ["| " + " | ".join(names) + " |", "|---" * len(names) + "|"]
    for row in rows:
        cells = [row.get(name, "") for name in names]
        cells = [f"{x:.3g}" if isinstance(x, float) else x for x in cells]
        lines.append("| " + " | ".join(map(str, cells)) + " |")
    (folder / "solvers.md").write_text("\n".join(lines) + "\n")


def plot(rows, path):
    """Mel L1, roughness and the first metric against what was swept.

    Arguments
    ---------
    rows : list of dict
        From `study`.
    path : Path
        File to write.
    """
    from matplotlib.figure import Figure

    true, decoder, *sampled = rows
    values = {name: {row[name] for row in sampled} for name in sampled[0]}
    choices = ("evaluations", "guidance", "temperature")
    across = next((n for n in choices if len(values[n]) > 1), choices[0])
    curves = {}
    for row in sampled:
        name = row["solver"]
        if name != "dopri5":
            name += f", {row['grid']}"
        for setting in SETTINGS[2:]:
            if len(values[setting]) > 1 and setting != across:
                name += f", {setting} {row[setting]:g}"
        curves.setdefault(name, []).append(row)
    drawn = list(decoder)[len(SETTINGS) + 2 :][:3]
    figure = Figure(figsize=(4.5 * len(drawn), 3.6), layout="constrained")
    axes = figure.subplots(1, len(drawn))
    for axis, value in zip(axes, drawn, strict=True):
        for name, points in curves.items():
            axis.plot(
                [row[across] for row in points],
                [row[value] for row in points],
                marker=".",
                linestyle="--" if "sway" in name else "-",
                label=name,
            )
        axis.axhline(decoder[value], color="grey", label="mel decoder")
        if value in true:
            axis.axhline(true[value], color="black", label="true mel")
        if across == "evaluations":
            axis.set_xscale("log", base=2)
        axis.set_xlabel(across)
        axis.set_ylabel(value)
    axes[1].legend(fontsize=7)
    figure.savefig(path)


def main():
    """Measures and writes."""
    parser = make_parser()
    arguments = parser.parse_args()
    folder = arguments.data_folder / arguments.split
    files = sorted(folder.rglob("*.wav"))[: arguments.limit]
    if not files:
        parser.error(f"no wav under {folder}")
    torch.set_num_threads(1)
    codec = FlowMACCodec.from_hparams(arguments.model)
    rows = study(codec, files, arguments)
    arguments.output.mkdir(parents=True, exist_ok=True)
    write_tables(rows, arguments.output)
    plot(rows, arguments.output / "solvers.svg")
    print((arguments.output / "solvers.md").read_text())


if __name__ == "__main__":
    main()
