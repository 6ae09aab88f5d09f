"""What the evaluation scripts have in common: options, audio, scores, tables."""

import argparse
from pathlib import Path

import numpy as np
from tqdm import tqdm

from speechbrain_flowmac import FlowMACCodec
from speechbrain_flowmac.metrics import METRICS, to_level
from speechbrain_flowmac.training.data import read_crop


def make_parser(description):
    """The options of every evaluation.

    Arguments
    ---------
    description : str
        The script's docstring.

    Returns
    -------
    argparse.ArgumentParser
    """
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("model", help="built-in name, folder or Hub id")
    parser.add_argument("--data_folder", default="data/LibriTTS", type=Path)
    parser.add_argument("--split", default="test-clean")
    parser.add_argument("--steps", type=int, default=None, help="of the solver")
    parser.add_argument("--limit", type=int, default=None, help="utterances")
    parser.add_argument("--device", default="cpu")
    ways = {True: "higher is better", False: "lower is better"}
    parser.add_argument(
        "--metrics",
        nargs="+",
        choices=METRICS,
        default=["pesq", "estoi", "mel"],
        help="\n".join(
            f"{name}: {metric.heading}, {ways[metric.higher_is_better]}"
            for name, metric in METRICS.items()
        ),
    )
    return parser


class Evaluation:
    """A command line, its model and its audio.

    Arguments
    ---------
    parser : argparse.ArgumentParser
        From `make_parser`; reads the command line.
    """

    def __init__(self, parser):
        self.arguments = parser.parse_args()
        folder = self.arguments.data_folder / self.arguments.split
        self.files = sorted(folder.rglob("*.wav"))[: self.arguments.limit]
        if not self.files:
            parser.error(f"no wav under {folder}")
        self.codec = FlowMACCodec.from_hparams(
            self.arguments.model, run_opts={"device": self.arguments.device}
        )
        self.metrics = [METRICS[name] for name in self.arguments.metrics]

    def signals(self):
        """Yields each utterance, float64 [T] at -26 dB, behind a bar."""
        for path in tqdm(self.files, dynamic_ncols=True):
            signal = read_crop(path, None, self.codec.sample_rate).numpy()
            yield to_level(signal.astype(np.float64))

    def score(self, reference, decoded):
        """Values of the metrics.

        Arguments
        ---------
        reference : numpy.ndarray
            Shape [T].
        decoded : numpy.ndarray
            Shape [T].

        Returns
        -------
        list of float
        """
        rate = self.codec.sample_rate
        return [x.function(reference, decoded, rate) for x in self.metrics]

    def print_means(self, headings, scores):
        """Prints a table with the mean of each metric.

        Arguments
        ---------
        headings : list of str
            Of what comes before the metrics.
        scores : dict
            A list of `score` for each beginning of a row (a tuple of str).
        """
        arguments = self.arguments
        print(
            f"{len(self.files)} utterances of {arguments.split}, "
            f"{arguments.model}\n"
        )
        rows = []
        for start, values in scores.items():
            # a metric says NaN where it finds no speech
            means = np.nanmean(values, axis=0)
            cells = [
                f"{mean:.{metric.decimals}f}"
                for metric, mean in zip(self.metrics, means, strict=True)
            ]
            rows.append([*start, *cells])
        print_table([*headings, *(x.heading for x in self.metrics)], rows)


def print_table(headings, rows):
    """Prints Markdown.

    Arguments
    ---------
    headings : list of str
        Of the columns.
    rows : list of list of str
        Cells.
    """
    print("| " + " | ".join(headings) + " |")
    print("|---" * len(headings) + "|")
    for cells in rows:
        print("| " + " | ".join(cells) + " |")
