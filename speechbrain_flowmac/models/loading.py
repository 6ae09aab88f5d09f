"""Finding and loading model folders, without running what is in them."""

import json
import re
from pathlib import Path

import yaml
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file
from speechbrain.utils.fetching import FetchConfig, LocalStrategy, fetch

from speechbrain_flowmac.lobes.features import MelSettings

MODELS_FOLDER = Path(__file__).parent
HPARAMS_FILE = "hyperparams.yaml"
MODULE_NAMES = ("codec", "vocoder")

# What a model folder's YAML may build: classes of the codec and its lobes
SAFE_OBJECT = re.compile(r"new:speechbrain_flowmac\.(codec|lobes\.\w+)\.\w+")
HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")


class ModelNotFoundError(FileNotFoundError):
    """A source is neither a folder, nor a built-in model, nor a Hub id."""


class UnsafeModelError(ValueError):
    """A model's YAML asks for more than building the codec's own classes."""


class WeightsMismatchError(ValueError):
    """Weights that are not those of the model that the YAML describes."""


def built_in_models():
    """Names of the models that ship in the package.

    Returns
    -------
    list of str

    Example
    -------
    >>> "flowmac-24khz-3kbps" in built_in_models()
    True
    """
    return sorted(
        path.parent.name for path in MODELS_FOLDER.glob(f"*/{HPARAMS_FILE}")
    )


def resolve_source(source):
    """Where a model is: a folder as str, or a Hub id.

    Arguments
    ---------
    source : str or Path
        A local folder, the name of a built-in model, or a Hub id.

    Returns
    -------
    str
    """
    if Path(source).is_dir():
        return str(source)
    name = str(source)
    if name in built_in_models():
        return str(MODELS_FOLDER / name)
    if isinstance(source, str) and HUB_ID.fullmatch(name) and name[0] != ".":
        return name
    raise ModelNotFoundError(
        f"{name!r} is neither a folder nor a built-in model "
        f"({', '.join(built_in_models())}) nor a Hub id (owner/name)"
    )


def get_file(
    source,
    filename,
    savedir=None,
    local_strategy=LocalStrategy.COPY,
    fetch_config=FetchConfig(),  # noqa: B008 (frozen, as SpeechBrain has it)
):
    """A file of a model, downloaded if need be.

    Arguments
    ---------
    source : str or Path
        A local folder, the name of a built-in model, or a Hub id.
    filename : str
        In the source.
    savedir : str or None
        Where to keep files of a Hub model; None for the Hub's cache.
    local_strategy : LocalStrategy
        How files get into `savedir`.
    fetch_config : FetchConfig
        SpeechBrain's options for downloads.

    Returns
    -------
    Path
    """
    place = resolve_source(source)
    try:
        return fetch(
            filename,
            place,
            savedir=savedir,
            local_strategy=local_strategy,
            fetch_config=fetch_config,
        )
    # the Hub's client has an exception for every way of failing
    except Exception as error:
        raise ModelNotFoundError(
            f"cannot get {filename} of {str(source)!r}: {error}. "
            f"Built-in models: {', '.join(built_in_models())}"
        ) from error


def check_safe(text):
    """Refuses YAML that would run more than the codec's constructors.

    Arguments
    ---------
    text : str
        HyperPyYAML.
    """
    try:
        events = list(yaml.parse(text))
    except yaml.YAMLError as error:
        raise UnsafeModelError(f"not valid YAML: {error}") from error
    for event in events:
        tag = getattr(event, "tag", None)
        if tag is None:
            continue
        tag = tag.removeprefix("!")
        if tag not in ("ref", "copy") and not SAFE_OBJECT.fullmatch(tag):
            raise UnsafeModelError(
                f"line {event.start_mark.line + 1}: a model may not use "
                f"!{tag}, only !ref, !copy and !new of the codec's own classes"
            )


def load_weights(module, path):
    """Loads safetensors into a module, strictly.

    Arguments
    ---------
    module : torch.nn.Module
        Changed in place.
    path : str or Path
        File; its metadata may state `mel_settings` as JSON, which must be
        the module's.
    """
    try:
        with safe_open(str(path), framework="pt") as file:
            metadata = file.metadata() or {}
        state = load_file(str(path))
    except SafetensorError as error:
        raise WeightsMismatchError(
            f"{path} is no safetensors file, or a damaged one: {error}"
        ) from error
    if "mel_settings" in metadata:
        stored = MelSettings(**json.loads(metadata["mel_settings"]))
        module.mel_settings.check_same(stored, names=("model", str(path)))
    expected = module.state_dict()
    missing = sorted(expected.keys() - state.keys())
    unexpected = sorted(state.keys() - expected.keys())
    shapes = [
        f"{name}: expected {list(expected[name].shape)}, found "
        f"{list(state[name].shape)}"
        for name in sorted(expected.keys() & state.keys())
        if expected[name].shape != state[name].shape
    ]
    if missing or unexpected or shapes:
        raise WeightsMismatchError(
            f"{path} does not fit the model: missing {missing[:5]}, "
            f"unexpected {unexpected[:5]}, shapes {shapes[:5]}"
        )
    module.load_state_dict(state)
