"""The codec in the MDCT domain: trained, exported, coded; no vocoder."""

import math
import re
import runpy
import shutil

import pytest
import soundfile
import torch
from corpus import speech_like
from training_runs import MDCT, Training

from speechbrain_flowmac import FlowMACCodec
from speechbrain_flowmac.lobes.front_end import FrontEndMismatchError
from speechbrain_flowmac.models.export import ExportError, export
from speechbrain_flowmac.stream import StreamCoder

OTHERS = ["autoencoder", "mean_flow", "improved_mean_flow"]


@pytest.fixture(scope="module")
def folder(debug_training):
    """Output folder of a training with flow matching."""
    return debug_training(MDCT).output


@pytest.fixture(scope="module")
def model(folder, tmp_path_factory):
    """The model that it makes, codec and vocoder."""
    target = tmp_path_factory.mktemp("mdct") / "model"
    export(folder, folder, target)
    return target


def load(model):
    return FlowMACCodec.from_hparams(model, run_opts={"device": "cpu"})


def speech(seconds=2.0):
    return torch.from_numpy(speech_like(seconds, seed=5)).float()[None]


@pytest.mark.parametrize("objective", OTHERS)
def test_every_objective_trains_and_decodes(objective, corpus, tmp_path):
    training = Training(
        MDCT,
        corpus,
        tmp_path / "run",
        debug=True,
        debug_persistently=True,
        flow=f"!ref <{objective}>",
    ).check()
    log = (training.output / "train_log.txt").read_text()
    numbers = [float(n) for n in re.findall(r": ([-+.\w]+)", log)]
    assert all(map(math.isfinite, numbers)), log
    export(training.output, training.output, tmp_path / "model")
    codec = load(tmp_path / "model")
    kind = type(codec.codec.flow.flow).__name__.lower()
    assert kind == objective.replace("_", "")
    tokens, _ = codec.encode_batch(speech())
    wav = codec.decode_batch(tokens, n_steps=2)
    assert wav.shape == (1, 94 * 512)
    assert wav.isfinite().all() and wav.abs().max() > 0


def test_the_mels_of_validation_are_of_the_sound(folder):
    """Of true features, nothing is lost: roughness is that of the mels."""
    log = (folder / "train_log.txt").read_text()
    found = re.findall(r"valid roughness_true: (\S+),", log)
    assert len(found) == 2
    assert all(0.05 < float(value) < 1.0 for value in found)


def test_rates_are_those_of_the_mel_codec(model):
    codec = load(model)
    assert codec.sample_rate == 24000 and codec.hop_length == 512
    assert codec.num_codebooks == 8 and codec.frame_rate == 46.875
    assert list(codec.vocoder.parameters()) == []


def test_files_are_coded(model, tmp_path):
    codec, wav = load(model), speech(1.3)
    soundfile.write(tmp_path / "in.wav", wav[0].numpy(), 24000)
    summary = codec.compress(tmp_path / "in.wav", tmp_path / "a.fmac")
    assert summary.num_samples == wav.shape[1]
    codec.decompress(tmp_path / "a.fmac", tmp_path / "out.wav", seed=3)
    out, rate = soundfile.read(tmp_path / "out.wav", dtype="float32")
    assert rate == 24000 and out.shape == (wav.shape[1],)
    heard = soundfile.read(tmp_path / "in.wav", dtype="float32")[0]
    tokens, _ = codec.encode_batch(torch.from_numpy(heard)[None])
    expected = codec.decode_batch(tokens, seed=3)[0, : wav.shape[1]]
    expected = expected.clamp(-1, 1).numpy()
    # 16 bits, and one more for rounding
    assert abs(out - expected).max() < 2**-14


def test_streams_are_coded_as_the_whole(model):
    codec, wav = load(model), speech(4.0)
    tokens, _ = codec.encode_batch(wav)
    sampling = codec.sampling(n_steps=1)
    whole = codec.decode_batch(tokens, n_steps=1)
    coder = StreamCoder(codec.codec, codec.vocoder, chunk_frames=16)
    parts = list(coder.encode(wav.split(1000, dim=1)))
    assert len(parts) > 5
    assert torch.equal(torch.cat(parts, dim=1), tokens)
    joined = torch.cat(list(coder.decode(parts, sampling)), dim=1)
    tolerance = 1e-3 * whole.abs().max().item()
    torch.testing.assert_close(joined, whole, rtol=0, atol=tolerance)


def test_a_mel_vocoder_is_refused(folder, debug_training, light, tmp_path):
    vocoder = debug_training(light["vocoder"]).output
    with pytest.raises(FrontEndMismatchError, match="differ in kind"):
        export(folder, vocoder, tmp_path / "model")
    assert not list(tmp_path.iterdir())


def test_a_training_of_mels_has_no_vocoder(debug_training, light, tmp_path):
    codec = debug_training(light["codec"]).output
    with pytest.raises(ExportError, match="describes no vocoder"):
        export(codec, codec, tmp_path / "model")
    assert not list(tmp_path.iterdir())


def test_settings_of_another_front_end_are_refused(model, tmp_path):
    copy = shutil.copytree(model, tmp_path / "model")
    described = copy / "hyperparams.yaml"
    text = described.read_text()
    assert "n_bands: 128" in text
    described.write_text(text.replace("n_bands: 128", "n_bands: 120"))
    with pytest.raises(FrontEndMismatchError, match="n_bands") as error:
        load(copy)
    assert "120" in str(error.value) and "128" in str(error.value)


def test_a_mel_codec_is_where_training_can_start(corpus, tmp_path):
    training = Training(
        MDCT,
        corpus,
        tmp_path / "run",
        debug=True,
        debug_persistently=True,
        mel_codec="flowmac-24khz-3kbps",
        mel_codec_batches=2,
        dim=256,
        latent_dim=256,
        code_dim=48,
        codebook_size=256,
        frozen="[encoder, quantizer]",
    ).check()
    shipped = FlowMACCodec.from_hparams(
        "flowmac-24khz-3kbps", vocoder=False, run_opts={"device": "cpu"}
    )
    export(training.output, training.output, tmp_path / "model")
    moved = load(tmp_path / "model")
    torch.testing.assert_close(
        moved.codec.quantizer.rvq.codebooks,
        shipped.codec.quantizer.rvq.codebooks,
    )


@torch.no_grad()
def test_errors_of_the_velocity_are_told_from_the_gaussian_s(
    model, corpus, capsys
):
    recipe = MDCT.parents[1] / "recipes" / "LibriTTS" / "mdct"
    script = runpy.run_path(str(recipe / "velocity.py"))
    options = ["--data_folder", str(corpus), "--limit", "1"]
    script["main"]([str(model), *options])
    head, _, *rows = capsys.readouterr().out.splitlines()
    assert head == "| time t | 0 to 750 Hz | 750 to 2250 Hz |"
    assert [row.split(" | ")[0] for row in rows] == ["| 0.3", "| 0.5", "| 0.7"]
    codec = load(model).codec
    last = codec.flow.flow.field.field.project_out
    last.weight.zero_()
    last.bias.zero_()
    own, known = script["sum_errors"](codec, speech(), 0).unbind(-1)
    assert own.shape == (3, 2) and own.equal(known)
    last.bias.fill_(1.0)
    own, _ = script["sum_errors"](codec, speech(), 0).unbind(-1)
    assert (own[:, 0] > known[:, 0]).all()
    # above its bins it says nothing
    assert own[:, 1].equal(known[:, 1])


def test_the_script_on_shapes_prints_a_table(corpus, capsys):
    script = MDCT.parents[1] / "recipes" / "LibriTTS" / "mdct" / "shapes.py"
    main = runpy.run_path(str(script))["main"]
    data = ["--data_folder", str(corpus), "--split", "dev-clean"]
    main([*data, "--limit", "1", "--metrics", "mel"])
    lines = capsys.readouterr().out.strip().splitlines()
    assert lines[:2] == ["| shapes | log-mel L1 |", "|---|---|"]
    values = [float(line.split("|")[2]) for line in lines[2:]]
    assert len(values) == 7 and values[-1] == 0.0
    # the more of the shapes is true, the nearer is the sound
    assert values[2:] == sorted(values[2:], reverse=True)
    with pytest.raises(FileNotFoundError, match="no .wav in"):
        main(["--data_folder", str(MDCT.parent)])
