"""Trainings by the recipes on a small corpus, each in its own process.

Processes are forked from one that has done the slow imports, so that a
training starts in a moment; what it runs is the recipe's script, as the
command line would, where no more is installed than the recipe asks for.
"""

import logging
import multiprocessing
import os
import re
import runpy
import signal
import socket
import sys
import traceback
from pathlib import Path

import torch
from requirements import forbid, forbidden_modules

ROOT = Path(__file__).parents[2]
EXTRACTION = ROOT / "hparams" / "extract_tokens.yaml"
DIGITS = ROOT / "hparams" / "mnist_flow.yaml"
MDCT = ROOT / "hparams" / "flowmac_mdct.yaml"
TTS_DYNAMIC = ROOT / "hparams" / "tts_tokens_dynamic.yaml"  # asks for a model
OTHERS = {EXTRACTION, DIGITS, TTS_DYNAMIC}
HPARAMS = sorted(set((ROOT / "hparams").glob("*.yaml")) - OTHERS)
LIMIT_SECONDS = 600  # bfloat16 is slow where it is emulated

# Keys that make a model tiny, where its YAML has them.
TINY = {
    "dim": "16",
    "channels": "64",
    "field_dim": "16",
    "field_bins": "32",
    "latent_dim": "8",
    "code_dim": "4",
    "num_layers": "1",
    "num_heads": "2",
    "codebook_size": "16",
    "crop_frames": "16",
    "batch_size": "2",
    "batch_seconds": "1",
    "num_buckets": "2",
    "valid_batch_size": "2",
    "log_interval": "1",
    "max_frames": "12",
    "num_samples": "1",
    "warmup_steps": "2",
    "train_dataloader_opts": "{num_workers: 0}",
    "train_splits": "[train-clean-100]",
    "valid_splits": "[dev-clean]",
    "test_splits": "[test-clean]",
}
# What no such key reaches, by the name of the YAML.
TINY_PARTS = {
    "asr_tokens_conformer": {"codebook_size": "256"},
    "asr_tokens_lstm": {"codebook_size": "256"},
    "bigvgan": {"period_channels": "[8, 8]", "cqt_channels": "2"},
    "flowmac": {
        "flow": "{field: {dims: [16, 16], num_heads: 2}}",
        "sampling": "{n_steps: 2}",
    },
    "flowmac_dynamic": {
        "pretrained": "null",
        "levels": "[4, 4]",
        "semantic_dim": "8",
    },
    # what is frozen would have to be trained first
    "flowmac_meanflow": {"pretrained": "null", "frozen": "[]"},
    "flowmac_distilled": {"pretrained": "null", "frozen": "[]"},
}
# Short, in a folder that is there for all ranks: with --debug alone each would
# look for checkpoints in a temporary one of its own.
DEBUG = {"debug": True, "debug_persistently": True}


def top_level_keys(yaml):
    """Keys of a YAML that start a line."""
    return set(re.findall(r"^(\w+):", yaml.read_text("utf-8"), re.MULTILINE))


def model_name(yaml):
    """What a YAML trains: ``codec``, ``vocoder``, ``recogniser``, ..."""
    text = yaml.read_text("utf-8")
    return re.search(r"^modules:\n +(\w+):", text, re.MULTILINE)[1]


def recipe(yaml):
    """The script that does what a YAML describes."""
    recipes = ROOT / "recipes" / "LibriTTS"
    if yaml == EXTRACTION:
        return recipes / "codec" / "extract_tokens.py"
    folders = {"recogniser": "ASR_tokens", "synthesiser": "TTS_tokens"}
    folder = folders.get(model_name(yaml))
    if yaml == MDCT:
        folder = "mdct"
    return recipes / (folder or model_name(yaml)) / "train.py"


def arguments(yaml, corpus, output, **options):
    """Command-line arguments of a tiny training.

    Arguments
    ---------
    yaml : Path
        One of `HPARAMS`.
    corpus : str
        Folder of the corpus.
    output : str
        Folder of the training.
    **options
        Further options by name; True for a flag.

    Returns
    -------
    list of str
    """
    keys = top_level_keys(yaml)
    chosen = {
        "data_folder": corpus,
        "output_folder": output,
        "device": "cpu",
        **{key: value for key, value in TINY.items() if key in keys},
        **TINY_PARTS.get(yaml.stem, {}),
        **options,
    }
    return [str(yaml), "--noprogressbar"] + [
        f"--{key}" if value is True else f"--{key}={value}"
        for key, value in chosen.items()
    ]


def free_port():
    """A port that nobody listens on."""
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        return server.getsockname()[1]


class Training:
    """A training in its own process.

    Arguments
    ---------
    yaml : Path
        One of `HPARAMS`.
    corpus : str
        Folder of the corpus.
    output : str or Path
        Folder of the training; what it prints goes to a file beside it.
    kill_at : int or None
        The process kills itself, as `kill -9` does, when it has logged this
        step, or so many shards of an extraction.
    probe : bool
        Whether to save, once trained, the state of each rank (`probe`).
    variables : dict or None
        Environment variables.
    script : Path or None
        None for the recipe that the YAML belongs to.
    **options
        For `arguments`.
    """

    def __init__(
        self,
        yaml,
        corpus,
        output,
        kill_at=None,
        probe=False,
        variables=None,
        script=None,
        **options,
    ):
        self.output = Path(output)
        self.output.parent.mkdir(parents=True, exist_ok=True)
        rank = (variables or {}).get("RANK", "")
        self.printed = self.output.with_suffix(f".printed{rank}")
        self.process = _context().Process(
            target=_run,
            args=(
                str(script or recipe(yaml)),
                forbidden_modules(recipe(yaml).parent),
                arguments(yaml, corpus, output, **options),
                str(self.printed),
                kill_at,
                str(self.output) if probe else None,
                variables or {},
            ),
        )
        self.process.start()

    def wait(self):
        """Waits for the end; returns the exit code, negative for a signal."""
        self.process.join(LIMIT_SECONDS)
        if self.process.is_alive():
            self.process.kill()
            self.process.join()
            raise TimeoutError(self.text)
        return self.process.exitcode

    def check(self):
        """Waits for the end, which must be a good one; returns itself."""
        assert self.wait() == 0, self.text
        return self

    @property
    def text(self):
        """What was printed."""
        return self.printed.read_text("utf-8", errors="replace")

    @property
    def steps(self):
        """Logged losses as pairs of step and text, in order."""
        log = (self.output / "log.txt").read_text("utf-8")
        found = re.findall(r"step (\d+): (.*)", log)
        return [(int(step), losses) for step, losses in found]


def two_ranks(yaml, corpus, output, **options):
    """A training of two processes; see `Training`.

    Returns
    -------
    list of Training
        By rank.
    """
    shared = {
        "WORLD_SIZE": "2",
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(free_port()),
    }
    return [
        Training(
            yaml,
            corpus,
            output,
            variables={"RANK": rank, "LOCAL_RANK": rank, **shared},
            distributed_backend="gloo",
            **options,
        )
        for rank in "01"
    ]


def train_one_model(yaml, corpus, output, **options):
    """Trains with --debug on two ranks, which must get the same weights.

    Returns
    -------
    list of dict
        By rank, what `probe` saves.
    """
    ranks = two_ranks(yaml, corpus, output, probe=True, **DEBUG, **options)
    for rank in ranks:
        rank.check()
    first, second = (
        torch.load(Path(output) / f"rank{rank}.pt", weights_only=True)
        for rank in "01"
    )
    assert first["steps"] == second["steps"] == 4
    for part in ("modules", "averaged"):
        assert first[part].keys() == second[part].keys()
        for name, value in first[part].items():
            assert torch.equal(value, second[part][name]), name
    return [first, second]


def _context():
    """Forks from a server that has imported all that trainings need."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(
        [
            "speechbrain_flowmac.training.brains",
            "speechbrain_flowmac.training.data",
        ]
    )
    return context


def _run(
    script, forbidden, arguments, printed, kill_at, probe_folder, variables
):
    """Runs a script in this process, as if it had been started alone."""
    with open(printed, "w") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    os.environ.update(variables)
    # urllib looks here: no training reaches another machine
    os.environ.update(dict.fromkeys(PROXIES, "http://127.0.0.1:9"))
    torch.set_num_threads(1)
    forbid(forbidden)
    if kill_at is not None:
        _kill_at(kill_at)
    if probe_folder is not None:
        _probe(probe_folder)
    sys.argv = [script, *arguments]
    try:
        runpy.run_path(script, run_name="__main__")
    except Exception:
        traceback.print_exc()
        sys.exit(1)


PROXIES = ("http_proxy", "https_proxy")


def _kill_at(count):
    """Lets this process kill itself when it has logged a step, or shards."""
    shards = []

    class Killer(logging.Handler):
        def emit(self, record):
            shards.extend([record] * record.msg.startswith("shard"))
            step = record.args[0] if record.msg.startswith("step") else None
            if count in (step, len(shards)):
                # the file's handler belongs to the root, whose turn is later
                logging.getLogger().handle(record)
                os.kill(os.getpid(), signal.SIGKILL)

    for name in ("training.brains.base", "tokens.extraction"):
        log = logging.getLogger(f"speechbrain_flowmac.{name}")
        log.setLevel(logging.INFO)
        log.addHandler(Killer())


def _probe(folder):
    """Saves the state of every rank before the evaluation."""
    from speechbrain_flowmac.training.brains.base import TrainingBrain

    evaluate = TrainingBrain.evaluate

    def probed(brain, *args, **kwargs):
        brain.seed_generators(brain.optimizer_step)
        state = {
            "modules": brain.modules.state_dict(),
            "averaged": brain.averaged_model.state_dict(),
            "noise": torch.randn(8, generator=brain.generator),
            "common": torch.rand(8),
            "steps": brain.optimizer_step,
        }
        torch.save(state, f"{folder}/rank{torch.distributed.get_rank()}.pt")
        return evaluate(brain, *args, **kwargs)

    TrainingBrain.evaluate = probed
