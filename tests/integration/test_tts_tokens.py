"""Synthesisers on tokens: killed, on two ranks, and what they say."""

import os
import re
import signal

import pytest
import soundfile
from corpus import make_libritts
from tiny_model import make_tiny_model
from training_runs import HPARAMS, TTS_DYNAMIC, Training, train_one_model

(YAML,) = [yaml for yaml in HPARAMS if yaml.stem == "tts_tokens"]
# two utterances a batch, two batches an epoch
OPTIONS = {"batch_seconds": 3}


@pytest.fixture(scope="module")
def speech(tmp_path_factory):
    return make_libritts(tmp_path_factory.mktemp("speech"))


def samples(training):
    """Sounds of the test, by name."""
    return {
        path.stem: soundfile.read(path)
        for path in (training.output / "samples").iterdir()
    }


@pytest.mark.skipif(os.name == "nt", reason="no SIGKILL")
def test_killed_training_goes_on_to_the_same_losses(speech, tmp_path):
    options = {
        **OPTIONS,
        "total_steps": 8,
        "decay_steps": 2,
        "ckpt_interval_steps": 3,
        "ckpt_interval_minutes": 0,
        "num_samples": 8,
        "token_folder": tmp_path / "tokens",
    }
    whole = Training(YAML, speech, tmp_path / "whole", **options).check()
    killed = Training(YAML, speech, tmp_path / "parts", kill_at=6, **options)
    assert killed.wait() == -signal.SIGKILL
    resumed = Training(YAML, speech, tmp_path / "parts", **options).check()
    assert dict(resumed.steps) == dict(whole.steps)
    assert [step for step, _ in whole.steps] == list(range(1, 9))
    # the tokens are extracted once
    assert "utt/s" not in resumed.text
    logs = [
        (tmp_path / name / "train_log.txt").read_text()
        for name in ("whole", "parts")
    ]
    assert logs[0] == logs[1]
    test = logs[0].splitlines()[-1]
    nll = [float(x) for x in re.findall(r"test nll_\d: (\S+),", test)]
    assert len(nll) == 8
    (bits,) = re.findall(r"test bits_per_frame: (\S+)", test)
    # the ends are in it too
    assert float(bits) >= sum(nll) / 0.6932
    # all test sentences were said, the same after the kill
    said, again = samples(whole), samples(resumed)
    test_set = speech / "test-clean"
    assert set(said) == {path.stem for path in test_set.rglob("*.wav")}
    for name, (wav, rate) in said.items():
        assert rate == 24000 and abs(wav).max() > 0
        assert len(wav) % 512 == 0 and len(wav) <= 12 * 512
        assert (wav == again[name][0]).all()


def test_two_ranks_train_one_synthesiser(speech, tmp_path):
    train_one_model(YAML, speech, tmp_path / "run", batch_seconds=1)


def test_fewer_codebooks_are_said(speech, tmp_path):
    training = Training(
        YAML, speech, tmp_path / "run", num_codebooks=2, debug=True, **OPTIONS
    ).check()
    assert len(training.steps) == 4
    log = training.output / "train_log.txt"
    assert "nll_2" in log.read_text() and "nll_3" not in log.read_text()
    assert len(samples(training)) == 1


def test_a_dynamic_rate_trains_and_is_said(speech, tmp_path):
    options = {
        **OPTIONS,
        "model": make_tiny_model(tmp_path / "model", dynamic=True),
        "num_codebooks": 3,
        "total_steps": 6,
        "decay_steps": 2,
        "ckpt_interval_steps": 2,
        "ckpt_interval_minutes": 0,
        "num_samples": 2,
    }
    whole, killed = (tmp_path / name for name in ("whole", "killed"))
    whole = Training(TTS_DYNAMIC, speech, whole, **options).check()
    Training(TTS_DYNAMIC, speech, killed, kill_at=5, **options).wait()
    resumed = Training(TTS_DYNAMIC, speech, killed, **options).check()
    # the rates that are drawn are the same too
    assert dict(resumed.steps) == dict(whole.steps)
    log = (whole.output / "train_log.txt").read_text()
    # durations are one codebook more
    assert "nll_4" in log and "nll_5" not in log
    said = samples(whole)
    assert len(said) == 2
    for wav, rate in said.values():
        frames, rest = divmod(len(wav), 1024)
        assert rate == 24000 and rest == 0
        # at most 12 merged frames of 1..8 frames of time
        assert 1 <= frames <= 12 * 8


def test_a_fixed_rate_is_refused_where_a_dynamic_one_is_needed(
    speech, tmp_path
):
    training = Training(
        TTS_DYNAMIC,
        speech,
        tmp_path / "run",
        model=make_tiny_model(tmp_path / "model"),
        debug=True,
    )
    assert training.wait() == 1
    assert "expected a codec with a dynamic frame rate" in training.text
