"""Properties of the sounds that are mixed into training crops."""

from types import SimpleNamespace

import numpy as np
import pytest
import soundfile
import torch
from corpus import speech_like

from speechbrain_flowmac.training.augmentation import (
    SoundMixer,
    coloured_noise,
    log_uniform,
    tones,
)
from speechbrain_flowmac.training.data import Cropper

RATE = 24000


def chance(seed=0):
    return np.random.default_rng(seed)


def level(signal):
    """RMS in dB."""
    return 20 * np.log10(np.sqrt(np.mean(np.square(np.asarray(signal)))))


def slope(noise):
    """Fall of a spectrum in dB per octave, from its band powers."""
    power = np.abs(np.fft.rfft(noise)) ** 2
    edges = [len(power) >> k for k in range(6, -1, -1)]
    bands = [
        power[low:high].mean()
        for low, high in zip(edges[:-1], edges[1:], strict=True)
    ]
    return -np.polyfit(np.arange(len(bands)), 10 * np.log10(bands), 1)[0]


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("length", [999, 6000])
def test_sounds_have_unit_rms_and_come_from_their_seed(seed, length):
    for make in (
        lambda seed: coloured_noise(length, chance(seed)),
        lambda seed: tones(length, RATE, chance(seed)),
    ):
        sound = make(seed)
        assert sound.shape == (length,)
        assert level(sound) == pytest.approx(0, abs=1e-6)
        assert np.array_equal(sound, make(seed))
        assert not np.array_equal(sound, make(seed + 1))


def test_noise_is_between_white_and_brown():
    slopes, banded = [], 0
    for seed in range(60):
        noise = coloured_noise(2**14, chance(seed))
        power = np.abs(np.fft.rfft(noise)) ** 2
        if np.median(power) < 1e-9 * power.max() or (power < 1e-12).sum() > 2:
            banded += 1
        else:
            slopes.append(slope(noise))
    assert 20 <= banded <= 40
    assert -0.5 < min(slopes) < 1.5 and 4.5 < max(slopes) < 6.5


def test_tones_are_a_few_lines():
    for seed in range(10):
        power = np.abs(np.fft.rfft(tones(RATE, RATE, chance(seed)))) ** 2
        largest = np.sort(power)[::-1]
        # at most 5 x 24 harmonics, each of a few bins
        assert largest[: 5 * 24 * 8].sum() > 0.9 * power.sum()


def test_log_uniform_halves_at_the_geometric_mean():
    source = chance()
    drawn = np.array([log_uniform(10, 1000, source) for _ in range(2000)])
    assert drawn.min() >= 10 and drawn.max() <= 1000
    assert np.mean(drawn < 100) == pytest.approx(0.5, abs=0.04)


def test_the_mixer_changes_its_share_of_the_crops():
    speech = torch.from_numpy(speech_like(0.2, seed=3)).float()
    mixer, source = SoundMixer(share=0.3), chance()
    changed = [
        not torch.equal(mixer(speech, RATE, source), speech) for _ in range(400)
    ]
    assert np.mean(changed) == pytest.approx(0.3, abs=0.07)


@pytest.mark.parametrize("share", [0, 0.0])
def test_no_share_leaves_all_crops_alone(share):
    speech = torch.from_numpy(speech_like(0.2, seed=3)).float()
    mixer = SoundMixer(share=share)
    assert all(mixer(speech, RATE, chance(k)) is speech for k in range(20))


def test_sounds_alone_and_mixed_keep_to_their_ranges():
    speech = torch.from_numpy(speech_like(0.5, seed=3)).float()
    mixer = SoundMixer(share=1.0, level_db=(-50, -20), snr_db=(5, 15))
    alone, ratios = [], []
    for seed in range(80):
        crop = mixer(speech, RATE, chance(seed))
        # what is mixed holds the speech in full
        similarity = (crop @ speech) / (speech @ speech)
        if similarity > 0.6:
            ratios.append(level(speech) - level(crop - speech))
        else:
            alone.append(level(crop))
    assert len(alone) > 20 and len(ratios) > 20
    assert -50 <= min(alone) < -45 and -25 < max(alone) <= -20
    assert 5 - 1e-3 <= min(ratios) < 7 and 13 < max(ratios) <= 15 + 1e-3


def test_silence_and_nothing_get_through():
    mixer = SoundMixer(share=1.0)
    for seed in range(20):
        crop = mixer(torch.zeros(2000), RATE, chance(seed))
        assert crop.isfinite().all()
        assert mixer(torch.zeros(0), RATE, chance(seed)).shape == (0,)


def test_crops_with_sounds_never_clip_and_can_be_made_again(tmp_path):
    path = tmp_path / "x.wav"
    soundfile.write(path, speech_like(1.0, seed=4), RATE)

    def crop(epoch, mixer):
        epochs = SimpleNamespace(current=epoch)
        return Cropper(RATE, 6000, 1, epochs, mixer=mixer)("x", path)[0]

    for epoch in range(1, 30):
        made = crop(epoch, SoundMixer(share=1.0))
        assert made.shape == (6000,) and made.dtype == torch.float32
        assert made.abs().max() <= 1 + 1e-6
        assert torch.equal(made, crop(epoch, SoundMixer(share=1.0)))
        assert not torch.equal(made, crop(epoch, None))
