"""Tokens stay the same whatever precision is asked for around the codec."""

import copy
import threading

import pytest
import soundfile
import torch

from speechbrain_flowmac import FlowMACCodec
from speechbrain_flowmac.models.loading import MODELS_FOLDER

MODEL = "flowmac-24khz-3kbps"


def load():
    return FlowMACCodec.from_hparams(MODEL, run_opts={"device": "cpu"})


@pytest.fixture(scope="module")
def codec():
    return load()


@pytest.fixture(scope="module")
def batch():
    wav, _ = soundfile.read(MODELS_FOLDER / MODEL / "example.wav")
    wavs = torch.as_tensor(wav[24000:96000]).float().reshape(3, -1)
    return wavs, torch.tensor([1.0, 0.999, 0.5])


@pytest.fixture(scope="module")
def tokens(codec, batch):
    return codec.encode_batch(*batch)[0]


@pytest.fixture
def default_dtype(request):
    torch.set_default_dtype(request.param)
    yield
    torch.set_default_dtype(torch.float32)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("name", ["encode_batch", "sig_to_tokens", "forward"])
def test_autocast_changes_no_token(codec, batch, tokens, dtype, name):
    with torch.autocast("cpu", dtype=dtype):
        # it would: a product is rounded
        assert (torch.ones(1, 1) @ torch.ones(1, 1)).dtype == dtype
        found = getattr(codec, name)(*batch)
    found = found if name == "sig_to_tokens" else found[0]
    assert torch.equal(found, tokens)


def test_autocast_changes_no_embedding(codec, batch, tokens):
    _, expected = codec(*batch)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        _, found = codec(*batch)
    assert torch.equal(found, expected)


def test_autocast_changes_no_file(codec, batch, tmp_path):
    soundfile.write(tmp_path / "a.wav", batch[0][0].numpy(), 24000)
    expected = codec.encode_file(tmp_path / "a.wav")
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(codec.encode_file(tmp_path / "a.wav"), expected)


@pytest.mark.parametrize("mode", [torch.inference_mode, torch.enable_grad])
def test_modes_of_autograd_change_no_token(codec, batch, tokens, mode):
    with mode():
        found, _ = codec.encode_batch(*batch)
    assert torch.equal(found, tokens) and not found.requires_grad


@pytest.mark.parametrize(
    "default_dtype", [torch.float64, torch.bfloat16], indirect=True
)
def test_the_default_type_around_the_call_changes_no_token(
    codec, batch, tokens, default_dtype
):
    wavs, lengths = batch
    found, _ = codec.encode_batch(wavs, lengths.tolist())
    assert torch.equal(found, tokens)


@pytest.mark.parametrize(
    "default_dtype", [torch.float64, torch.bfloat16], indirect=True
)
def test_the_default_type_of_loading_changes_no_token(
    batch, tokens, default_dtype, codec
):
    other = load()
    assert other.fingerprint == codec.fingerprint
    assert torch.equal(other.encode_batch(*batch)[0], tokens)


def test_another_thread_has_the_same_tokens(codec, batch, tokens):
    """Autocast and modes are states of a thread."""
    found = []
    with torch.autocast("cpu", dtype=torch.bfloat16):
        thread = threading.Thread(
            target=lambda: found.append(codec.encode_batch(*batch)[0])
        )
        thread.start()
        thread.join()
    assert torch.equal(found[0], tokens)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_signals_may_come_in_the_codecs_precision(codec, batch, dtype):
    wavs, lengths = batch
    wavs = wavs.to(dtype)
    expected, _ = codec.encode_batch(wavs.float(), lengths)
    other = copy.deepcopy(codec).to(dtype)
    assert torch.equal(other.encode_batch(wavs, lengths)[0], expected)


@pytest.mark.parametrize("cast", ["half", "bfloat16", "double", "float"])
def test_casting_the_codec_changes_no_token(codec, batch, tokens, cast):
    other = getattr(copy.deepcopy(codec), cast)()
    assert torch.equal(other.encode_batch(*batch)[0], tokens)
    assert other.fingerprint == codec.fingerprint
    assert torch.equal(other.vocabulary, codec.vocabulary)
    # what comes after the tokens is cast
    dtype = getattr(torch, cast if cast != "half" else "float16")
    dtype = {"double": torch.float64, "float": torch.float32}.get(cast, dtype)
    for part in (other.codec.decoder, other.codec.flow, other.vocoder):
        assert {p.dtype for p in part.parameters()} == {dtype}


def test_casting_there_and_back_leaves_the_state_as_it_was(codec):
    other = copy.deepcopy(codec).double().float()
    state = other.state_dict()
    for name, tensor in codec.state_dict().items():
        assert state[name].dtype == tensor.dtype, name
        assert torch.equal(state[name], tensor), name


CASTS = pytest.mark.parametrize(
    ("cast", "mel", "sound"),
    # phases follow a pitch that is rounded, so mels of the sound differ more
    # than those it is made of: with bfloat16 less than those of another seed
    [("half", 2e-3, 0.2), ("bfloat16", 1e-2, None), ("double", 1e-5, 1e-3)],
)


@CASTS
def test_a_codec_that_is_cast_decodes(codec, batch, tokens, cast, mel, sound):
    other = getattr(copy.deepcopy(codec), cast)()
    mels = [each.codec.decode(tokens).float() for each in (codec, other)]
    # the last item ends half way
    assert (mels[0] - mels[1])[:2].abs().mean() < mel
    expected = codec.decode_batch(tokens, batch[1])
    found = other.decode_batch(tokens, batch[1])
    assert found.shape == expected.shape and found.dtype == torch.float32

    def distance(decoded):
        features = codec.codec.features
        return (features(decoded) - features(expected))[:2].abs().mean()

    if sound is None:
        sound = distance(codec.decode_batch(tokens, batch[1], seed=1))
    assert distance(found) < sound


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_autocast_decodes(codec, batch, tokens, dtype):
    expected = codec.decode_batch(tokens)
    with torch.autocast("cpu", dtype=dtype):
        found = codec.decode_batch(tokens)
    features = codec.codec.features
    distance = (features(found.float()) - features(expected)).abs().mean()
    assert distance < 0.2


@pytest.mark.parametrize("cast", ["half", "double"])
def test_a_codec_that_is_cast_codes_files(codec, batch, tmp_path, cast):
    soundfile.write(tmp_path / "a.wav", batch[0][0].numpy(), 24000)
    codec.compress(tmp_path / "a.wav", tmp_path / "a.fmac")
    other = getattr(copy.deepcopy(codec), cast)()
    other.compress(tmp_path / "a.wav", tmp_path / "b.fmac")
    same = (tmp_path / "a.fmac").read_bytes()
    assert (tmp_path / "b.fmac").read_bytes() == same
    other.decompress(tmp_path / "a.fmac", tmp_path / "out.wav")
    assert soundfile.info(tmp_path / "out.wav").frames == batch[0].shape[1]


@pytest.mark.parametrize("default_dtype", [torch.float64], indirect=True)
def test_the_default_type_changes_no_sample(codec, tokens, default_dtype):
    found = codec.decode_batch(tokens)
    torch.set_default_dtype(torch.float32)
    assert torch.equal(found, codec.decode_batch(tokens))
