"""The fingerprint: what it covers, and that it is never stale."""

import copy
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from tiny_model import make_tiny_model

from speechbrain_flowmac import FlowMACCodec
from speechbrain_flowmac.bitstream import read_tokens
from speechbrain_flowmac.identity import legacy_fingerprint
from speechbrain_flowmac.inference import FingerprintMismatchError
from speechbrain_flowmac.models.loading import MODELS_FOLDER

MODEL = "flowmac-24khz-3kbps"
OLD_STREAM = Path(__file__).parents[1] / "support" / "shipped_v1.fmac"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return make_tiny_model(tmp_path_factory.mktemp("model"))


@pytest.fixture
def codec(folder):
    return FlowMACCodec.from_hparams(folder, run_opts={"device": "cpu"})


@pytest.fixture(scope="module")
def shipped():
    return FlowMACCodec.from_hparams(MODEL, run_opts={"device": "cpu"})


def parts(codec):
    """Every tensor of a codec's state, by name."""
    return codec.codec.state_dict() | {
        f"vocoder.{k}": v for k, v in codec.vocoder.state_dict().items()
    }


def defines_tokens(name):
    return (
        name.startswith(("normalizer.", "encoder.", "quantizer.project_in."))
        or name == "features.settings_record"
        or name.endswith("_codebook.embed")
    )


def test_it_covers_what_defines_tokens_and_nothing_else(codec):
    first = codec.fingerprint
    seen = set()
    for name, tensor in parts(codec).items():
        kept = tensor.clone()
        # through .data, as optimizers of averages do: no version is counted
        tensor.data.copy_(~kept if kept.dtype == torch.bool else kept + 1)
        assert (codec.fingerprint != first) == defines_tokens(name), name
        seen.add(codec.fingerprint)
        tensor.data.copy_(kept)
        assert codec.fingerprint == first
    covered = sum(map(defines_tokens, parts(codec)))
    assert len(seen) == covered + 1 and covered > 20


def test_a_copy_that_is_trained_has_another(codec):
    first = codec.fingerprint
    trained = copy.deepcopy(codec)
    assert trained.fingerprint == first
    weight = trained.codec.encoder.project_in.weight.requires_grad_()
    optimizer = torch.optim.Adam([weight], 1e-3)
    weight.sum().backward()
    optimizer.step()
    assert trained.fingerprint != first == codec.fingerprint
    trained.load_state_dict(codec.state_dict())
    assert trained.fingerprint == first


def test_statistics_that_are_set_change_it(codec):
    first = codec.fingerprint
    codec.codec.normalizer.set_statistics(-6.0, 2.001)
    assert codec.fingerprint != first


def test_moved_tensors_and_strides_do_not_matter(codec):
    first = codec.fingerprint
    weight = codec.codec.encoder.project_in.weight
    weight.data = weight.data.T.contiguous().T
    assert codec.fingerprint == first


def test_a_better_decoder_reads_old_files(codec, tmp_path):
    audio = np.random.default_rng(0).normal(size=5000) * 0.1
    soundfile.write(tmp_path / "a.wav", audio, 24000)
    codec.compress(tmp_path / "a.wav", tmp_path / "a.fmac")
    with torch.no_grad():
        codec.codec.decoder.project_out.bias.add_(0.1)
        codec.codec.quantizer.project_out.bias.add_(0.1)
    codec.decompress(tmp_path / "a.fmac", tmp_path / "b.wav")
    with torch.no_grad():
        codec.codec.encoder.project_out.bias.add_(0.1)
    with pytest.raises(FingerprintMismatchError, match="another model"):
        codec.decompress(tmp_path / "a.fmac", tmp_path / "c.wav")
    assert not (tmp_path / "c.wav").exists()


# files that were written before


def test_the_shipped_model_is_who_it_was(shipped):
    header = read_tokens(OLD_STREAM)[0].header
    assert header.fingerprint == legacy_fingerprint(shipped.codec)[:8]
    assert header.fingerprint != shipped.fingerprint[:8]
    shipped.check_stream(header)


def test_old_files_are_read_with_the_shipped_model(shipped, tmp_path):
    """Levels in dB of tenths of two seconds, as they were then."""
    shipped.decompress(OLD_STREAM, tmp_path / "out.wav", seed=3)
    wav, rate = soundfile.read(tmp_path / "out.wav")
    assert (len(wav), rate) == (48000, 24000)
    power = np.square(wav.reshape(10, -1)).mean(1)
    then = [-24.83, -24.75, -22.57, -22.55, -20.99]
    then += [-21.96, -20.77, -22.13, -22.87, -24.08]
    np.testing.assert_allclose(10 * np.log10(power), then, atol=0.1)


def test_the_shipped_model_writes_the_tokens_it_wrote(shipped, tmp_path):
    wav, rate = soundfile.read(MODELS_FOLDER / MODEL / "example.wav")
    soundfile.write(tmp_path / "a.wav", wav[24000:72000], rate)
    shipped.compress(tmp_path / "a.wav", tmp_path / "a.fmac")
    old, new = (read_tokens(p)[1] for p in (OLD_STREAM, tmp_path / "a.fmac"))
    assert old.shape == new.shape == (1, 94, 8)
    # another processor may round a tie the other way
    assert (old == new).mean() > 0.98


def test_another_models_old_files_are_refused(codec, tmp_path):
    with pytest.raises(FingerprintMismatchError, match="another model"):
        codec.decompress(OLD_STREAM, tmp_path / "out.wav")
    assert not list(tmp_path.iterdir())
