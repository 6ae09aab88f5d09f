"""What the shipped model does to sounds that are no clean speech."""

import numpy as np
import pytest
import soundfile
import torch

from speechbrain_flowmac import FlowMACCodec
from speechbrain_flowmac.models.loading import MODELS_FOLDER

MODEL = "flowmac-24khz-3kbps"
RATE = 24000
TIME = np.arange(2 * RATE) / RATE


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
    notes = [
        np.sin(2 * np.pi * f * k * TIME) / k
        for f in (220.0, 277.2, 329.6)
        for k in range(1, 8)
    ]
    return sum(notes)


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


def test_silence_stays_silent(codec):
    assert level(through(codec, np.zeros(RATE))) < -70
