"""The scripts beside the codec's recipe."""

import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from tiny_model import make_tiny_model

from speechbrain_flowmac.lobes.features import LogMel, MelSettings

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / "recipes" / "LibriTTS" / "codec"


def _run(script, *arguments):
    command = [sys.executable, str(FOLDER / script), *map(str, arguments)]
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=300, cwd=ROOT
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_statistics_are_those_of_the_data(corpus, tmp_path):
    (tmp_path / "out").mkdir()
    printed = _run(
        "mel_statistics.py",
        ROOT / "hparams" / "flowmac_lc.yaml",
        f"--data_folder={corpus}",
        "--train_splits=[train-clean-100]",
        f"--output_folder={tmp_path / 'out'}",
        "--device=cpu",
    )
    known = json.loads(printed[printed.index("{") :])
    features = LogMel(MelSettings())
    mels = []
    for path in sorted((corpus / "train-clean-100").rglob("*.wav")):
        signal, _ = soundfile.read(path, dtype="float32")
        mels.append(features(torch.from_numpy(signal)[None]).flatten())
    mels = torch.cat(mels).double().numpy()
    assert known["mean"] == pytest.approx(np.mean(mels), abs=1e-4)
    assert known["std"] == pytest.approx(np.std(mels), abs=1e-4)
    assert known["utterances"] == 4


def test_evaluation_prints_a_row_for_each_number_of_codebooks(corpus, tmp_path):
    model = make_tiny_model(tmp_path / "model")
    printed = _run(
        "evaluate.py",
        model,
        f"--data_folder={corpus}",
        "--codebooks",
        "1",
        "8",
        "--metrics",
        "estoi",
        "mel",
    )
    assert "2 utterances of test-clean" in printed
    rows = re.findall(r"^\| (\d) \| (\d+) \|", printed, re.MULTILINE)
    assert rows == [("1", "375"), ("8", "3000")]
