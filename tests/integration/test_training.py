"""Trainings of every YAML: to the end, killed, on two ranks, and refused."""

import math
import os
import re
import shutil
import signal
import subprocess
import sys

import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import (
    EventAccumulator,
)
from training_runs import (
    DEBUG,
    HPARAMS,
    LIMIT_SECONDS,
    ROOT,
    Training,
    arguments,
    model_name,
    recipe,
    train_one_model,
)

KINDS = ["codec", "vocoder"]
FILES = [
    "env.log",
    "hyperparams.yaml",
    "log.txt",
    "test.json",
    "train.json",
    "train.py",
    "train_log.txt",
    "valid.json",
]


def numbers(text):
    """All numbers after a colon or a name, as `train_log.txt` has them."""
    found = re.findall(r": ([-+.\w]+)", text)
    return [float(number) for number in found]


# Every YAML


@pytest.mark.parametrize("yaml", HPARAMS, ids=lambda yaml: yaml.stem)
def test_every_yaml_trains(yaml, debug_training):
    training = debug_training(yaml)
    folder = training.output
    assert [n for n in FILES if not (folder / n).is_file()] == []
    assert [step for step, _ in training.steps] == [1, 2, 3, 4]
    lines = (folder / "train_log.txt").read_text().splitlines()
    starts = ["epoch: 1, step: 2,", "epoch: 2, step: 4,", "epoch loaded: "]
    assert len(lines) == len(starts)
    for line, start in zip(lines, starts, strict=True):
        assert line.startswith(start)
        assert all(map(math.isfinite, numbers(line))), line
    assert list(folder.glob("save/CKPT*"))
    if model_name(yaml) == "vocoder":
        joined = ["discriminator" in losses for _, losses in training.steps]
        assert joined == [False, True, True, True]


@pytest.mark.parametrize(
    "kind, scalars, images, sounds",
    [
        (
            "codec",
            ["train/flow", "valid/mel_l1_sampled", "codebooks/perplexity_0"],
            ["valid/mel"],
            [],
        ),
        (
            "vocoder",
            ["train/mel", "train/discriminator", "valid/mel"],
            ["valid/mel"],
            ["valid/original", "valid/vocoded"],
        ),
    ],
)
def test_tensorboard_shows_it(
    kind, scalars, images, sounds, light, debug_training
):
    training = debug_training(light[kind])
    board = EventAccumulator(
        str(training.output.parent / "board" / light[kind].stem)
    ).Reload()
    tags = board.Tags()
    assert set(scalars) <= set(tags["scalars"])
    assert tags["images"] == images
    assert sorted(tags["audio"]) == sounds
    steps = [event.step for event in board.Scalars(scalars[0])]
    assert steps == [1, 2, 3, 4]
    assert [event.step for event in board.Images(images[0])] == [2, 4]
    for name in sounds:
        assert [event.step for event in board.Audio(name)] == [2, 4]
        assert {event.sample_rate for event in board.Audio(name)} == {24000}


# Killed


@pytest.mark.skipif(os.name == "nt", reason="no SIGKILL")
@pytest.mark.parametrize("kind", KINDS)
def test_killed_training_goes_on_to_the_same_losses(
    kind, corpus, tmp_path, light
):
    options = {
        "batch_size": 1,  # 4 steps an epoch
        "total_steps": 14,
        "decay_steps": 4,
        "valid_interval": 2,
        "ckpt_interval_steps": 2,
        "ckpt_interval_minutes": 0,
    }
    if kind == "vocoder":
        options["adversarial_start"] = 3
    yaml, whole, parts = light[kind], tmp_path / "whole", tmp_path / "parts"
    reference = Training(yaml, corpus, whole, **options).check()
    # step 11 is the third of its epoch, one after a checkpoint
    killed = Training(yaml, corpus, parts, kill_at=11, **options)
    assert killed.wait() == -signal.SIGKILL
    assert killed.steps[-1][0] == 11
    resumed = Training(yaml, corpus, parts, **options).check()
    steps = [step for step, _ in resumed.steps]
    assert steps == [*range(1, 12), *range(11, 15)]
    # all digits that are printed, before and after
    assert dict(resumed.steps) == dict(reference.steps)
    assert resumed.steps[10] == resumed.steps[11]
    logs = [(f / "train_log.txt").read_text() for f in (whole, parts)]
    assert logs[0] == logs[1]


# Several ranks


@pytest.mark.parametrize("kind", KINDS)
def test_ranks_train_one_model_with_their_own_noise(
    kind, corpus, tmp_path, light
):
    options = {"adversarial_start": 1} if kind == "vocoder" else {}
    first, second = train_one_model(
        light[kind], corpus, tmp_path / "run", batch_size=1, **options
    )
    if kind == "codec":
        assert any("_codebook.embed" in name for name in first["averaged"])
    assert torch.equal(first["common"], second["common"])
    assert not torch.equal(first["noise"], second["noise"])


def test_torchrun_starts_the_recipe(corpus, tmp_path, light):
    yaml = light["codec"]
    command = [
        *(sys.executable, "-m", "torch.distributed.run"),
        *("--standalone", "--nproc_per_node=2", str(recipe(yaml))),
        *arguments(
            yaml,
            corpus,
            tmp_path / "run",
            batch_size=1,
            distributed_backend="gloo",
            **DEBUG,
        ),
    ]
    result = subprocess.run(
        command,
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=LIMIT_SECONDS,
    )
    assert result.returncode == 0, result.stdout + result.stderr
    log = (tmp_path / "run" / "train_log.txt").read_text()
    # one rank writes: 4 utterances by 2 ranks are 2 steps an epoch
    assert [line.split(" - ")[0][:17] for line in log.splitlines()[:2]] == [
        "epoch: 1, step: 2",
        "epoch: 2, step: 4",
    ]
    assert log.count("test loss") == 1


# From where people start it


def test_a_copied_recipe_trains_and_is_stopped_by_its_limit(
    corpus, tmp_path, light
):
    folder = tmp_path / "mine"
    shutil.copytree(recipe(light["codec"]).parent, folder)  # follows links
    yaml = folder / "hparams" / "my.yaml"
    yaml.parent.mkdir()
    shutil.copy(light["codec"], yaml)
    options = arguments(
        light["codec"], corpus, "results", optimizer_step_limit=3
    )
    elsewhere = [str(ROOT / "recipes"), str(ROOT / "recipes" / "LibriTTS")]
    result = subprocess.run(
        [sys.executable, "train.py", "hparams/my.yaml", *options[1:]],
        cwd=folder,
        env={
            **os.environ,
            "OMP_NUM_THREADS": "1",
            "PYTHONPATH": os.pathsep.join(
                path for path in sys.path if path not in elsewhere
            ),
        },
        capture_output=True,
        text=True,
        timeout=LIMIT_SECONDS,
    )
    assert result.returncode == 0, result.stdout + result.stderr
    log = (folder / "results" / "train_log.txt").read_text()
    assert "epoch: 2, step: 3," in log


# Refused


@pytest.mark.parametrize("kind", KINDS)
def test_misspelt_data_folder_is_told_in_one_message(kind, tmp_path, light):
    data = tmp_path / "LibriTTSS"
    training = Training(light[kind], data, tmp_path / "run", debug=True)
    assert training.wait() == 1
    last = training.text.strip().splitlines()[-1]
    assert "LibriTTS splits not found: train-clean-100, dev-clean" in last
    assert str(data) in last and "--data_folder=" in last
    assert not data.exists()


def test_unknown_option_is_refused(corpus, tmp_path, light):
    training = Training(
        light["codec"], corpus, tmp_path / "run", debug=True, bach_size=2
    )
    assert training.wait() == 1
    assert "bach_size" in training.text.strip().splitlines()[-1]
    assert not (tmp_path / "run").exists()
