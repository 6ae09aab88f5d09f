"""The fingerprint: what it covers, and that it is never stale."""

import copy
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from tiny_model import make_tiny_model

from speechbrain_flowmac import FlowMACCodec
from speechbrain_flowmac.bitstream import (
    StreamHeader,
    read_tokens,
    write_tokens,
)
from speechbrain_flowmac.identity import legacy_fingerprint
from speechbrain_flowmac.inference import FingerprintMismatchError
from speechbrain_flowmac.models.loading import MODELS_FOLDER

MODEL = "flowmac-24khz-3kbps"
SUPPORT = Path(__file__).parents[1] / "support"
# two seconds of the example, by the model that ships and by the first one
STREAM = SUPPORT / "shipped.fmac"
FIRST_MODEL_STREAM = SUPPORT / "shipped_v1.fmac"
# in dB, of tenths of those two seconds when the model was released
LEVELS = [
    -24.11,
    -21.00,
    -18.93,
    -17.59,
    -16.74,
    -18.06,
    -16.86,
    -19.52,
    -21.79,
    -21.52,
]


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


def test_a_stream_of_version_1_states_the_hash_of_the_whole_codec(
    codec, tmp_path
):
    tokens = np.zeros((1, 3, codec.num_codebooks), np.int64)
    header = StreamHeader(
        legacy_fingerprint(codec.codec)[:8],
        sample_rate=codec.sample_rate,
        hop_length=codec.hop_length,
        num_codebooks=codec.num_codebooks,
        bits_per_code=codec.bits_per_code,
        num_samples=3 * codec.hop_length - 1,
    )
    assert header.version == 1
    write_tokens(tmp_path / "old.fmac", header, tokens)
    codec.decompress(tmp_path / "old.fmac", tmp_path / "a.wav")
    wav, _ = soundfile.read(tmp_path / "a.wav")
    assert len(wav) == header.num_samples
    # what it covers is more than the tokens
    with torch.no_grad():
        codec.codec.decoder.project_out.bias.add_(0.1)
    with pytest.raises(FingerprintMismatchError, match="another model"):
        codec.decompress(tmp_path / "old.fmac", tmp_path / "b.wav")
    assert not (tmp_path / "b.wav").exists()


def test_the_shipped_model_is_who_it_was(shipped):
    header = read_tokens(STREAM)[0].header
    assert header.fingerprint == shipped.fingerprint[:8]


def test_the_shipped_model_decodes_as_it_did(shipped, tmp_path):
    # as it was before mels got their spread back
    shipped.decompress(STREAM, tmp_path / "out.wav", seed=3, spread=0.0)
    wav, rate = soundfile.read(tmp_path / "out.wav")
    assert (len(wav), rate) == (48000, 24000)
    power = np.square(wav.reshape(10, -1)).mean(1)
    np.testing.assert_allclose(10 * np.log10(power), LEVELS, atol=0.1)


def test_the_shipped_model_writes_the_tokens_it_wrote(
    shipped, tmp_path, monkeypatch
):
    # as it was before codes were searched
    monkeypatch.setattr(shipped.codec.quantizer, "beam_size", 1)
    wav, rate = soundfile.read(MODELS_FOLDER / MODEL / "example.wav")
    soundfile.write(tmp_path / "a.wav", wav[24000:72000], rate)
    shipped.compress(tmp_path / "a.wav", tmp_path / "a.fmac")
    then, now = (read_tokens(p)[1] for p in (STREAM, tmp_path / "a.fmac"))
    assert then.shape == now.shape == (1, 94, 8)
    # another processor may round a tie the other way
    assert (then == now).mean() > 0.98


@pytest.mark.parametrize("stream", [STREAM, FIRST_MODEL_STREAM])
def test_another_models_files_are_refused(codec, tmp_path, stream):
    with pytest.raises(FingerprintMismatchError, match="another model"):
        codec.decompress(stream, tmp_path / "out.wav")
    assert not list(tmp_path.iterdir())
