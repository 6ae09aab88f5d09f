"""What recipes do with a command line before anything is trained."""

import os
import shutil
import sys
from types import SimpleNamespace

import pytest
import torch
from speechbrain.utils.checkpoints import Checkpointer
from torch.optim.swa_utils import AveragedModel
from training_runs import HPARAMS, ROOT

from speechbrain_flowmac.lobes.ctc_recogniser import (
    CTCRecogniser,
    LSTMEncoder,
    MelFrontEnd,
)
from speechbrain_flowmac.lobes.semantic_features import RecogniserFeatures
from speechbrain_flowmac.training.experiment import (
    find_yaml,
    load,
    start_semantics,
)

RECIPES = ROOT / "recipes" / "LibriTTS"


@pytest.fixture
def yaml(tmp_path):
    """A YAML that makes nothing."""
    path = tmp_path / "some.yaml"
    path.write_text("seed: 1\ntotal_steps: 10\n")
    return path


@pytest.mark.parametrize("task", ["codec", "vocoder"])
@pytest.mark.parametrize("path", HPARAMS, ids=lambda path: path.stem)
def test_yaml_is_found_from_the_folder_of_a_recipe(path, task, monkeypatch):
    monkeypatch.chdir(RECIPES / task)
    monkeypatch.setattr(sys, "argv", ["train.py"])
    found = find_yaml(f"hparams/{path.name}")
    assert os.path.samefile(found, path)


def test_yaml_is_found_from_anywhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", [str(RECIPES / "codec" / "train.py")])
    found = find_yaml("hparams/flowmac.yaml")
    assert os.path.samefile(found, ROOT / "hparams" / "flowmac.yaml")


def test_ones_own_yaml_comes_first(tmp_path, monkeypatch):
    own = tmp_path / "hparams" / "flowmac.yaml"
    own.parent.mkdir()
    shutil.copy(ROOT / "hparams" / "flowmac.yaml", own)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", [str(RECIPES / "codec" / "train.py")])
    assert os.path.samefile(find_yaml("hparams/flowmac.yaml"), own)
    assert os.path.samefile(find_yaml(str(own)), own)


def test_a_yaml_that_is_nowhere_is_told_with_the_places(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", [str(RECIPES / "codec" / "train.py")])
    with pytest.raises(FileNotFoundError) as error:
        find_yaml("hparams/flowmak.yaml")
    for part in ("hparams/flowmak.yaml", tmp_path, RECIPES / "codec"):
        assert str(part) in str(error.value)


def test_an_option_given_twice_is_named(tmp_path):
    yaml = tmp_path / "a.yaml"
    yaml.write_text("lr: 1\nbatch_size: 2\n")
    assert load([str(yaml), "--lr=3"]).hparams["lr"] == 3
    with pytest.raises(ValueError, match="more than once: --lr$"):
        load([str(yaml), "--lr=3", "--batch_size=4", "--lr=5"])


def test_an_option_that_the_yaml_has_not_is_refused_with_its_nearest(tmp_path):
    yaml = tmp_path / "a.yaml"
    yaml.write_text("lr: 1\nnum_codebooks: 8\nmade: !apply:os.abort\n")
    with pytest.raises(ValueError, match=r"no key num_codebook; .*_codebooks"):
        load([str(yaml), "--num_codebook=4"])


def test_text_of_a_fixed_frame_rate_is_not_said_at_another():
    with pytest.raises(ValueError, match="no key frame_rate$"):
        load(["hparams/tts_tokens.yaml", "--frame_rate=8"])


def test_a_value_of_several_lines_is_one_option(tmp_path):
    yaml = tmp_path / "a.yaml"
    yaml.write_text("sizes: {mlp: {dim: 1}, mixer: {dim: 1}}\n")
    found = load([str(yaml), "--sizes={mlp: {dim: 4},\n    mixer: {dim: 8}}"])
    assert found.hparams["sizes"]["mixer"]["dim"] == 8


@pytest.mark.parametrize(
    "option", [["--jit"], ["--jit_module_keys", "codec"]], ids=lambda o: o[0]
)
def test_torchscript_is_refused(yaml, option):
    with pytest.raises(ValueError, match="--jit"):
        load([str(yaml), *option])


@pytest.mark.parametrize(
    "option",
    [["--optimizer_step_limit=70"], ["--optimizer_step_limit", "70"]],
    ids=len,
)
def test_a_limit_of_steps_is_a_number(yaml, option):
    experiment = load([str(yaml), *option])
    assert experiment.run_opts.optimizer_step_limit == 70
    assert experiment.hparams == {"seed": 1, "total_steps": 10}


def test_a_limit_of_steps_that_is_no_number_is_refused(yaml):
    with pytest.raises(ValueError, match="seventy"):
        load([str(yaml), "--optimizer_step_limit=seventy"])


def test_a_semantic_codec_gets_its_recogniser(tmp_path):
    def recogniser():
        return CTCRecogniser(MelFrontEnd(10, 8), LSTMEncoder(8, 1), 8, 29)

    trained = AveragedModel(recogniser())
    Checkpointer(tmp_path / "save", {"ema": trained}).save_checkpoint(
        meta={"loss": 1.0}
    )
    semantic = RecogniserFeatures(recogniser(), dim=8)
    hparams = {"codec": SimpleNamespace(semantic=semantic)}
    before = {k: v.clone() for k, v in semantic.state_dict().items()}
    for nothing in ({}, {"semantic_folder": None}):
        start_semantics(hparams | nothing)
    for name, value in semantic.state_dict().items():
        assert torch.equal(value, before[name])
    start_semantics(hparams | {"semantic_folder": tmp_path})
    for name, value in trained.module.state_dict().items():
        assert torch.equal(value, semantic.recogniser.state_dict()[name])
