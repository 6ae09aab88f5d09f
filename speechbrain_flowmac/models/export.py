"""Turns training folders into the folder that `from_hparams` loads.

    hyperparams.yaml     the codec and the vocoder, nothing else
    codec.safetensors    averaged weights of the best checkpoint
    vocoder.safetensors
    README.md            model card: data, licence, figures, commands

The vocoder may also be a BigVGAN checkpoint, see `importers.bigvgan`. Weight
norm, where a training had it, is folded into the weights. Their metadata
states the mel settings, which are checked on loading.
"""

import io
import json
import shutil
import tempfile
from dataclasses import asdict
from pathlib import Path

import torch
from ruamel.yaml import YAML
from safetensors.torch import save_file
from speechbrain.utils.checkpoints import Checkpointer

from speechbrain_flowmac.inference import FlowMACCodec
from speechbrain_flowmac.lobes.bigvgan import fold_weight_norm
from speechbrain_flowmac.models.importers.bigvgan import (
    bigvgan_yaml,
    is_bigvgan,
    load_bigvgan,
)
from speechbrain_flowmac.models.loading import (
    HPARAMS_FILE,
    build_modules,
    built_in_models,
    read_description,
)

AVERAGED_PREFIX = "module."
EXAMPLE_FILE = "example.wav"
MODEL_FILES = {
    HPARAMS_FILE,
    "codec.safetensors",
    "vocoder.safetensors",
    "README.md",
    EXAMPLE_FILE,
}


class ExportError(ValueError):
    """A training folder that cannot be exported."""


def model_block(source, name):
    """The part of a YAML that describes a model.

    Arguments
    ---------
    source : str or Path
        Output folder of a training; for a vocoder also a BigVGAN checkpoint.
    name : str
        "codec" or "vocoder".

    Returns
    -------
    object
        A ruamel node with all references resolved.
    """
    if name == "vocoder" and is_bigvgan(source):
        return YAML(typ="rt").load(bigvgan_yaml(source))[name]
    path = Path(source) / HPARAMS_FILE
    if not path.is_file():
        raise ExportError(f"{source} is no training folder: no {HPARAMS_FILE}")
    settings = YAML(typ="rt").load(path.read_text(encoding="utf-8"))
    # a vocoder's YAML may name a codec, whose mels it trains on
    if not isinstance(settings.get(name), dict):
        raise ExportError(f"{path} describes no {name}")
    return settings[name]


def plain_yaml(blocks):
    """YAML text of model blocks, without the comments of the training YAML.

    Arguments
    ---------
    blocks : dict
        Nodes from `model_block`.

    Returns
    -------
    str
    """
    stream = io.StringIO()
    YAML(typ="rt").dump(blocks, stream)
    lines = (line.split(" #")[0] for line in stream.getvalue().splitlines())
    kept = [n for n in lines if n.strip() and not n.lstrip().startswith("#")]
    return "\n".join(kept) + "\n"


def averaged_weights(folder):
    """Averaged weights of the best checkpoint of a training.

    Arguments
    ---------
    folder : str or Path
        Output folder of a training.

    Returns
    -------
    dict
        A state dict.
    """
    checkpoints = Checkpointer(Path(folder) / "save")
    best = checkpoints.find_checkpoint(min_key="loss")
    if best is None:
        raise ExportError(f"no validated checkpoint in {folder}/save")
    state = torch.load(best.path / "ema.ckpt", weights_only=True)
    return {
        name.removeprefix(AVERAGED_PREFIX): value
        for name, value in state.items()
        if name.startswith(AVERAGED_PREFIX)
    }


def model_weights(source, name):
    """The weights that go into a model folder, without weight norm.

    Arguments
    ---------
    source : str or Path
        See `model_block`.
    name : str
        "codec" or "vocoder".

    Returns
    -------
    dict
        A state dict.
    """
    if name == "vocoder" and is_bigvgan(source):
        return load_bigvgan(source).state_dict()
    return fold_weight_norm(averaged_weights(source))


def compact(state):
    """Halves the size of a state dict: matrices to float16.

    Vectors (of any number of axes), codebooks and statistics stay as they
    are: they are small, and tokens and filters depend on them.

    Arguments
    ---------
    state : dict
        A state dict.

    Returns
    -------
    dict
    """

    def shrink(name, value):
        vector = value.numel() == max(value.shape, default=1)
        small = vector or "_codebook" in name
        kept = small or value.dtype != torch.float32
        return value.contiguous() if kept else value.half().contiguous()

    return {name: shrink(name, value) for name, value in state.items()}


def check_replaceable(target):
    """Refuses to replace anything but a model folder.

    Arguments
    ---------
    target : Path
        Where a model is to go.
    """
    if not target.exists():
        return
    if not target.is_dir():
        raise ExportError(f"{target} exists and is no folder")
    others = {path.name for path in target.iterdir()} - MODEL_FILES
    if others:
        raise ExportError(
            f"{target} holds more than a model ({sorted(others)[:3]}) and is "
            "not replaced"
        )


def export(codec_folder, vocoder, target, card=None):
    """Writes a model folder.

    Arguments
    ---------
    codec_folder : str or Path
        Output folder of the codec's training.
    vocoder : str or Path
        Output folder of the vocoder's training, or a BigVGAN checkpoint: its
        folder, its file of weights, or its Hub id.
    target : str or Path
        Folder to make. A model folder that is there is replaced, once all
        is written; its example.wav is kept.
    card : str or Path or None
        Model card; None for a short one that names the training commands.

    Returns
    -------
    FlowMACCodec
        Loaded from `target`.
    """
    sources = {"codec": codec_folder, "vocoder": vocoder}
    blocks = {n: model_block(source, n) for n, source in sources.items()}
    target = Path(target)
    check_replaceable(target)
    target.parent.mkdir(parents=True, exist_ok=True)
    work = Path(tempfile.mkdtemp(dir=target.parent, prefix=".export-"))
    try:
        described = work / HPARAMS_FILE
        described.write_text(plain_yaml(blocks), encoding="utf-8")
        _, modules = build_modules(read_description(described))
        front_ends = {name: modules[name].mel_settings for name in sources}
        # before any weights are fetched
        front_ends["codec"].check_same(
            front_ends["vocoder"], names=("codec", "vocoder")
        )
        for name, source in sources.items():
            settings = asdict(front_ends[name])
            save_file(
                compact(model_weights(source, name)),
                str(work / f"{name}.safetensors"),
                metadata={"format": "pt", "mel_settings": json.dumps(settings)},
            )
        if card is None:
            (work / "README.md").write_text(plain_card(sources))
        else:
            shutil.copyfile(card, work / "README.md")
        # loading checks every key, shape and setting
        FlowMACCodec.from_hparams(work, run_opts={"device": "cpu"})
        # made for the owner alone, but a model is for all
        work.chmod(0o755)
        for path in work.iterdir():
            path.chmod(0o644)
        if (target / EXAMPLE_FILE).is_file():
            shutil.copyfile(target / EXAMPLE_FILE, work / EXAMPLE_FILE)
        if target.exists():
            shutil.rmtree(target)
        work.rename(target)
    finally:
        shutil.rmtree(work, ignore_errors=True)
    return FlowMACCodec.from_hparams(target, run_opts={"device": "cpu"})


def plain_card(sources):
    """A model card for a model of one's own.

    Arguments
    ---------
    sources : dict
        Training folders by module name; the vocoder's may be another
        checkpoint.

    Returns
    -------
    str
    """
    lines = [
        "# A FlowMAC codec",
        "",
        "Load it with `FlowMACCodec.from_hparams(source=...)` of",
        f"`speechbrain_flowmac` (which ships {', '.join(built_in_models())}).",
        "",
        "Data, licence and figures: to be filled in by who trained it.",
        "",
    ]
    for name, source in sources.items():
        if name == "vocoder" and is_bigvgan(source):
            local = Path(source).exists()
            origin = Path(source).name if local else source
            lines += [
                f"The vocoder is BigVGAN with the weights of `{origin}`,",
                "whose own licence holds for them.",
                "",
            ]
            continue
        lines += [f"## Training log of the {name}", "", "```"]
        log = Path(source) / "train_log.txt"
        if log.is_file():
            lines += log.read_text(encoding="utf-8").splitlines()[-3:]
        lines += ["```", ""]
    return "\n".join(lines)
