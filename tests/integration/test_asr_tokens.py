"""Recognisers on tokens and mels: killed, on two ranks, with word pieces."""

import csv
import json
import os
import re
import signal

import pytest
from corpus import make_libritts
from training_runs import HPARAMS, Training, train_one_model

YAMLS = {yaml.stem: yaml for yaml in HPARAMS}
# two utterances a batch, two batches an epoch
OPTIONS = {"batch_seconds": 5, "max_grad_norm": 5.0}


@pytest.fixture(scope="module")
def speech(tmp_path_factory):
    """Long enough for the text, at the rate of the network's output."""
    return make_libritts(tmp_path_factory.mktemp("speech"), duration=2.0)


def losses(training):
    return [float(text.split()[1]) for _, text in training.steps]


@pytest.mark.skipif(os.name == "nt", reason="no SIGKILL")
def test_killed_training_goes_on_to_the_same_losses(speech, tmp_path):
    yaml = YAMLS["asr_tokens_lstm"]
    options = {
        **OPTIONS,
        "total_steps": 8,
        "decay_steps": 2,
        "ckpt_interval_steps": 3,
        "ckpt_interval_minutes": 0,
        "token_folder": tmp_path / "tokens",
    }
    whole = Training(yaml, speech, tmp_path / "whole", **options).check()
    killed = Training(yaml, speech, tmp_path / "parts", kill_at=6, **options)
    assert killed.wait() == -signal.SIGKILL
    resumed = Training(yaml, speech, tmp_path / "parts", **options).check()
    assert dict(resumed.steps) == dict(whole.steps)
    assert [step for step, _ in whole.steps] == list(range(1, 9))
    assert all(loss > 0 for loss in losses(whole))
    # the tokens are extracted once
    assert "utt/s" not in resumed.text
    logs = [
        (tmp_path / name / "train_log.txt").read_text()
        for name in ("whole", "parts")
    ]
    assert logs[0] == logs[1]
    rates = r"test cer: \S+, test wer: \S+, test beam_cer: \S+, test beam_wer:"
    assert re.search(rates, logs[0])
    errors = (tmp_path / "whole" / "test_errors.txt").read_text()
    headings = re.findall(r"^((?:beam_)?[cw]er)\n%WER", errors, re.MULTILINE)
    assert headings == ["cer", "wer", "beam_cer", "beam_wer"]


@pytest.mark.parametrize("name", ["asr_tokens_lstm", "asr_mel"])
def test_two_ranks_train_one_recogniser(name, speech, tmp_path):
    options = {**OPTIONS, "batch_seconds": 2}
    train_one_model(YAMLS[name], speech, tmp_path / "run", **options)


def test_word_pieces_and_fewer_codebooks(speech, tmp_path):
    text = YAMLS["asr_tokens_lstm"].read_text(encoding="utf-8")
    targets = "!new:speechbrain_flowmac.training.targets."
    pieces = f"""{targets}WordPieces
    model_file: !ref <output_folder>/pieces.model
    num_pieces: 15
"""
    yaml = tmp_path / "asr_tokens_lstm.yaml"
    yaml.write_text(text.replace(f"{targets}Characters\n", pieces))
    training = Training(
        yaml,
        speech,
        tmp_path / "run",
        num_codebooks=2,
        num_symbols=16,
        debug=True,
        **OPTIONS,
    ).check()
    assert (tmp_path / "run" / "pieces.model").exists()
    assert len(training.steps) == 4


def test_other_languages_are_left_out(speech, tmp_path):
    names = sorted(path.stem for path in speech.rglob("*.wav"))
    with open(tmp_path / "corpus.csv", "w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["id", "language"])
        foreign = names[-1]  # of the training split
        for name in names:
            writer.writerow([name, "nl" if name == foreign else "en"])
    Training(
        YAMLS["asr_mel"],
        speech,
        tmp_path / "run",
        corpus_csv=tmp_path / "corpus.csv",
        debug=True,
        **OPTIONS,
    ).check()
    sets = ("train", "valid", "test")
    kept = {
        name
        for part in sets
        for name in json.loads(
            (tmp_path / "run" / f"{part}_text.json").read_text()
        )
    }
    assert kept == set(names) - {foreign}


def test_a_corpus_file_without_languages_is_refused(speech, tmp_path):
    path = tmp_path / "corpus.csv"
    path.write_text("id,lang\na,en\n")
    training = Training(
        YAMLS["asr_mel"], speech, tmp_path / "run", corpus_csv=path, debug=True
    )
    assert training.wait() == 1
    last = training.text.strip().splitlines()[-1]
    assert "columns id and language, found ['id', 'lang']" in last
