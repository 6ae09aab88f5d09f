"""The scripts beside the recipes, and benchmarks."""

import csv
import json
import re
import subprocess
import sys
from pathlib import Path
from textwrap import indent

import numpy as np
import pytest
import soundfile
import torch
from corpus import speech_like
from hyperpyyaml import load_hyperpyyaml
from tiny_model import make_tiny_model

from speechbrain_flowmac import FlowMACCodec
from speechbrain_flowmac.lobes.features import LogMel, MelSettings
from speechbrain_flowmac.training.experiment import start_from_pretrained

ROOT = Path(__file__).resolve().parents[2]
RECIPES = ROOT / "recipes" / "LibriTTS"


def _run(script, *arguments):
    command = [sys.executable, str(script), *map(str, arguments)]
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=300, cwd=ROOT
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_statistics_are_those_of_the_data(corpus, tmp_path):
    (tmp_path / "out").mkdir()
    printed = _run(
        RECIPES / "codec" / "mel_statistics.py",
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


def test_a_moved_model_is_what_trainings_start_from(corpus, tmp_path):
    target = tmp_path / "moved"
    codec = ROOT / "hparams" / "flowmac_bigvgan_v2.yaml"
    vocoder = ROOT / "hparams" / "harmonic_vocoder_256.yaml"
    (tmp_path / "out").mkdir()
    _run(
        RECIPES / "vocoder" / "change_front_end.py",
        *("flowmac-24khz-3kbps", codec, vocoder, target, "--steps=2"),
        f"--data_folder={corpus}",
        "--train_splits=[train-clean-100]",
        f"--output_folder={tmp_path / 'out'}",
        "--batch_size=1",
        "--device=cpu",
    )
    for yaml in (codec, vocoder):
        with open(yaml, encoding="utf-8") as file:
            hparams = load_hyperpyyaml(file, {"pretrained": str(target)})
        name = "vocoder" if "vocoder" in hparams else "codec"
        before = hparams[name].state_dict()
        before = {key: value.clone() for key, value in before.items()}
        start_from_pretrained(hparams, name)
        after = hparams[name].state_dict()
        assert any(not before[key].equal(after[key]) for key in before)
        assert all(value.isfinite().all() for value in after.values())


def test_solvers_are_compared_by_evaluations(corpus, tmp_path):
    folder = tmp_path / "study"
    printed = _run(
        RECIPES / "codec" / "solvers.py",
        make_tiny_model(tmp_path / "model"),
        *("--data_folder", corpus, "--split", "dev-clean", "--limit", "1"),
        *("--solvers", "euler", "heun", "--counts", "1", "2", "4"),
        *("--tolerances", "0.1", "--metrics", "mel", "--output", folder),
    )
    with open(folder / "solvers.csv", newline="") as file:
        true, decoder, adaptive, *rows = csv.DictReader(file)
    assert printed.strip() == (folder / "solvers.md").read_text().strip()
    assert (folder / "solvers.svg").read_text().startswith("<?xml")
    assert true["solver"] == "(true mel)" and not true["mel L1"]
    assert float(decoder["evaluations"]) == 0 and decoder["time"] == "0.0"
    assert adaptive["grid"] == "tolerance 0.1"
    assert float(adaptive["evaluations"]) >= 7
    found = [(r["solver"], r["grid"], float(r["evaluations"])) for r in rows]
    assert found == [
        ("euler", "uniform", 1.0),
        ("euler", "uniform", 2.0),
        ("euler", "uniform", 4.0),
        ("euler", "sway", 2.0),
        ("euler", "sway", 4.0),
        ("heun", "uniform", 2.0),
        ("heun", "uniform", 4.0),
        ("heun", "sway", 4.0),
    ]
    values = [float(r[key]) for r in rows for key in ("mel L1", "log-mel L1")]
    assert all(value > 0 for value in values)


def test_guidance_and_temperature_are_swept(corpus, tmp_path):
    folder, model = tmp_path / "study", make_tiny_model(tmp_path / "model")
    yaml = model / "hyperparams.yaml"
    yaml.write_text(
        yaml.read_text("utf-8").replace(
            "flow_matching.FlowMatching\n",
            "flow_matching.FlowMatching\n        condition_dropout: 0.1\n",
        ),
        "utf-8",
    )
    _run(
        *(RECIPES / "codec" / "solvers.py", model, "--data_folder", corpus),
        *("--split", "dev-clean", "--limit", "1", "--solvers", "midpoint"),
        *("--schedules", "uniform", "--counts", "4"),
        *("--temperatures", "0.5", "1", "--guidances", "0", "2"),
        *("--rescales", "0", "1", "--metrics", "mel", "--output", folder),
    )
    with open(folder / "solvers.csv", newline="") as file:
        _, _, *rows = csv.DictReader(file)
    found = {
        tuple(float(row[n]) for n in ("temperature", "guidance", "rescale")): (
            float(row["mel L1"])
        )
        for row in rows
    }
    # without guidance there is nothing to rescale
    assert list(found) == [
        (temperature, guidance, rescale)
        for temperature in (0.5, 1.0)
        for guidance, rescale in ((0, 0), (2, 0), (2, 1))
    ]
    assert len(set(found.values())) == 6
    picture = (folder / "solvers.svg").read_text()
    assert "temperature 0.5, rescale 1" in picture
    assert "guidance" in picture and "log-mel L1" in picture


def _vocoder_tables(corpus, model):
    return _run(
        RECIPES / "vocoder" / "evaluate.py",
        model,
        f"--data_folder={corpus}",
        "--codebooks=4",
        "--limit=1",
        "--metrics",
        "mel",
        "estoi",
    )


def test_vocoder_evaluation_has_true_and_decoded_mels(corpus, tmp_path):
    model = make_tiny_model(tmp_path / "model")
    printed = _vocoder_tables(corpus, model)
    assert "1 utterances of test-clean" in printed
    assert "| input | log-mel L1 | ESTOI |" in printed
    scores = re.findall(
        r"^\| (\w+ mels) \| \d\.\d{3} \| -?\d\.\d{3} \|$", printed, re.M
    )
    assert scores == ["true mels", "decoded mels"]
    # by SwiftF0, which the tests install; by Harvest too where it is
    pitch = re.findall(r"^\| SwiftF0 \| (\w+ mels) \|", printed, re.M)
    assert pitch == ["true mels", "decoded mels"]


def test_vocoders_without_a_pitch_head_have_no_table_of_f0(corpus, tmp_path):
    model = make_tiny_model(tmp_path / "model", head="free")
    printed = _vocoder_tables(corpus, model)
    assert "true mels" in printed and "F0" not in printed


def test_benchmark_of_vocoders_has_a_row_for_each():
    printed = _run(
        ROOT / "benchmarks" / "vocoders.py", "--seconds=0.1", "--repeats=1"
    )
    assert "threads: 1, median of 1" in printed
    rows = dict(re.findall(r"^\| (\S+).*? \| (.*) \|$", printed, re.M))
    yamls = ("istft_vocoder", "mb_istft", "harmonic_vocoder", "bigvgan")
    for name in yamls:
        size, speed, _ = rows[f"hparams/{name}.yaml"].split(" | ")
        assert float(size) > 1 and float(speed) > 0
    # a peer that is not installed has a row all the same
    assert "Vocos" in rows and "BigVGAN" in rows


def test_merged_frames_are_drawn_over_the_spectrogram(tmp_path):
    model = make_tiny_model(tmp_path / "dynamic", dynamic=True)
    soundfile.write(tmp_path / "a.wav", speech_like(1.5, seed=1), 24000)
    target = tmp_path / "frames.svg"
    _run(
        RECIPES / "codec" / "merged_frames.py",
        *(model, tmp_path / "a.wav", "--rates", 12.5, 6.25),
        *("--thresholds", 1.0, "--output", target),
    )
    text = target.read_text(encoding="utf-8")
    codec = FlowMACCodec.from_hparams(model, run_opts={"device": "cpu"})
    signal, _ = soundfile.read(tmp_path / "a.wav", dtype="float32")
    lines = 0
    for merging in ({"frame_rate": 12.5}, {"frame_rate": 6.25}):
        pair = codec.encode_batch(torch.from_numpy(signal)[None], **merging)
        lines += pair[1].shape[1]
    # all of the 36 frames of time, and those that are left
    assert text.count("stroke: #d62728") == lines + 36


def test_beams_are_compared_by_codebooks(corpus, tmp_path):
    model = make_tiny_model(tmp_path / "model")
    printed = _run(
        *(RECIPES / "codec" / "beam_sizes.py", model, "--data_folder", corpus),
        *("--limit", "2", "--beams", "1", "8", "--codebooks", "1", "2"),
    )
    rows = [line.strip("| ").split(" | ") for line in printed.splitlines()]
    assert rows[0] == ["beam", "1", "2", "time"]
    assert [row[0] for row in rows[2:]] == ["1", "8"]
    assert rows[2][-1] == "1.00" and float(rows[3][-1]) > 0
    nearest, searched = ([float(x) for x in row[1:3]] for row in rows[2:])
    assert nearest != searched


def test_lost_spread_is_measured(corpus, tmp_path):
    model = make_tiny_model(tmp_path / "model")
    printed = _run(
        *(RECIPES / "codec" / "mel_spread.py", model, "--data_folder", corpus),
        *("--split", "dev-clean", "--limit", "1"),
    )
    yaml = model / "hyperparams.yaml"
    text = yaml.read_text("utf-8")
    margin = re.search("^ +(?=sampling:)", text, re.MULTILINE)[0]
    yaml.write_text(
        text.replace(
            f"{margin}sampling:", f"{indent(printed, margin)}{margin}sampling:"
        ),
        "utf-8",
    )
    codec = FlowMACCodec.from_hparams(model)
    assert len(codec.codec.spread.ratios) == codec.num_codebooks
    tokens = torch.zeros(1, 4, 1, dtype=torch.int64)
    sounds = [codec.decode_batch(tokens, spread=x) for x in (0.0, 1.0)]
    assert not torch.equal(*sounds)
