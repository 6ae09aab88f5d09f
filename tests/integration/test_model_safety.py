"""Every door through which a stranger's model folder comes in."""

import shutil
from pathlib import Path

import pytest
import soundfile
from bigvgan_checkpoints import V2_24K, save_checkpoint, shrunk
from corpus import speech_like
from tiny_model import make_tiny_model
from yaml_attacks import ATTACKS, TUPLE

from speechbrain_flowmac.cli import main
from speechbrain_flowmac.evaluation.systems.base import UnavailableError
from speechbrain_flowmac.evaluation.systems.flowmac import FlowMACSystem

DOORS = ["tag: apply", "tuple: double quotes", "reference: pieces"]


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    return make_tiny_model(tmp_path_factory.mktemp("tiny") / "model")


@pytest.fixture(params=DOORS)
def attacked(request, tiny, tmp_path, monkeypatch):
    """Name of a model folder that would make the file `ran` beside it."""
    monkeypatch.chdir(tmp_path)
    Path("audio").mkdir()
    soundfile.write("audio/speech.wav", speech_like(0.3, 0), 24000)
    shutil.copytree(tiny, "model")
    with open("model/hyperparams.yaml", "a") as file:
        file.write(ATTACKS[request.param].replace("MARKER", "ran"))
    return "model"


@pytest.mark.parametrize(
    "command",
    [
        "encode audio/speech.wav -o out.fmac --model model",
        "decode audio/speech.fmac -o out.wav --model model",
        "export model model out",
        "export flowmac-24khz-3kbps model out",
    ],
)
def test_commands_run_nothing_of_a_model(attacked, command, capsys):
    assert main(["encode", "audio/speech.wav"]) == 0
    assert main(command.split()) != 0
    assert "hyperparams.yaml, line" in capsys.readouterr().err
    assert not Path("ran").exists() and not list(Path().glob("out*"))


def test_evaluation_runs_nothing_of_a_model(attacked):
    with pytest.raises(UnavailableError, match="hyperparams.yaml, line"):
        FlowMACSystem("flowmac:model=model", model=attacked)
    assert not Path("ran").exists()


def test_export_runs_nothing_of_a_training_folder(tiny, tmp_path, capsys):
    marker = tmp_path / "ran"
    folder = shutil.copytree(tiny, tmp_path / "training")
    path = folder / "hyperparams.yaml"
    attack = TUPLE.replace("MARKER", str(marker))
    text = path.read_text()
    assert text.count("head: ") == 1
    path.write_text(text.replace("head: ", f"x: '{attack}'\n    head: "))
    out = tmp_path / "out"
    assert main(["export", str(tiny), str(folder), str(out)]) != 0
    assert "may not use tuples" in capsys.readouterr().err
    assert not marker.exists() and not out.exists()


def test_export_runs_nothing_of_a_checkpoint(tiny, tmp_path, capsys):
    marker = tmp_path / "ran"
    config = {**shrunk(V2_24K), "fmin": TUPLE.replace("MARKER", str(marker))}
    vocoder = save_checkpoint(tmp_path / "vocoder", config)
    out = tmp_path / "out"
    assert main(["export", str(tiny), str(vocoder), str(out)]) != 0
    assert "may not use tuples" in capsys.readouterr().err
    assert not marker.exists() and not out.exists()
