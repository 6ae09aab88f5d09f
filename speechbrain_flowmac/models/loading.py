"""Finding and loading model folders, without running what is in them."""

import json
import re
from dataclasses import fields, replace
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from speechbrain.core import RunOptions
from speechbrain.utils.fetching import (
    FetchConfig,
    FetchFrom,
    FetchSource,
    LocalStrategy,
    fetch,
)
from torch import nn

from speechbrain_flowmac.lobes.front_end import FrontEndSettings
from speechbrain_flowmac.models.description import ModelDescription
from speechbrain_flowmac.models.safe_yaml import (
    MAX_BYTES,
    InvalidModelError,
    ModelError,
)

MODELS_FOLDER = Path(__file__).parent
HPARAMS_FILE = "hyperparams.yaml"
MODULE_NAMES = ("codec", "vocoder")
HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")

# What `Pretrained` would take from a YAML: the device, compilation, ...
USERS_KEYS = {*RunOptions().as_dict(), "audio_normalizer"}


class ModelNotFoundError(FileNotFoundError):
    """A source is neither a folder, nor a built-in model, nor a Hub id."""


class WeightsMismatchError(ModelError):
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
    source : str or Path or FetchSource
        A local folder, the name of a built-in model, or a Hub id.

    Returns
    -------
    str
    """
    if isinstance(source, FetchSource):
        kind, source = source
        if kind == FetchFrom.LOCAL and not Path(source).is_dir():
            raise ModelNotFoundError(f"no such folder: {source}")
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


def with_options(fetch_config, options):
    """SpeechBrain's options for downloads, with some of them changed.

    Arguments
    ---------
    fetch_config : FetchConfig
        The options.
    options : dict
        Changes by name.

    Returns
    -------
    FetchConfig
    """
    known = [field.name for field in fields(FetchConfig)]
    unknown = sorted(set(options) - set(known))
    if unknown:
        raise TypeError(
            f"from_hparams takes no {', '.join(unknown)}; options for "
            f"downloads are {', '.join(known)}"
        )
    return replace(fetch_config, **options)


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
        found = fetch(
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
    # no pipe or device either, which would be read for ever
    if not Path(found).is_file():
        raise ModelNotFoundError(f"{source} is no model: no file {filename}")
    return found


def read_description(path):
    """The YAML of a model folder, not yet built.

    Arguments
    ---------
    path : str or Path
        The file.

    Returns
    -------
    ModelDescription
        How the model samples is at its top, also where the file has it in the
        codec.
    """
    with open(path, "rb") as file:
        description = ModelDescription(file.read(MAX_BYTES + 1), path)
    description.refuse(USERS_KEYS)
    description.lift("codec", "sampling")
    return description


def build_modules(description):
    """Builds a model with random weights.

    Arguments
    ---------
    description : ModelDescription
        Of the model.

    Returns
    -------
    tuple of dict
        All that the YAML describes, and of it the codec and the vocoder.
    """
    hparams = description.build()
    modules = {name: hparams.get(name) for name in MODULE_NAMES}
    for name, module in modules.items():
        settings = getattr(module, "mel_settings", None)
        if not (
            isinstance(module, nn.Module)
            and isinstance(settings, FrontEndSettings)
        ):
            raise InvalidModelError(
                f"{name} must be a network with mel settings, found "
                f"{type(module).__name__}"
            )
    return hparams, modules


def load_weights(module, path, adopt=None):
    """Loads safetensors into a module, strictly.

    Arguments
    ---------
    module : torch.nn.Module
        Changed in place.
    path : str or Path
        File; its metadata may state `mel_settings` as JSON, which must be
        the module's.
    adopt : callable or None
        Makes the module's state dict from the file's, where it is that of a
        related model.
    """
    try:
        with safe_open(str(path), framework="pt") as file:
            stated = (file.metadata() or {}).get("mel_settings")
            if stated is not None:
                settings = module.mel_settings
                settings.check_same(
                    _read_settings(type(settings), stated, path),
                    names=("model", str(path)),
                )
            # before anything is read: a file may hold more than a model
            outline = {name: _outline(file, name) for name in file.keys()}
            outline = outline if adopt is None else adopt(outline)
            _check_names(module.state_dict(), outline, path)
            state = {name: file.get_tensor(name) for name in file.keys()}
    except SafetensorError as error:
        raise WeightsMismatchError(
            f"{path} is no safetensors file, or a damaged one: {error}"
        ) from error
    state = state if adopt is None else adopt(state)
    for name, expected in module.state_dict().items():
        found = state[name].to(expected.dtype)
        if expected.is_floating_point() and not found.isfinite().all():
            raise WeightsMismatchError(f"{path}: {name} is not finite")
    module.load_state_dict(state)


def _read_settings(kind, text, path):
    try:
        return kind(**json.loads(text))
    # no JSON, JSON of another shape, no such settings, nested too deep
    except (ValueError, TypeError, RecursionError) as error:
        raise WeightsMismatchError(
            f"{path}: bad mel_settings in its metadata: {error}"
        ) from error


def _outline(file, name):
    """A tensor of a file without its data."""
    part = file.get_slice(name)
    dtype = torch.float32 if "F" in part.get_dtype() else torch.int64
    return torch.empty(part.get_shape(), dtype=dtype, device="meta")


def _check_names(expected, found, path):
    """Refuses tensors whose names, shapes or kinds of numbers are others."""
    missing = sorted(expected.keys() - found.keys())
    unexpected = sorted(found.keys() - expected.keys())
    shapes = []
    for name in sorted(expected.keys() & found.keys()):
        wanted, given = expected[name], found[name]
        if given.shape != wanted.shape:
            shapes.append(
                f"{name}: expected {list(wanted.shape)}, found "
                f"{list(given.shape)}"
            )
        elif wanted.is_floating_point() != given.is_floating_point():
            shapes.append(
                f"{name}: expected {wanted.dtype}, found {given.dtype}"
            )
    if missing or unexpected or shapes:
        raise WeightsMismatchError(
            f"{path} does not fit the model: missing {missing[:5]}, "
            f"unexpected {unexpected[:5]}, shapes {shapes[:5]}"
        )
