"""NVIDIA's BigVGAN checkpoints, version 1 and 2, as vocoders of a codec.

    config.json             architecture and front end
    bigvgan_generator.pt    {"generator": a state dict with weight norm}

Their front end is that of `LogMel`: an STFT that is not centred, after
reflection of (n_fft - hop) / 2 samples; magnitudes sqrt(re^2 + im^2 + 1e-9);
Slaney's mel filters; natural logarithm of the value clamped at 1e-5. So a
codec whose `MelSettings` are equal gives them the mels that they know.
"""

import json
import pickle
from pathlib import Path

import torch

from speechbrain_flowmac.lobes.bigvgan import BigVGAN
from speechbrain_flowmac.lobes.features import MelSettings
from speechbrain_flowmac.lobes.weight_norm import fold_weight_norm
from speechbrain_flowmac.models.importers.base import Importer, compact
from speechbrain_flowmac.models.loading import (
    HPARAMS_FILE,
    HUB_ID,
    ModelNotFoundError,
    WeightsMismatchError,
    get_file,
)
from speechbrain_flowmac.models.safe_yaml import MAX_BYTES, ModelError

CONFIG_FILE = "config.json"
WEIGHTS_FILE = "bigvgan_generator.pt"

# arguments of our classes by their names in config.json
MEL_KEYS = {
    "sample_rate": "sampling_rate",
    "n_fft": "n_fft",
    "hop_length": "hop_size",
    "win_length": "win_size",
    "n_mels": "num_mels",
    "f_min": "fmin",
    "f_max": "fmax",
}
MODEL_KEYS = {
    "channels": "upsample_initial_channel",
    "upsample_rates": "upsample_rates",
    "upsample_kernel_sizes": "upsample_kernel_sizes",
    "kernel_sizes": "resblock_kernel_sizes",
    "dilations": "resblock_dilation_sizes",
    "log_scale": "snake_logscale",
}
# and what their version 1 leaves out, with its value there
FINAL_KEYS = {
    "final_tanh": "use_tanh_at_final",
    "final_bias": "use_bias_at_final",
}
SUPPORTED = {"resblock": ("1",), "activation": ("snake", "snakebeta")}


class BigVGANConfigError(ModelError):
    """A config.json of another model, or of an unknown variant."""


def is_bigvgan(source):
    """Whether a source is a BigVGAN checkpoint, as far as its name tells.

    Arguments
    ---------
    source : str or Path
        A folder, a file of weights with config.json beside it, or a Hub id.

    Returns
    -------
    bool
        False for training folders and for mistyped paths.

    Example
    -------
    >>> is_bigvgan("nvidia/bigvgan_v2_24khz_100band_256x"), is_bigvgan("/no")
    (True, False)
    """
    path = Path(source)
    if path.is_dir():
        training = (path / HPARAMS_FILE).is_file()
        return (path / CONFIG_FILE).is_file() and not training
    if path.exists():
        return True
    # a path into a folder that is here is no Hub id
    return (
        HUB_ID.fullmatch(str(source)) is not None and not path.parent.is_dir()
    )


def checkpoint_file(source, name):
    """A file of a checkpoint, downloaded if need be.

    Arguments
    ---------
    source : str or Path
        See `is_bigvgan`.
    name : str
        `CONFIG_FILE` or `WEIGHTS_FILE`.

    Returns
    -------
    Path
    """
    path = Path(source)
    if not path.is_file():
        found = Path(get_file(source, name))
    else:
        found = path if name == WEIGHTS_FILE else path.with_name(name)
    if not found.is_file():
        raise ModelNotFoundError(f"{source} is no BigVGAN: no {found}")
    return found


def read_config(source):
    """Arguments of `MelSettings` and `BigVGAN` from config.json.

    Arguments
    ---------
    source : str or Path
        See `is_bigvgan`.

    Returns
    -------
    tuple of dict
        Of `MelSettings`, and of `BigVGAN` but for `mel_settings`.
    """
    path = checkpoint_file(source, CONFIG_FILE)
    with open(path, "rb") as file:
        text = file.read(MAX_BYTES + 1)
    if len(text) > MAX_BYTES:
        raise BigVGANConfigError(f"{path} has more than {MAX_BYTES} bytes")
    try:
        config = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise BigVGANConfigError(f"{path} is no JSON: {error}") from error
    if not isinstance(config, dict):
        raise BigVGANConfigError(f"{path} is no JSON object")
    return translate_config(config, path)


def translate_config(config, name=CONFIG_FILE):
    """Arguments of `MelSettings` and `BigVGAN` from NVIDIA's.

    Arguments
    ---------
    config : dict
        What config.json holds; keys of the training count for nothing.
    name : str or Path
        What to call it in messages.

    Returns
    -------
    tuple of dict
        Of `MelSettings`, and of `BigVGAN` but for `mel_settings`.
    """
    needed = [*SUPPORTED, *MEL_KEYS.values(), *MODEL_KEYS.values()]
    missing = [key for key in needed if key not in config]
    if missing:
        raise BigVGANConfigError(
            f"{name} is no config of BigVGAN: no {missing}"
        )
    for key, supported in SUPPORTED.items():
        if config[key] not in supported:
            raise BigVGANConfigError(
                f"{name}: {key} is {config[key]!r}, supported: "
                f"{', '.join(map(repr, supported))}"
            )
    mel = {ours: config[theirs] for ours, theirs in MEL_KEYS.items()}
    model = {ours: config[theirs] for ours, theirs in MODEL_KEYS.items()}
    model["separate_beta"] = config["activation"] == "snakebeta"
    for ours, theirs in FINAL_KEYS.items():
        model[ours] = config.get(theirs, True)
    return mel, model


def bigvgan_yaml(source):
    """The vocoder's part of a model folder's YAML.

    Arguments
    ---------
    source : str or Path
        See `is_bigvgan`.

    Returns
    -------
    str
    """
    mel, model = read_config(source)
    lines = [
        "vocoder: !new:speechbrain_flowmac.lobes.bigvgan.BigVGAN",
        "    mel_settings: !new:speechbrain_flowmac.lobes.features.MelSettings",
        # JSON is YAML, and nothing in it is a tag
        *(f"        {key}: {json.dumps(mel[key])}" for key in mel),
        *(f"    {key}: {json.dumps(model[key])}" for key in model),
    ]
    return "\n".join(lines) + "\n"


def load_bigvgan(source):
    """A vocoder with the weights of a checkpoint, which must fit exactly.

    Only tensors are read from the file: nothing in it is run.

    Arguments
    ---------
    source : str or Path
        See `is_bigvgan`.

    Returns
    -------
    BigVGAN
        On the CPU, in evaluation mode.
    """
    mel, model = read_config(source)
    vocoder = BigVGAN(MelSettings(**mel), **model)
    path = checkpoint_file(source, WEIGHTS_FILE)
    try:
        stored = torch.load(path, map_location="cpu", weights_only=True)
    # what a damaged file raises depends on where the damage is
    except (pickle.UnpicklingError, RuntimeError, EOFError) as error:
        raise WeightsMismatchError(
            f"{path} holds more than weights, or is damaged: {error}"
        ) from error
    if not isinstance(stored, dict) or "generator" not in stored:
        raise WeightsMismatchError(f"{path} has no weights called 'generator'")
    try:
        vocoder.load_state_dict(fold_weight_norm(stored["generator"]))
    except RuntimeError as error:
        raise WeightsMismatchError(
            f"{path} does not fit its {CONFIG_FILE}: {error}"
        ) from error
    return vocoder.eval()


class BigVGANCheckpoint(Importer):
    """NVIDIA's vocoder with NVIDIA's weights."""

    def recognises(self, source, part):
        """A vocoder, as far as the source's name tells."""
        return part == "vocoder" and is_bigvgan(source)

    def describe(self, source, part):
        """The config as arguments."""
        return bigvgan_yaml(source)

    def weights(self, source, part):
        """The generator's, compact."""
        return compact(load_bigvgan(source).state_dict())

    def credits(self, source, part):
        """Whose weights they are; a path of this machine is shortened."""
        origin = Path(source).name if Path(source).exists() else source
        return [
            f"The {part} is BigVGAN with the weights of `{origin}`,",
            "whose own licence holds for them.",
            "",
        ]
