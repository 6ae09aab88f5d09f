"""Audio files as they come: cut, without a length, at any rate."""

import io

import numpy as np
import pytest
import soundfile
import soxr
import torch

from speechbrain_flowmac.audio import AudioFileError, open_audio

RATE = 24000
SAMPLES = 5 * RATE + 777


def noise(samples=SAMPLES, channels=1, seed=0):
    rng = np.random.default_rng(seed)
    return 0.1 * rng.normal(size=(samples, channels)).clip(-3, 3)


def written(signal, kind, rate=RATE, **how):
    file = io.BytesIO()
    soundfile.write(file, signal, rate, format=kind, **how)
    return file.getvalue()


def without_length(flac):
    """A FLAC whose header says 0 samples, as streamed encoders write it."""
    data = bytearray(flac)
    data[21] &= 0xF0
    data[22:26] = bytes(4)
    return bytes(data)


def read(source, rate=RATE, mix=False):
    """All samples [channels, T], and the reader after it."""
    with open_audio(source, rate, mix) as audio:
        blocks = list(audio.blocks())
    signal = torch.cat(blocks, 1)
    assert signal.shape == (audio.num_channels, audio.num_samples)
    return signal.numpy(), audio


# what a header claims


@pytest.mark.parametrize("part", [0.9, 0.5, 0.1])
@pytest.mark.parametrize(
    "kind", ["WAV", "WAVEX", "RF64", "W64", "AIFF", "AU", "FLAC", "MP3"]
)
def test_what_is_there_of_a_cut_file_is_read_and_said(tmp_path, kind, part):
    data = written(noise(), kind)
    whole, audio = read(io.BytesIO(data))
    assert audio.shortfall is None
    path = tmp_path / f"cut.{kind.lower()}"
    path.write_bytes(data[: int(len(data) * part)])
    for source in (path, io.BytesIO(path.read_bytes())):
        found, audio = read(source)
        # blocks of up to 4608 samples, and a header
        assert abs(found.shape[1] - part * SAMPLES) < 5000
        # a decoder that is cut off may be unsure of its last frame
        kept = found.shape[1] - 1200 * (kind == "MP3")
        np.testing.assert_array_equal(found[:, :kept], whole[:, :kept])
        assert f"{found.shape[1] / RATE:.3f} s are there" in audio.shortfall


@pytest.mark.parametrize("kind", ["WAV", "FLAC", "MP3"])
def test_the_shortfall_is_in_seconds(kind):
    data = written(noise(10 * RATE), kind)
    _, audio = read(io.BytesIO(data[: len(data) // 2]))
    words = audio.shortfall.split()
    assert words[:3] == ["its", "header", "claims"]
    assert float(words[3]) == pytest.approx(10, abs=0.06)
    assert float(words[5]) == pytest.approx(5, abs=0.2)


@pytest.mark.parametrize("kind", ["OGG", "WAV", "FLAC"])
def test_a_whole_file_lacks_nothing(kind):
    for samples in (1, 4096, SAMPLES):
        found, audio = read(io.BytesIO(written(noise(samples), kind)))
        assert found.shape[1] == samples == audio.expected_samples
        assert audio.shortfall is None


@pytest.mark.parametrize("size", [0xFFFFFFFF, 0x7FFFFFFF, 0x7FFFF000])
def test_a_length_that_was_not_known_is_no_claim(size):
    data = bytearray(written(noise(3000), "WAV"))
    data[4:8] = data[40:44] = size.to_bytes(4, "little")
    found, audio = read(io.BytesIO(bytes(data)))
    assert (found.shape[1], audio.shortfall) == (3000, None)


# no length at all


@pytest.mark.parametrize(
    "samples", [1, 15, 4095, 4096, 4097, 143_999, 1 << 18, (1 << 18) + 1]
)
@pytest.mark.parametrize("channels", [1, 2])
def test_flac_without_a_length_is_read_to_its_end(tmp_path, samples, channels):
    data = written(noise(samples, channels), "FLAC")
    path = tmp_path / "a.flac"
    path.write_bytes(without_length(data))
    expected, _ = read(io.BytesIO(data))
    for source in (path, io.BytesIO(path.read_bytes())):
        found, audio = read(source)
        assert audio.expected_samples is None
        assert audio.shortfall is None
        np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("subtype", ["PCM_S8", "PCM_24"])
@pytest.mark.parametrize("rate", [8000, 44100])
def test_flac_without_a_length_is_resampled_like_any(subtype, rate):
    data = written(noise(70_001, 2), "FLAC", rate, subtype=subtype)
    expected, _ = read(io.BytesIO(data), mix=True)
    found, _ = read(io.BytesIO(without_length(data)), mix=True)
    np.testing.assert_array_equal(found, expected)


# rates


@pytest.mark.parametrize("rate", [7350, 8000, 11025, 16000, 44100, 96000])
@pytest.mark.parametrize("samples", [1, 2, 100, 12345, (1 << 18) + 7])
def test_resampling_keeps_the_duration(rate, samples):
    found, _ = read(io.BytesIO(written(noise(samples), "WAV", rate)))
    assert found.shape[1] == -(-samples * RATE // rate)


@pytest.mark.parametrize("lost", [3, 1000])
def test_more_than_a_rounding_is_not_filled(monkeypatch, lost):
    whole = soxr.ResampleStream.resample_chunk

    def short(self, block, last):
        out = whole(self, block, last=last)
        return out[:-lost] if last else out

    class Stream(soxr.ResampleStream):
        resample_chunk = short

    monkeypatch.setattr(soxr, "ResampleStream", Stream)
    with pytest.raises(AudioFileError, match="resampling gave"):
        read(io.BytesIO(written(noise(), "WAV", 16000)))


# what cannot be read


@pytest.mark.parametrize("size", [0, 10, 44])
def test_nothing_is_an_error(tmp_path, size):
    (tmp_path / "a.wav").write_bytes(written(noise(), "WAV")[:size])
    with pytest.raises(AudioFileError, match="a.wav"):
        read(tmp_path / "a.wav")


def test_a_flac_of_a_header_alone_is_an_error():
    data = written(noise(), "FLAC")
    for bad in (data[:100], without_length(data)[:100]):
        with pytest.raises(AudioFileError):
            read(io.BytesIO(bad))
