"""Model folders whose vocoder is BigVGAN: NVIDIA's weights, or our training."""

import os
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from bigvgan_checkpoints import (
    PUBLIC,
    V2_24K,
    reference,
    save_checkpoint,
    shrunk,
)
from corpus import speech_like
from safetensors.torch import load_file
from training_runs import HPARAMS, Training

import speechbrain_flowmac.models.loading as loading
from speechbrain_flowmac import FlowMACCodec
from speechbrain_flowmac.cli import main
from speechbrain_flowmac.lobes.bigvgan import fold_weight_norm
from speechbrain_flowmac.lobes.features import MelMismatchError
from speechbrain_flowmac.models.export import export
from speechbrain_flowmac.models.importers.bigvgan import (
    WEIGHTS_FILE,
    load_bigvgan,
)
from speechbrain_flowmac.models.importers.training_folder import (
    averaged_weights,
)
from speechbrain_flowmac.models.loading import (
    ModelNotFoundError,
    WeightsMismatchError,
)

YAMLS = {yaml.stem: yaml for yaml in HPARAMS}


@pytest.fixture(scope="module")
def codec_run(debug_training):
    """A training folder of the codec at the front end of BigVGAN v2."""
    return debug_training(YAMLS["flowmac_bigvgan_v2"]).output


@pytest.fixture
def checkpoint(tmp_path):
    """A checkpoint in NVIDIA's layout, small and random."""
    return save_checkpoint(tmp_path / "checkpoint", shrunk(V2_24K))


def load(folder):
    return FlowMACCodec.from_hparams(folder, run_opts={"device": "cpu"})


def assert_close_to_half(found, expected):
    torch.testing.assert_close(found, expected, rtol=2**-11, atol=2**-25)


@pytest.mark.parametrize("form", ["folder", "file"])
def test_codec_with_nvidia_s_weights_codes(
    codec_run, checkpoint, tmp_path, form
):
    source = checkpoint / WEIGHTS_FILE if form == "file" else checkpoint
    export(codec_run, source, tmp_path / "model")
    model = load(tmp_path / "model")
    # 8 tiny codebooks of 16 entries
    assert model.frame_rate == 46.875 and model.bit_rate() == 1500
    wav = torch.from_numpy(speech_like(1.0, seed=9))[None]
    tokens, lengths = model.encode_batch(wav)
    assert tokens.shape == (1, 47, 8) and lengths.tolist() == [47]
    decoded = model.decode_batch(tokens)
    assert decoded.shape == (1, 47 * 512)
    assert decoded.isfinite().all() and decoded.std() > 0


def test_weights_are_folded(codec_run, checkpoint, tmp_path):
    model = export(codec_run, checkpoint, tmp_path / "model")
    theirs = reference(shrunk(V2_24K))
    theirs.remove_weight_norm()
    stored = load_file(tmp_path / "model" / "vocoder.safetensors")
    assert stored.keys() == theirs.state_dict().keys()
    for name, value in theirs.state_dict().items():
        assert_close_to_half(stored[name].float(), value)
        if "filter" in name:  # rounding would change the level
            assert torch.equal(stored[name], value)
    mel = 2 * torch.randn(1, 9, 100) - 5
    with torch.no_grad():
        expected, found = theirs(mel.mT)[:, 0], model.vocoder(mel)
    assert (found - expected).abs().max() < 0.01 * expected.abs().max()


def test_long_files_decode_in_chunks(codec_run, checkpoint, tmp_path):
    model = export(codec_run, checkpoint, tmp_path / "model")
    tokens = torch.randint(0, 16, (1, 90, 8))
    whole = model.decode_batch(tokens)
    coder = replace(model.coder(), chunk_frames=32)
    parts = coder.decode([tokens], model.codec.sampling)
    torch.testing.assert_close(
        torch.cat(list(parts), dim=1), whole, atol=1e-5, rtol=1e-3
    )


def test_card_names_the_weights(codec_run, checkpoint, tmp_path):
    export(codec_run, checkpoint, tmp_path / "model")
    card = (tmp_path / "model" / "README.md").read_text()
    assert "`checkpoint`" in card and str(tmp_path) not in card
    assert "Training log of the codec" in card
    assert "Training log of the vocoder" not in card


def test_weights_come_from_the_hub(
    codec_run, checkpoint, tmp_path, monkeypatch
):
    asked, real = [], loading.fetch

    def fetch(filename, source, **options):
        if source != hub_id:
            return real(filename, source, **options)
        asked.append(filename)
        return checkpoint / filename

    hub_id = "nvidia/bigvgan_v2_24khz_100band_256x"
    monkeypatch.setattr(loading, "fetch", fetch)
    export(codec_run, hub_id, tmp_path / "model")
    assert set(asked) == {"config.json", WEIGHTS_FILE}
    assert hub_id in (tmp_path / "model" / "README.md").read_text()


def test_other_front_ends_are_refused(codec_run, tmp_path):
    config = shrunk(PUBLIC["bigvgan_v2_44khz_128band_512x"])
    vocoder = save_checkpoint(tmp_path / "vocoder", config)
    # not even read
    (vocoder / WEIGHTS_FILE).write_bytes(b"")
    (tmp_path / "out").mkdir()
    with pytest.raises(MelMismatchError) as caught:
        export(codec_run, vocoder, tmp_path / "out" / "model")
    for part in ("codec: {'sample_rate': 24000", "vocoder: {'sample_rate': 44"):
        assert part in str(caught.value)
    assert not list((tmp_path / "out").iterdir())


class Malicious:
    """Runs a command when it is unpickled."""

    def __init__(self, marker):
        self.marker = marker

    def __reduce__(self):
        return os.system, (f"touch {self.marker}",)


def test_pickled_code_does_not_run(codec_run, checkpoint, tmp_path):
    marker = tmp_path / "ran"
    torch.save({"generator": Malicious(marker)}, checkpoint / WEIGHTS_FILE)
    with pytest.raises(WeightsMismatchError):
        export(codec_run, checkpoint, tmp_path / "out" / "model")
    assert not marker.exists()
    assert not list((tmp_path / "out").iterdir())


def test_checkpoints_without_weights_are_refused(
    codec_run, checkpoint, tmp_path
):
    (checkpoint / WEIGHTS_FILE).unlink()
    with pytest.raises(ModelNotFoundError, match=WEIGHTS_FILE):
        export(codec_run, checkpoint, tmp_path / "out" / "model")
    assert not list((tmp_path / "out").iterdir())


def test_command_line_takes_a_checkpoint(
    codec_run, checkpoint, tmp_path, capsys, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    assert main(["export", str(codec_run), "checkpoint", "model"]) == 0
    assert "1.500 kbps" in capsys.readouterr().out
    # a mistyped path beside it is not asked for on the Hub
    Path("results").mkdir()
    assert main(["export", str(codec_run), "results/bigvgan", "other"]) == 2
    assert "no such folder: results/bigvgan" in capsys.readouterr().err


# Our own training


@pytest.fixture(scope="module")
def trained(light, debug_training, tmp_path_factory):
    """Model folder with a BigVGAN of our own, and the vocoder's training."""
    runs = [
        debug_training(yaml).output
        for yaml in (light["codec"], YAMLS["bigvgan"])
    ]
    folder = tmp_path_factory.mktemp("exported") / "model"
    export(*runs, folder)
    return folder, runs[1]


def test_weight_norm_of_a_training_is_folded(trained):
    folder, run = trained
    averaged = averaged_weights(run)
    stored = load_file(folder / "vocoder.safetensors")
    assert any("parametrizations" in name for name in averaged)
    assert not any("parametrizations" in name for name in stored)
    stem = "ups.0.0.parametrizations.weight.original"
    size, direction = averaged[stem + "0"], averaged[stem + "1"]
    expected = torch._weight_norm(direction, size, 0)
    assert_close_to_half(stored["ups.0.0.weight"].float(), expected)


def test_trained_bigvgan_codes(trained):
    model = load(trained[0])
    wav = torch.from_numpy(speech_like(1.0, seed=9))[None]
    decoded = model.decode_batch(model.encode_batch(wav)[0])
    assert decoded.shape == (1, 47 * 512) and decoded.isfinite().all()


def test_training_goes_on_from_folded_weights(trained, corpus, tmp_path):
    folder, _ = trained
    training = Training(
        YAMLS["bigvgan"],
        corpus,
        tmp_path / "again",
        debug=True,
        debug_persistently=True,
        pretrained=folder,
        lr=0.0,
        adversarial_start=100,
    ).check()
    averaged = averaged_weights(training.output)
    assert any("parametrizations" in name for name in averaged)
    again = fold_weight_norm(averaged)
    for name, value in load_file(folder / "vocoder.safetensors").items():
        assert_close_to_half(again[name].float(), value.float())


def test_load_bigvgan_gives_the_exported_vocoder(
    codec_run, checkpoint, tmp_path
):
    model = export(codec_run, checkpoint, tmp_path / "model")
    expected = load_bigvgan(checkpoint).state_dict()
    for name, value in model.vocoder.state_dict().items():
        assert_close_to_half(value, expected[name])
