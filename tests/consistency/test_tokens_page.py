"""What docs/tokens.md shows runs as it stands there."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import soundfile
import torch
from corpus import speech_like

from speechbrain_flowmac.cli import main

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "tokens.md").read_text(encoding="utf-8")


def files():
    """Blocks that are to be saved, by their names."""
    pattern = r"<!-- file: (\S+) -->\n```\w+\n(.*?)```"
    return dict(re.findall(pattern, PAGE, re.DOTALL))


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A working folder with speech of two voices and its manifest."""
    manifest = {}
    for i in range(4):
        seconds = 0.5 + 0.2 * i
        path = tmp_path / f"{i}.wav"
        soundfile.write(path, speech_like(seconds, i % 2), 24000)
        manifest[str(i)] = {"wav": str(path), "speaker": i % 2}
    (tmp_path / "train.json").write_text(json.dumps(manifest))
    soundfile.write(tmp_path / "speech.wav", speech_like(1.0, 5), 24000)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_the_example_trains(folder):
    for name, text in files().items():
        (folder / name).write_text(text, encoding="utf-8")
    assert "python train.py speaker.yaml" in PAGE
    paths = [str(ROOT), os.environ.get("PYTHONPATH", "")]
    result = subprocess.run(
        [sys.executable, "train.py", "speaker.yaml", "--device=cpu"],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(paths)},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert result.returncode == 0, result.stderr
    losses = re.findall(r"epoch \d: loss (\S+)", result.stdout)
    assert len(losses) == 5
    assert float(losses[-1]) < 0.5 * float(losses[0])
    (checkpoint,) = (folder / "results" / "speaker").glob("CKPT*")
    for path in checkpoint.glob("*.ckpt"):
        assert path.stat().st_size < 4_000_000, path
    assert (checkpoint / "front_end.ckpt").exists()
    assert not torch.load(checkpoint / "tokenizer.ckpt")


def test_the_other_python_runs(folder):
    assert main(["encode", "speech.wav"]) == 0
    kept = set(files().values())
    blocks = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    values = {}
    for block in blocks:
        if block not in kept:
            exec(block, values)
    assert values["vectors"].shape == (2, 47, 4, 256)
    assert values["frames"].tolist() == [47, 24]
    assert values["sound"].shape == (2, 47 * 512)
    assert values["data"][0]["tokens"].shape == (47, 4)
    assert values["framed"].shape == (2, 52, 4)
    assert values["delayed"].shape == values["x"].shape[:2] + (4,) == (2, 55, 4)
    assert values["flat"].shape == (2, 200)
