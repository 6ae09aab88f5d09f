"""The pretrained interface: batches, tokens for others, files."""

import numpy as np
import pytest
import soundfile
import torch
from corpus import speech_like
from tiny_model import make_tiny_model

from speechbrain_flowmac import FlowMACCodec
from speechbrain_flowmac.audio import AudioFileError, open_audio
from speechbrain_flowmac.inference import FingerprintMismatchError
from speechbrain_flowmac.models.loading import ModelNotFoundError


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return make_tiny_model(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module")
def codec(folder):
    return FlowMACCodec.from_hparams(folder, run_opts={"device": "cpu"})


@pytest.fixture(scope="module")
def batch():
    lengths = [24000, 16001, 7999]
    wavs = torch.zeros(3, 24000)
    for i, length in enumerate(lengths):
        wavs[i, :length] = torch.as_tensor(speech_like(1.0, i))[:length]
    return wavs, torch.tensor(lengths)


def test_lengths_are_exact(codec, batch):
    wavs, lengths = batch
    tokens, frames = codec.encode_batch(wavs, lengths / 24000)
    assert tokens.shape == (3, 47, 8)
    assert tokens.dtype == torch.int64
    assert frames.tolist() == [47, 32, 16]
    assert not tokens[2, 16:].any()


def test_a_batch_codes_as_its_items(codec, batch):
    wavs, lengths = batch
    tokens, frames = codec.encode_batch(wavs, lengths / 24000)
    decoded = codec.decode_batch(tokens, frames, seed=3)
    for i, length in enumerate(lengths.tolist()):
        alone, _ = codec.encode_batch(wavs[i : i + 1, :length])
        assert torch.equal(alone[0], tokens[i, : frames[i]])
        wav = codec.decode_batch(alone, seed=3)[0]
        torch.testing.assert_close(
            decoded[i, : len(wav)], wav, atol=2e-4, rtol=1e-3
        )
        assert not decoded[i, len(wav) :].any()


def test_what_lies_past_the_end_does_not_matter(codec, batch):
    wavs, lengths = batch
    dirty = wavs.clone()
    dirty[2, 7999:] = 0.5
    clean, _ = codec.encode_batch(wavs, lengths / 24000)
    tokens, _ = codec.encode_batch(dirty, lengths / 24000)
    assert torch.equal(tokens, clean)


def test_decoding_is_seeded(codec, batch):
    tokens, _ = codec.encode_batch(batch[0])
    torch.manual_seed(1)
    first = codec.decode_batch(tokens, seed=1)
    torch.manual_seed(2)
    assert torch.equal(codec.decode_batch(tokens, seed=1), first)
    assert not torch.equal(codec.decode_batch(tokens, seed=2), first)


def test_codebooks_are_a_prefix(codec, batch):
    tokens, _ = codec.encode_batch(batch[0])
    for count in (1, 2, 4):
        fewer, _ = codec.encode_batch(batch[0], num_codebooks=count)
        assert torch.equal(fewer, tokens[..., :count])
        assert codec.decode_batch(fewer).shape == (3, 24064)
        assert codec.bit_rate(count) == 375 * count


@pytest.mark.parametrize("count", [0, 9, -1])
def test_wrong_numbers_of_codebooks_are_refused(codec, batch, count):
    with pytest.raises(ValueError, match="1..8"):
        codec.encode_batch(batch[0], num_codebooks=count)


def test_wrong_shapes_and_tokens_are_refused(codec):
    with pytest.raises(ValueError, match=r"\[B, T\]"):
        codec.encode_batch(torch.zeros(100))
    with pytest.raises(ValueError, match="integer tokens"):
        codec.decode_batch(torch.zeros(1, 2, 8))
    with pytest.raises(ValueError, match="0..255"):
        codec.decode_batch(torch.full((1, 2, 8), 256))
    with pytest.raises(ValueError, match="relative lengths"):
        codec.encode_batch(torch.zeros(1, 100), torch.tensor([1.5]))
    with pytest.raises(ValueError, match="condition_dropout"):
        codec.decode_batch(torch.zeros(1, 2, 8, dtype=torch.long), guidance=1.0)


# SpeechBrain's own way of reading a file


@pytest.mark.parametrize("rate", [8000, 16000, 24000, 44100, 48000])
@pytest.mark.parametrize("channels", [1, 2])
@pytest.mark.parametrize("subtype", ["PCM_16", "FLOAT"])
def test_load_audio_has_the_codecs_rate(
    codec, tmp_path, rate, channels, subtype
):
    time = np.arange(rate) / rate
    tone = 0.5 * np.sin(2 * np.pi * 1000 * time)
    stereo = np.stack([tone, 0 * tone][:channels], 1)
    path = tmp_path / "tone.wav"
    soundfile.write(path, stereo, rate, subtype=subtype)
    signal = codec.load_audio(str(path))
    assert signal.shape == (24000,) and signal.dtype == torch.float32
    expected = (
        0.5 / channels * np.sin(2 * np.pi * 1000 * np.arange(24000) / 24000)
    )
    inside = slice(1000, -1000)
    np.testing.assert_allclose(signal[inside], expected[inside], atol=3e-3)
    tokens, _ = codec.encode_batch(signal.unsqueeze(0))
    assert tokens.shape == (1, 47, 8)


# the interface of DASB


def test_tokens_for_other_recipes(codec, batch):
    wavs, lengths = batch
    tokens = codec.sig_to_tokens(wavs, lengths / 24000, num_codebooks=2)
    assert tokens.shape == (3, 47, 2)
    wav = codec.tokens_to_sig(tokens, lenght=None, something=1)
    assert wav.shape == (3, 24064)
    assert codec.sample_rate == 24000
    emb = codec.get_pretrained_embeddings(256, 2)
    assert emb.shape == (512, 8)
    vectors = emb[tokens + torch.arange(2) * 256].sum(2)
    torch.testing.assert_close(vectors, codec.codec.quantizer.decode(tokens))
    with pytest.raises(ValueError, match="vocab_size"):
        codec.get_pretrained_embeddings(1024)


def test_it_behaves_inside_a_brain(codec, batch):
    tokens, _ = codec.encode_batch(batch[0])
    codec.train()
    assert not any(module.training for module in codec.modules())
    codec.device = "cpu"
    again, embeddings = codec(batch[0], torch.ones(3))
    assert torch.equal(again, tokens)
    assert embeddings.shape == (3, 47, 8)


# loading


def test_loading_touches_no_network(folder):
    # conftest forbids connections
    assert FlowMACCodec.from_hparams(str(folder)).num_codebooks == 8


@pytest.mark.parametrize("source", ["/no/such/folder", "./x", "flowmac-typo"])
def test_a_mistyped_source_is_said_so(source):
    with pytest.raises(ModelNotFoundError, match="built-in"):
        FlowMACCodec.from_hparams(source=source)


# files


@pytest.fixture
def wav_file(tmp_path):
    path = tmp_path / "in.wav"
    soundfile.write(path, speech_like(1.3, 0), 24000)
    return path


def test_files_round_trip(codec, wav_file, tmp_path):
    summary = codec.compress(wav_file, tmp_path / "a.fmac")
    samples = soundfile.info(str(wav_file)).frames
    frames = -(-samples // 512)
    assert summary.num_samples == samples
    assert summary.num_frames == frames
    assert summary.payload_bytes == frames * 8
    assert (tmp_path / "a.fmac").stat().st_size == summary.stream_bytes
    codec.decompress(tmp_path / "a.fmac", tmp_path / "out.wav", seed=1)
    decoded, rate = soundfile.read(tmp_path / "out.wav", dtype="float32")
    assert (len(decoded), rate) == (samples, 24000)
    tokens = codec.encode_file(wav_file)
    direct = codec.decode_batch(tokens, seed=1)[0, :samples].numpy()
    np.testing.assert_allclose(decoded, direct, atol=1e-4)


def test_the_same_input_gives_the_same_bits(codec, wav_file, tmp_path):
    for name in ("a", "b"):
        codec.compress(wav_file, tmp_path / name)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


@pytest.mark.parametrize("rate", [8000, 16000, 44100, 48000])
@pytest.mark.parametrize("mix", [True, False])
def test_any_rate_and_channels(codec, tmp_path, rate, mix):
    samples = 12345
    stereo = np.random.default_rng(0).normal(size=(samples, 2)) * 0.1
    soundfile.write(tmp_path / "in.flac", stereo, rate)
    summary = codec.compress(tmp_path / "in.flac", tmp_path / "a", mix=mix)
    assert summary.num_samples == -(-samples * 24000 // rate)
    channels = 1 if mix else 2
    assert summary.header.num_channels == channels
    codec.decompress(tmp_path / "a", tmp_path / "out.wav")
    decoded, _ = soundfile.read(tmp_path / "out.wav", always_2d=True)
    assert decoded.shape == (summary.num_samples, channels)


def test_resampling_in_blocks_keeps_the_tone(tmp_path):
    # longer than one block, so that the resampler's state is carried
    time = np.arange(44100 * 15) / 44100
    tone = 0.5 * np.sin(2 * np.pi * 1000 * time)
    soundfile.write(tmp_path / "tone.wav", tone, 44100, subtype="FLOAT")
    with open_audio(tmp_path / "tone.wav", 24000) as audio:
        signal = torch.cat(list(audio.blocks()), 1)[0].numpy()
        assert len(signal) == audio.num_samples == 24000 * 15
    time = np.arange(len(signal)) / 24000
    expected = 0.5 * np.sin(2 * np.pi * 1000 * time)
    inside = slice(1000, -1000)
    np.testing.assert_allclose(signal[inside], expected[inside], atol=1e-3)


def test_another_models_stream_is_refused(codec, wav_file, tmp_path):
    folder = make_tiny_model(tmp_path / "other", head="free")
    other = FlowMACCodec.from_hparams(folder, run_opts={"device": "cpu"})
    with torch.no_grad():
        other.codec.encoder.project_out.bias.add_(1)
    codec.compress(wav_file, tmp_path / "a.fmac")
    with pytest.raises(FingerprintMismatchError, match="another model"):
        other.decompress(tmp_path / "a.fmac", tmp_path / "out.wav")
    assert not (tmp_path / "out.wav").exists()


def test_bad_audio_leaves_nothing(codec, tmp_path):
    (tmp_path / "text.wav").write_text("not audio")
    soundfile.write(tmp_path / "empty.wav", np.zeros(0), 24000)
    for name in ("text.wav", "empty.wav"):
        with pytest.raises(AudioFileError):
            codec.compress(tmp_path / name, tmp_path / "out.fmac")
    with pytest.raises(FileNotFoundError):
        codec.compress(tmp_path / "no.wav", tmp_path / "out.fmac")
    names = {path.name for path in tmp_path.iterdir()}
    assert names == {"text.wav", "empty.wav"}


def test_a_format_that_cannot_hold_the_channels_is_said_so(codec, tmp_path):
    noise = np.random.default_rng(0).normal(size=(2000, 3)) * 0.1
    soundfile.write(tmp_path / "in.wav", noise, 24000)
    codec.compress(tmp_path / "in.wav", tmp_path / "a.fmac", mix=False)
    with pytest.raises(AudioFileError, match="3 channels .* MP3"):
        codec.decompress(tmp_path / "a.fmac", tmp_path / "out.mp3")
    assert not (tmp_path / "out.mp3").exists()


def test_a_cut_file_is_coded_with_a_warning(codec, wav_file, tmp_path):
    data = wav_file.read_bytes()
    wav_file.write_bytes(data[: len(data) // 2])
    with pytest.warns(UserWarning, match="in.wav: its header claims 1.300 s"):
        summary = codec.compress(wav_file, tmp_path / "a.fmac")
    assert summary.num_samples == (len(data) // 2 - 44) // 2


def test_settings_of_sampling_go_by_their_names(codec, wav_file, tmp_path):
    codec.compress(wav_file, tmp_path / "a.fmac")
    tokens = codec.encode_file(wav_file)
    whole = codec.decode_batch(tokens, seed=2, n_steps=3, temperature=0.5)
    options = {"seed": 2, "n_steps": 3, "temperature": 0.5}
    codec.decompress(tmp_path / "a.fmac", tmp_path / "b.wav", **options)
    heard, _ = soundfile.read(tmp_path / "b.wav", dtype="float32")
    np.testing.assert_allclose(heard, whole[0, : len(heard)], atol=1e-4)
    for call in (
        lambda: codec.decode_batch(tokens, nsteps=3),
        lambda: codec.sampling(seed=3),
        lambda: codec.decompress(
            tmp_path / "a.fmac", tmp_path / "c.wav", steps=3
        ),
    ):
        with pytest.raises(TypeError, match="no setting of sampling: "):
            call()
    assert not (tmp_path / "c.wav").exists()
