"""Model folders that strangers made: loaded whole, or refused with a reason."""

import inspect
import json
import os
import shutil

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from speechbrain.inference.interfaces import (
    Pretrained,
    pretrained_from_hparams,
)
from speechbrain.utils.fetching import (
    FetchConfig,
    FetchFrom,
    FetchSource,
    LocalStrategy,
)
from tiny_model import make_tiny_model
from yaml_attacks import TUPLE

import speechbrain_flowmac.models.loading as loading
from speechbrain_flowmac import FlowMACCodec
from speechbrain_flowmac.lobes.features import MelMismatchError
from speechbrain_flowmac.models.loading import (
    ModelNotFoundError,
    WeightsMismatchError,
)
from speechbrain_flowmac.models.safe_yaml import (
    InvalidModelError,
    UnsafeModelError,
)

NAMES = ("codec", "vocoder")


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    return make_tiny_model(tmp_path_factory.mktemp("tiny"))


@pytest.fixture
def model(tiny, tmp_path):
    """A copy of the model folder, to spoil."""
    return shutil.copytree(tiny, tmp_path / "model")


def load(folder, **options):
    options = {"run_opts": {"device": "cpu"}, **options}
    return FlowMACCodec.from_hparams(folder, **options)


def append(folder, text):
    path = folder / "hyperparams.yaml"
    path.write_text(path.read_text() + text)


# the YAML


def test_errors_name_file_and_line(model):
    marker = model / "ran"
    lines = (model / "hyperparams.yaml").read_text().count("\n")
    append(model, f"extra: {TUPLE.replace('MARKER', str(marker))}\n")
    place = f"{model}/hyperparams.yaml, line {lines + 1}: "
    with pytest.raises(UnsafeModelError) as caught:
        load(model)
    assert str(caught.value).startswith(place)
    assert not marker.exists()


@pytest.mark.parametrize(
    "content",
    [b"", b"[codec, vocoder]", "codec: é".encode("latin-1"), b"codec: 1\n"],
)
def test_yaml_that_is_no_model_is_refused(model, content):
    (model / "hyperparams.yaml").write_bytes(content)
    with pytest.raises(InvalidModelError):
        load(model)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(
    "value", ["1", "!new:speechbrain_flowmac.lobes.solvers.Euler"]
)
def test_parts_must_be_networks(model, name, value):
    other = {"codec": "vocoder", "vocoder": "codec"}[name]
    path = model / "hyperparams.yaml"
    path.write_text(path.read_text().replace(f"\n{name}: ", "\nunused: "))
    append(model, f"{name}: {value}\n")
    with pytest.raises(InvalidModelError, match=f"^{name} must be a network"):
        load(model)
    path.write_text(path.read_text().replace(f"{other}: ", "another: "))
    with pytest.raises(InvalidModelError, match="^codec must be a network"):
        load(model)


@pytest.mark.parametrize(
    "key", ["device", "compile", "distributed_launch", "audio_normalizer"]
)
def test_a_model_does_not_choose_how_it_is_run(model, key):
    append(model, f"{key}: null\n")
    with pytest.raises(UnsafeModelError, match=f"may not set '{key}'"):
        load(model)


def test_duplicate_keys_are_refused(model):
    append(model, "codec: 1\n")
    with pytest.raises(InvalidModelError, match="'codec' is there twice"):
        load(model)


@pytest.mark.parametrize(
    "name", ["hyperparams.yaml", "codec.safetensors", "vocoder.safetensors"]
)
@pytest.mark.parametrize("kind", ["pipe", "device", "folder"])
def test_only_files_are_read(model, name, kind):
    path = model / name
    path.unlink()
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "device":
        path.symlink_to("/dev/zero")
    else:
        path.mkdir()
    with pytest.raises(ModelNotFoundError, match=f"no file {name}"):
        load(model)


# the weights


def change(folder, name, metadata=None, **tensors):
    """Writes other tensors or metadata into a file of weights."""
    path = folder / f"{name}.safetensors"
    with safe_open(path, "pt") as file:
        kept = file.metadata()
    state = {**load_file(path), **tensors}
    save_file(state, path, metadata={**kept, **(metadata or {})})
    return path


def first_matrix(folder, name):
    state = load_file(folder / f"{name}.safetensors")
    return next((k, v) for k, v in state.items() if v.ndim == 2)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("value", [float("inf"), -float("inf"), float("nan")])
def test_weights_must_be_finite(model, name, value):
    key, tensor = first_matrix(model, name)
    tensor[-1, -1] = value
    path = change(model, name, **{key: tensor})
    with pytest.raises(WeightsMismatchError, match="not finite") as caught:
        load(model)
    assert str(caught.value).startswith(f"{path}: {key} ")


def test_weights_must_be_finite_as_the_model_holds_them(model):
    key, tensor = first_matrix(model, "codec")
    change(model, "codec", **{key: tensor.double() + 1e300})
    with pytest.raises(WeightsMismatchError, match="not finite"):
        load(model)


@pytest.mark.parametrize("dtype", [torch.float16, torch.float64])
def test_floats_of_other_sizes_are_taken(model, dtype):
    key, tensor = first_matrix(model, "vocoder")
    change(model, "vocoder", **{key: tensor.to(dtype)})
    found = load(model).vocoder.state_dict()[key]
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, tensor.to(dtype).float())


@pytest.mark.parametrize("dtype", [torch.int64, torch.bool, torch.complex64])
def test_numbers_of_other_kinds_are_refused(model, dtype):
    key, tensor = first_matrix(model, "codec")
    change(model, "codec", **{key: tensor.to(dtype)})
    with pytest.raises(WeightsMismatchError, match=f"{key}: expected torch"):
        load(model)


@pytest.mark.parametrize(
    "stated",
    [
        "",
        "no json",
        "[1, 2]",
        "null",
        '{"sample_rate": 24000, "colour": "red"}',
        '{"sample_rate": "24000"}',
        '{"sample_rate": null}',
        '{"hop_length": 511}',
        '{"n_mels": ' * 5000,
        "[" * 100_000,
    ],
)
def test_bad_mel_settings_are_refused(model, stated):
    path = change(model, "codec", metadata={"mel_settings": stated})
    with pytest.raises(WeightsMismatchError, match="mel_settings") as caught:
        load(model)
    assert str(path) in str(caught.value)


def test_other_mel_settings_are_refused(model):
    stated = json.dumps({"f_max": 8000.0})
    change(model, "vocoder", metadata={"mel_settings": stated})
    with pytest.raises(MelMismatchError, match="8000.0"):
        load(model)


def test_weights_without_mel_settings_are_taken(model):
    path = model / "codec.safetensors"
    save_file(load_file(path), path)
    assert load(model).num_codebooks == 8


# how its user changes it


@pytest.mark.parametrize(
    "overrides",
    [
        {"sampling": {"n_steps": 4}},
        {"codec": {"sampling": {"n_steps": 4}}},
        "sampling: {n_steps: 4}",
    ],
)
def test_sampling_is_overridden_at_the_top(model, overrides):
    codec = load(model, overrides=overrides)
    assert codec.codec.sampling.n_steps == 4
    assert codec.hparams.sampling is codec.codec.sampling


def test_overrides_must_match(model):
    with pytest.raises(KeyError, match="n_steps"):
        load(model, overrides={"n_steps": 4})
    codec = load(model, overrides={"n_steps": 4}, overrides_must_match=False)
    assert codec.hparams.n_steps == 4


def test_the_user_may_set_what_a_model_may_not(model):
    codec = load(
        model,
        overrides={"precision": "fp16"},
        overrides_must_match=False,
    )
    assert codec.precision == "fp16"


# where it comes from


@pytest.fixture
def hub(tiny, monkeypatch):
    """Files asked for from a Hub that has one model, and how."""
    asked, real = [], loading.fetch

    def fetch(filename, source, fetch_config, **options):
        if source == "someone/model":
            asked.append((filename, fetch_config, options))
            source = str(tiny)
        return real(filename, source, fetch_config=fetch_config, **options)

    monkeypatch.setattr(loading, "fetch", fetch)
    return asked


def test_downloads_take_the_options_of_speechbrain(hub, tmp_path):
    codec = load(
        "someone/model",
        savedir=tmp_path / "saved",
        fetch_config=FetchConfig(allow_updates=True),
        revision="v1.0",
        huggingface_cache_dir="cache",
        token=True,
    )
    assert codec.num_codebooks == 8
    assert len(hub) == 3 and len(list((tmp_path / "saved").iterdir())) == 3
    for _, config, options in hub:
        assert config == FetchConfig(
            allow_updates=True,
            revision="v1.0",
            huggingface_cache_dir="cache",
            token=True,
        )
        assert options["local_strategy"] == LocalStrategy.COPY


@pytest.mark.parametrize("vocoder", [True, False])
def test_download_only_gets_the_files_and_builds_nothing(
    hub, tmp_path, vocoder
):
    saved = tmp_path / "saved"
    options = {"savedir": saved, "download_only": True, "vocoder": vocoder}
    assert load("someone/model", **options) is None
    expected = {"hyperparams.yaml", "codec.safetensors"}
    expected |= {"vocoder.safetensors"} if vocoder else set()
    assert {path.name for path in saved.iterdir()} == expected
    if vocoder:
        assert load(saved).num_codebooks == 8


def test_a_refused_yaml_is_all_that_is_downloaded(hub):
    with pytest.raises(KeyError):
        load("someone/model", overrides={"no such key": 1})
    assert [name for name, *_ in hub] == ["hyperparams.yaml"]


@pytest.mark.parametrize(
    "option", ["use_auth_token", "pymodule_file", "freeze_param", "kwargs"]
)
def test_options_that_are_not_taken_are_named(tiny, option):
    with pytest.raises(TypeError, match=f"takes no {option};.*revision"):
        load(tiny, **{option: None})


def test_every_argument_of_speechbrain_is_taken():
    ours = inspect.signature(FlowMACCodec.from_hparams).parameters
    theirs = inspect.signature(pretrained_from_hparams).parameters
    assert set(theirs) - {"cls", "kwargs"} <= set(ours)
    init = inspect.signature(Pretrained.__init__).parameters
    assert set(init) - {"self", "modules", "hparams"} <= set(ours)


def test_sources_of_speechbrain_are_taken(tiny, hub):
    for kind, path in (
        (FetchFrom.LOCAL, str(tiny)),
        (FetchFrom.HUGGING_FACE, "someone/model"),
    ):
        assert load(FetchSource(kind, path)).num_codebooks == 8
    assert len(hub) == 3
    for kind, path in (
        (FetchFrom.LOCAL, "someone/model"),
        (FetchFrom.URI, "https://example.com/model"),
    ):
        with pytest.raises(ModelNotFoundError):
            load(FetchSource(kind, path))
    assert len(hub) == 3
