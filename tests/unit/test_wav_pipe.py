"""WAV through pipes, compared with what libsndfile makes of a file."""

import io
from types import SimpleNamespace

import numpy as np
import pytest
import soundfile

from speechbrain_flowmac.audio import AudioFileError, open_audio
from speechbrain_flowmac.bitstream.source import Source
from speechbrain_flowmac.wav_pipe import open_wav, write_wav

RATE = 24000
SAMPLES = 5003
SUBTYPES = ["PCM_U8", "PCM_16", "PCM_24", "PCM_32"]
SUBTYPES += ["FLOAT", "DOUBLE", "ALAW", "ULAW"]


class Pipe(io.RawIOBase):
    """Gives its bytes once, some at a time."""

    def __init__(self, data, most=1000):
        self.data, self.most = io.BytesIO(data), most

    def readable(self):
        return True

    def readinto(self, buffer):
        data = self.data.read(min(len(buffer), self.most))
        buffer[: len(data)] = data
        return len(data)


def noise(channels=1):
    rng = np.random.default_rng(0)
    return 0.1 * rng.normal(size=(SAMPLES, channels)).clip(-3, 3)


def written(kind="WAV", channels=1, **how):
    file = io.BytesIO()
    soundfile.write(file, noise(channels), RATE, format=kind, **how)
    return file.getvalue()


def samples(wav, most=700):
    """All that is read, in blocks."""
    blocks, block = [], np.zeros((most, wav.channels), np.float32)
    while len(found := wav.read(block)):
        blocks.append(found.copy())
    return np.concatenate(blocks)


def as_a_file(data):
    return soundfile.read(io.BytesIO(data), dtype="float32", always_2d=True)[0]


@pytest.mark.parametrize("kind", ["WAV", "WAVEX"])
@pytest.mark.parametrize("channels", [1, 2, 3])
@pytest.mark.parametrize("subtype", SUBTYPES)
def test_samples_are_those_of_libsndfile(kind, channels, subtype):
    data = written(kind, channels, subtype=subtype)
    _, wav = open_wav(Source(Pipe(data)))
    assert (wav.channels, wav.samplerate) == (channels, RATE)
    assert wav.frames == SAMPLES
    np.testing.assert_array_equal(samples(wav), as_a_file(data))


def with_chunks(data, before=b"", behind=b""):
    """A plain WAV with chunks around that of the samples."""
    return data[:36] + before + data[36:] + behind


def test_other_chunks_are_passed_over():
    note = b"note" + (3).to_bytes(4, "little") + b"odd\0"
    data = written()
    pipe = Pipe(with_chunks(data, note * 2, note * 100))
    found = samples(open_wav(Source(pipe))[1])
    np.testing.assert_array_equal(found, as_a_file(data))
    # whoever writes is not stopped in the middle
    assert pipe.read(1) == b""


@pytest.mark.parametrize("size", [0, 0x7FFFF000, 0x7FFFFFFF, 0xFFFFFFFF])
@pytest.mark.parametrize("cut", [0, 1, 1000])
def test_a_length_that_was_not_known_is_that_of_the_pipe(size, cut):
    data = bytearray(written(subtype="PCM_16"))
    data[40:44] = size.to_bytes(4, "little")
    pipe = Pipe(bytes(data[: len(data) - cut]))
    with open_audio(pipe, RATE) as audio:
        blocks = list(audio.blocks())
    assert audio.expected_samples is audio.shortfall is None
    # what is left of half a sample is none
    assert audio.num_samples == SAMPLES - (cut + 1) // 2
    expected = as_a_file(written(subtype="PCM_16"))[: audio.num_samples, 0]
    np.testing.assert_array_equal(blocks[0][0].numpy(), expected)


FORMATS = ["FLAC", "OGG", "AIFF", "AU", "RF64", "W64", "CAF"]
ODD = {
    "ADPCM": written(subtype="IMA_ADPCM"),
    "a head of a megabyte": with_chunks(
        written(), b"note" + (1 << 20).to_bytes(4, "little") + bytes(1 << 20)
    ),
}


@pytest.mark.parametrize(
    "data", [*map(written, FORMATS), *ODD.values()], ids=[*FORMATS, *ODD]
)
def test_libsndfile_reads_all_others(data):
    head, wav = open_wav(Source(Pipe(data)))
    assert wav is None and data.startswith(head)
    with open_audio(Pipe(data), RATE) as audio:
        (block,) = audio.blocks()
    np.testing.assert_array_equal(block[0].numpy(), as_a_file(data)[:, 0])


@pytest.mark.parametrize(
    "place, value",
    # none, or too many: channels, a rate, bytes of a frame
    [(22, 0), (22, 2000), (24, 0), (32, 7), (20, 99)],
)
def test_libsndfile_judges_bad_formats(place, value):
    data = bytearray(written(subtype="PCM_16"))
    data[place : place + 2] = value.to_bytes(2, "little")
    assert open_wav(Source(Pipe(bytes(data))))[1] is None


@pytest.mark.parametrize("size", [0, 4, 11, 12, 19, 20, 30, 36, 43, 44])
def test_a_cut_head_is_an_error(size):
    with (
        pytest.raises(AudioFileError, match="the input|holds no samples"),
        open_audio(Pipe(written(subtype="PCM_16")[:size]), RATE) as audio,
    ):
        list(audio.blocks())


# Written

MONO = SimpleNamespace(sample_rate=RATE, num_channels=1)


def blocks_of(signal, size):
    signal = signal.astype(np.float32)
    return [signal[i : i + size] for i in range(0, len(signal), size)]


@pytest.mark.parametrize("channels", [1, 2])
@pytest.mark.parametrize("size", [1 << 20, 999])
def test_what_is_written_is_what_libsndfile_writes(channels, size):
    header = SimpleNamespace(sample_rate=RATE, num_channels=channels)
    signal = noise(channels)
    signal[0], signal[1] = 1, -1
    file, expected = io.BytesIO(), io.BytesIO()
    write_wav(file, header, blocks_of(signal, size), SAMPLES)
    signal = signal.astype(np.float32)
    soundfile.write(expected, signal, RATE, "PCM_16", format="WAV")
    assert file.getvalue() == expected.getvalue()


@pytest.mark.parametrize("num_samples", [None, 1 << 31])
def test_a_length_that_cannot_be_stated(num_samples):
    stated, file = io.BytesIO(), io.BytesIO()
    blocks = blocks_of(noise(), 999)
    write_wav(stated, MONO, blocks, SAMPLES)
    write_wav(file, MONO, blocks, num_samples)
    expected = bytearray(stated.getvalue())
    expected[4:8] = expected[40:44] = bytes([255] * 4)
    assert file.getvalue() == expected
    with open_audio(Pipe(file.getvalue()), RATE) as audio:
        list(audio.blocks())
    assert (audio.num_samples, audio.shortfall) == (SAMPLES, None)


def test_each_block_is_written_when_it_is_there():
    file = io.BytesIO()

    def blocks():
        assert file.tell() == 0
        for block in blocks_of(noise(), 1000):
            yield block
            seen.append(file.tell())

    seen = []
    write_wav(file, MONO, blocks())
    assert seen == [44 + 2000 * (i + 1) for i in range(5)] + [44 + 2 * SAMPLES]


def test_an_error_before_the_first_block_leaves_nothing():
    def blocks():
        raise RuntimeError
        yield

    file = io.BytesIO()
    with pytest.raises(RuntimeError):
        write_wav(file, MONO, blocks())
    assert file.getvalue() == b""
