"""What the shipped model does to sounds that are no clean speech."""

import numpy as np
import partials
import pytest
import soundfile
import torch

from speechbrain_flowmac import FlowMACCodec
from speechbrain_flowmac.lobes.noise import seeded_noise
from speechbrain_flowmac.models.loading import MODELS_FOLDER

MODEL = "flowmac-24khz-3kbps"
RATE = 24000
TIME = np.arange(2 * RATE) / RATE

# log-mel of frames 0, 40, 80 in bands 0, 40, 80
GOLDEN = [
    [-2.9992, -3.3140, -6.9012],
    [-5.8455, -5.9729, -5.9247],
    [-4.6747, -4.5653, -7.0063],
]


@pytest.fixture(scope="module")
def codec():
    return FlowMACCodec.from_hparams(MODEL)


def white():
    return np.random.default_rng(5).standard_normal(len(TIME))


def pink():
    spectrum = np.fft.rfft(white())
    return np.fft.irfft(
        spectrum / np.sqrt(np.maximum(np.arange(len(spectrum)), 20))
    )


def chord():
    return partials.chord(RATE)


def speech():
    wav, rate = soundfile.read(MODELS_FOLDER / MODEL / "example.wav")
    assert rate == RATE
    return wav[RATE : 3 * RATE]


def noisy_speech():
    return speech() / speech().std() + white() * 10 ** (-10 / 20)


def level(signal):
    """RMS in dB."""
    return 10 * np.log10(np.mean(np.square(np.asarray(signal))) + 1e-12)


def through(codec, signal):
    """A signal [T] through all codebooks and back."""
    tokens, lengths = codec.encode_batch(torch.from_numpy(signal).float()[None])
    return codec.decode_batch(tokens, lengths)[0, : len(signal)].numpy()


@pytest.mark.parametrize("sound", [white, pink, chord, speech, noisy_speech])
@pytest.mark.parametrize("wanted", [-26.0, -40.0])
def test_sounds_keep_their_level(codec, sound, wanted):
    signal = sound()
    signal = signal * 10 ** ((wanted - level(signal)) / 20)
    assert level(through(codec, signal)) == pytest.approx(wanted, abs=5.0)


def test_noise_keeps_its_spectrum(codec):
    signal = 0.05 * white()
    bands = []
    for x in (signal, through(codec, signal)):
        power = np.square(np.abs(np.fft.rfft(x)))[:-1]
        # 1.5 kHz each; nothing is asked above 10.5 kHz
        bands.append(10 * np.log10(power.reshape(8, -1).mean(1))[:-1])
    assert np.abs(bands[0] - bands[1]).max() < 6.0


@pytest.mark.parametrize("sound", [partials.chord, partials.sung_note])
def test_tones_keep_their_pitch(codec, sound):
    signal = sound(RATE)
    signal = signal / signal.std() * 0.05
    errors = partials.pitch_errors(signal, through(codec, signal), RATE)
    assert max(errors) < 20.0


def test_silence_stays_silent(codec):
    assert level(through(codec, np.zeros(RATE))) < -70


def test_the_default_is_one_euler_step_from_seeded_noise(codec):
    """Written out, and a few values as they have been since the release."""
    model = codec.codec
    tokens = torch.arange(400).reshape(1, 50, 8) * 7 % 256
    mel = model.decode(tokens, sampling=codec.sampling(spread=0.0), seed=3)
    with torch.no_grad():
        mu = model.decoder(model.quantizer.decode(tokens))
        noise = seeded_noise(3, 0, 0, *mu.shape[1:])[None]
        x = noise + model.flow.field(noise, torch.zeros(1), mu)
    assert torch.equal(mel, model.normalizer.denormalize(x))
    torch.testing.assert_close(
        mel[0, ::40, ::40], torch.tensor(GOLDEN), atol=1e-3, rtol=0
    )
    assert torch.equal(model.decode(tokens, seed=3), model.spread(mel, 8))


def test_searched_codes_say_more_of_speech_than_the_nearest(codec, monkeypatch):
    wav = torch.from_numpy(speech()).float()[None]
    quantizer = codec.codec.quantizer
    true = codec.codec.analyse(wav)[0]

    def error(beam_size, count):
        monkeypatch.setattr(quantizer, "beam_size", beam_size)
        tokens, _ = codec.encode_batch(wav, num_codebooks=count)
        mean = codec.codec.decode_mean(tokens)[:, : true.shape[1]]
        return (mean - true).abs().mean()

    assert quantizer.beam_size == 8
    with torch.no_grad():
        assert error(8, 8) < 0.995 * error(1, 8)
        assert error(8, 4) < 0.995 * error(1, 4)
        assert error(8, 1) < 1.02 * error(1, 1)
