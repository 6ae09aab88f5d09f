"""From trainings to a model folder, and folders that must not load."""

import json
import os
import shutil
from pathlib import Path

import pytest
import torch
from corpus import speech_like
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from speechbrain.utils.checkpoints import Checkpointer
from torch.optim.swa_utils import AveragedModel
from training_runs import Training

import speechbrain_flowmac.models.loading as loading
from speechbrain_flowmac import FlowMACCodec
from speechbrain_flowmac.lobes.features import MelMismatchError, MelSettings
from speechbrain_flowmac.models.export import ExportError, export
from speechbrain_flowmac.models.importers.training_folder import (
    averaged_weights,
)
from speechbrain_flowmac.models.loading import (
    ModelNotFoundError,
    WeightsMismatchError,
)
from speechbrain_flowmac.models.safe_yaml import UnsafeModelError

NAMES = ("codec", "vocoder")
BUILT_IN = "flowmac-24khz-3kbps"
HPARAMS_FOLDER = Path(__file__).parents[2] / "hparams"
FILES = {"hyperparams.yaml", "codec.safetensors", "vocoder.safetensors"}


@pytest.fixture(scope="module")
def trainings(light, debug_training):
    """Folders of a trained codec and a trained vocoder."""
    return {name: debug_training(light[name]).output for name in NAMES}


@pytest.fixture(scope="module")
def exported(trainings, tmp_path_factory):
    """A model folder made from them."""
    folder = tmp_path_factory.mktemp("exported") / "model"
    export(trainings["codec"], trainings["vocoder"], folder)
    return folder


@pytest.fixture
def model(exported, tmp_path):
    """A copy of the model folder, to spoil."""
    return shutil.copytree(exported, tmp_path / "model")


def load(folder):
    return FlowMACCodec.from_hparams(folder, run_opts={"device": "cpu"})


def contents(folder):
    """Bytes of all files below a folder."""
    files = (path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder): path.read_bytes() for path in files}


# What is exported


def test_exported_model_codes(exported):
    codec = load(exported)
    wav = torch.from_numpy(speech_like(1.0, seed=9))[None]
    tokens, lengths = codec.encode_batch(wav)
    assert tokens.shape == (1, 47, 8) and lengths.tolist() == [47]
    assert len(tokens.unique()) > 1
    decoded = codec.decode_batch(tokens)
    assert decoded.shape == (1, 47 * 512)
    assert torch.isfinite(decoded).all() and decoded.abs().max() > 0
    assert not any(module.training for module in codec.mods.modules())
    assert not any(p.requires_grad for p in codec.parameters())


@pytest.mark.parametrize("name", NAMES)
def test_training_starts_from_an_exported_model(
    name, light, corpus, exported, tmp_path
):
    training = Training(
        light[name],
        corpus,
        tmp_path / name,
        debug=True,
        debug_persistently=True,
        pretrained=exported,
        lr=0.0,
    ).check()
    stored = load_file(exported / f"{name}.safetensors")
    trained = averaged_weights(training.output)
    # codebooks follow the data, whatever the learning rate
    names = [key for key in stored if "quantizer" not in key]
    assert len(names) > 10
    for key in names:
        assert torch.equal(trained[key].float(), stored[key].float()), key


def test_vocoder_trains_on_the_mels_of_a_codec(
    light, corpus, exported, tmp_path
):
    losses = [
        Training(
            light["vocoder"],
            corpus,
            tmp_path / name,
            debug=True,
            debug_persistently=True,
            **options,
        )
        .check()
        .steps
        for name, options in {"true": {}, "coded": {"codec": exported}}.items()
    ]
    assert len(losses[0]) == len(losses[1]) == 4
    assert losses[0] != losses[1]


def test_export_returns_what_is_loaded_later(trainings, exported, tmp_path):
    again = export(*trainings.values(), tmp_path / "deep" / "model")
    assert again.fingerprint == load(exported).fingerprint
    same = [
        load_file(folder / "vocoder.safetensors")
        for folder in (exported, tmp_path / "deep" / "model")
    ]
    assert same[0].keys() == same[1].keys()
    assert all(torch.equal(same[0][k], same[1][k]) for k in same[0])


def test_weights_are_the_averaged_ones(trainings, exported):
    codec = load(exported)
    for name in NAMES:
        averaged = averaged_weights(trainings[name])
        found = codec.mods[name].state_dict()
        assert found.keys() == averaged.keys()
        for key, value in averaged.items():
            if "_codebook" in key or value.ndim < 2:
                assert torch.equal(found[key], value), key
            else:
                torch.testing.assert_close(
                    found[key], value, rtol=2**-11, atol=2**-25
                )


def test_averaged_weights_are_not_the_last_ones(trainings):
    for name in NAMES:
        best = Checkpointer(trainings[name] / "save").find_checkpoint(
            min_key="loss"
        )
        last = torch.load(best.path / f"{name}.ckpt", weights_only=True)
        averaged = averaged_weights(trainings[name])
        assert last.keys() == averaged.keys()
        assert any(not torch.equal(last[k], v) for k, v in averaged.items())


def test_statistics_of_the_data_are_in_the_model(trainings, exported):
    text = (trainings["codec"] / "mel_statistics.json").read_text()
    normalizer = load(exported).codec.normalizer
    for name in ("mean", "std"):
        expected = json.loads(text)[name]
        assert getattr(normalizer, name).item() == pytest.approx(expected)


def test_folder_holds_the_model_and_nothing_else(trainings, exported):
    assert {path.name for path in exported.iterdir()} == {*FILES, "README.md"}
    assert not list(exported.parent.glob(".export*"))
    text = (exported / "hyperparams.yaml").read_text()
    for word in (
        "data_folder",
        "opt_class",
        "seed:",
        "#",
        str(exported.parent),
    ):
        assert word not in text
    for name in NAMES:
        with safe_open(exported / f"{name}.safetensors", "pt") as file:
            settings = json.loads(file.metadata()["mel_settings"])
        assert MelSettings(**settings) == MelSettings()
    card = (exported / "README.md").read_text()
    for folder in trainings.values():
        log = (folder / "train_log.txt").read_text().splitlines()
        assert log[-1] in card


def test_a_flow_of_another_package_is_not_imported(tmp_path, monkeypatch):
    (tmp_path / "stranger.py").write_text("raise SystemExit('imported')")
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "hyperparams.yaml").write_text(
        "codec: !new:speechbrain_flowmac.codec.FlowMAC\n"
        "    flow: !new:stranger.Flow\n        steps: 1\n"
    )
    with pytest.raises(UnsafeModelError, match="stranger.Flow"):
        export(tmp_path, BUILT_IN, tmp_path / "model")


@pytest.mark.parametrize("yaml", ["flowmac_distilled", "flowmac_meanflow"])
def test_what_only_training_needs_stays_behind(yaml, debug_training, tmp_path):
    """A student goes without its teacher, and samples as it did with him."""
    trained = debug_training(HPARAMS_FOLDER / f"{yaml}.yaml").output
    exported = export(trained, BUILT_IN, tmp_path / "model")
    state = averaged_weights(trained)
    extra = f"flow.{exported.codec.flow.extra_field}."
    kept = {name for name in state if not name.startswith(extra)}
    if yaml == "flowmac_distilled":
        assert len(kept) < len(state)
    assert kept == set(load_file(tmp_path / "model" / "codec.safetensors"))
    tokens = torch.zeros(1, 5, 8, dtype=torch.int64)
    assert torch.isfinite(exported.decode_batch(tokens, n_steps=2)).all()
    noise = torch.zeros(1, 4, 100)
    if yaml == "flowmac_distilled":
        with pytest.raises(ValueError, match="teacher"):
            exported.codec.flow(noise, noise, None, torch.Generator())


def test_the_best_checkpoint_is_exported(tmp_path):
    layer = AveragedModel(torch.nn.Linear(2, 2))
    checkpointer = Checkpointer(tmp_path / "save", {"ema": layer})

    def save(value, **meta):
        layer.module.weight.data.fill_(value)
        checkpointer.save_checkpoint(meta=meta, end_of_epoch=bool(meta))

    save(1.0)  # in the middle of an epoch
    with pytest.raises(ExportError, match="no validated checkpoint"):
        averaged_weights(tmp_path)
    save(2.0, loss=0.5)
    save(3.0, loss=0.7)
    save(4.0)
    weights = averaged_weights(tmp_path)
    assert weights.keys() == {"weight", "bias"}
    assert (weights["weight"] == 2.0).all()


# Exports that fail, or replace


def other_mels(training, folder):
    """A copy of a training whose YAML states another sample rate."""
    copy = shutil.copytree(training, folder)
    path = copy / "hyperparams.yaml"
    text = path.read_text()
    assert "sample_rate: 24000" in text
    path.write_text(text.replace("sample_rate: 24000", "sample_rate: 22050"))
    return copy


def test_vocoder_of_other_mels_is_refused(trainings, tmp_path):
    vocoder = other_mels(trainings["vocoder"], tmp_path / "vocoder")
    (tmp_path / "out").mkdir()
    with pytest.raises(MelMismatchError) as caught:
        export(trainings["codec"], vocoder, tmp_path / "out" / "model")
    # both sides are printed
    for part in ("codec: {'sample_rate': 24000", "vocoder: {'sample_rate': 22"):
        assert part in str(caught.value)
    assert not list((tmp_path / "out").iterdir())


def test_codec_of_other_mels_is_refused(trainings, tmp_path):
    codec = other_mels(trainings["codec"], tmp_path / "codec")
    (tmp_path / "out").mkdir()
    with pytest.raises(MelMismatchError):
        export(codec, trainings["vocoder"], tmp_path / "out" / "model")
    assert not list((tmp_path / "out").iterdir())


@pytest.mark.parametrize("lacking", ["folder", "save", "model"])
def test_unfinished_trainings_are_refused(trainings, tmp_path, lacking):
    codec, vocoder = trainings.values()
    if lacking == "folder":
        vocoder = tmp_path / "none"
    elif lacking == "model":
        vocoder = codec
    else:
        vocoder = shutil.copytree(vocoder, tmp_path / "vocoder")
        shutil.rmtree(vocoder / "save")
    (tmp_path / "out").mkdir()
    with pytest.raises(ExportError):
        export(codec, vocoder, tmp_path / "out" / "model")
    assert not list((tmp_path / "out").iterdir())
    assert lacking != "save" or not list((vocoder / "save").glob("*"))


def test_failing_export_leaves_the_old_model(trainings, model, tmp_path):
    before = contents(model)
    with pytest.raises(FileNotFoundError):
        export(*trainings.values(), model, card=tmp_path / "no card.md")
    assert contents(model) == before
    assert list(tmp_path.iterdir()) == [model]


def test_export_replaces_a_model_and_keeps_its_example(
    trainings, exported, model
):
    (model / "codec.safetensors").write_bytes(b"old")
    (model / "example.wav").write_bytes(b"sound")
    export(*trainings.values(), model)
    assert (model / "example.wav").read_bytes() == b"sound"
    assert load(model).fingerprint == load(exported).fingerprint


def test_folders_of_other_things_are_not_replaced(trainings, tmp_path):
    target = tmp_path / "thesis"
    target.mkdir()
    (target / "chapter 1.txt").write_text("years of work")
    with pytest.raises(ExportError, match="chapter 1"):
        export(*trainings.values(), target)
    assert (target / "chapter 1.txt").read_text() == "years of work"
    assert list(tmp_path.iterdir()) == [target]


# Folders that must not load


class Malicious:
    """Runs a command when it is unpickled."""

    def __init__(self, marker):
        self.marker = marker

    def __reduce__(self):
        return os.system, (f"touch {self.marker}",)


@pytest.mark.parametrize("name", NAMES)
def test_pickles_are_not_opened(model, tmp_path, name):
    marker = tmp_path / "ran"
    torch.save(Malicious(marker), model / f"{name}.safetensors")
    with pytest.raises((SafetensorError, WeightsMismatchError)):
        load(model)
    assert not marker.exists()


def spoil(state, how):
    """Changes a state dict; returns the name that is to be told."""
    name = next(key for key, value in state.items() if value.ndim == 2)
    if how == "missing":
        del state[name]
    elif how == "unexpected":
        state["something.else"] = torch.zeros(3)
        return "something.else"
    else:
        state[name] = state[name][:, :-1].contiguous()
    return name


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("how", ["missing", "unexpected", "shapes"])
def test_weights_must_fit_exactly(model, name, how):
    path = model / f"{name}.safetensors"
    state = load_file(path)
    key = spoil(state, how)
    save_file(state, path)
    with pytest.raises(
        WeightsMismatchError, match=rf"{how} \['{key}"
    ) as caught:
        load(model)
    assert str(path) in str(caught.value)


def test_broken_weights_are_refused(model):
    path = model / "vocoder.safetensors"
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises((SafetensorError, WeightsMismatchError)):
        load(model)


@pytest.mark.parametrize("stated", [True, False])
def test_other_mel_settings_are_refused(model, stated):
    path = model / "hyperparams.yaml"
    text = path.read_text()
    path.write_text(text.replace("sample_rate: 24000", "sample_rate: 22050"))
    if not stated:  # the weights themselves know
        weights = model / "codec.safetensors"
        save_file(load_file(weights), weights)
    with pytest.raises(MelMismatchError, match="sample_rate") as caught:
        load(model)
    assert "24000" in str(caught.value) and "22050" in str(caught.value)


@pytest.mark.parametrize(
    "source",
    ["no such model", "./model", "/no/such/folder", "a/b/c", "flowmak"],
)
def test_mistyped_paths_are_not_asked_for_elsewhere(source, monkeypatch):
    asked = []
    monkeypatch.setattr(loading, "fetch", lambda *a, **k: asked.append(a))
    with pytest.raises(ModelNotFoundError, match="neither a folder"):
        FlowMACCodec.from_hparams(source)
    assert not asked


@pytest.mark.parametrize("name", sorted(FILES))
def test_missing_files_are_not_asked_for_elsewhere(model, name):
    (model / name).unlink()
    with pytest.raises(FileNotFoundError, match=name) as caught:
        load(model)
    assert "tried to reach" not in str(caught.value)
