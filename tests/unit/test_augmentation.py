"""Properties of what is done to training crops."""

from types import SimpleNamespace

import numpy as np
import pytest
import soundfile
import torch
from corpus import speech_like
from scipy.signal import lfilter
from training_runs import HPARAMS, top_level_keys

from speechbrain_flowmac.training.augmentation import (
    Augment,
    BandLimiter,
    Equalizer,
    FormantShifter,
    LevelSetter,
    Resampler,
    Reverberator,
    SoundMixer,
    SpectralTilter,
)
from speechbrain_flowmac.training.augmentation.base import log_uniform
from speechbrain_flowmac.training.augmentation.filters import bandwidth
from speechbrain_flowmac.training.augmentation.sounds import (
    coloured_noise,
    tones,
)
from speechbrain_flowmac.training.data import Cropper, F0Labels

RATE = 24000
ALL = [
    Resampler,
    FormantShifter,
    SpectralTilter,
    Equalizer,
    Reverberator,
    BandLimiter,
    LevelSetter,
    SoundMixer,
]


def generator(seed=0):
    return np.random.default_rng(seed)


def level(signal):
    """RMS in dB."""
    return 20 * np.log10(np.sqrt(np.mean(np.square(np.asarray(signal)))))


def speech(seconds=0.5, seed=3):
    return torch.from_numpy(speech_like(seconds, seed))


def white(seconds=2.0, seed=0):
    samples = generator(seed).standard_normal(int(seconds * RATE))
    return torch.from_numpy(0.1 * samples).float()


def impulse():
    signal = torch.zeros(6000)
    signal[1000] = 1.0
    return signal


def gain_db(changed, signal, low, high):
    """Change of the power between two frequencies, in dB."""
    power = [np.abs(np.fft.rfft(np.asarray(x))) ** 2 for x in (changed, signal)]
    band = slice(
        int(low * len(signal) / RATE), int(high * len(signal) / RATE) + 1
    )
    return 10 * np.log10(power[0][band].sum() / power[1][band].sum())


# All of them


@pytest.mark.parametrize("kind", ALL)
def test_a_share_of_the_crops_changes(kind):
    crop, source = speech(0.2), generator()
    augmentation = kind(share=0.3)
    changed = [augmentation(crop, RATE, source) is not crop for _ in range(400)]
    assert np.mean(changed) == pytest.approx(0.3, abs=0.07)
    none = kind(share=0.0)
    assert all(none(crop, RATE, generator(k)) is crop for k in range(20))


@pytest.mark.parametrize("kind", ALL)
@pytest.mark.parametrize("length", [0, 1, 100, 5001])
def test_crops_of_any_length_come_from_their_seed(kind, length):
    crop = white()[:length]
    augmentation = kind(share=1.0)
    for seed in range(5):
        changed = augmentation(crop, RATE, generator(seed))
        assert changed.dtype == torch.float32 and changed.ndim == 1
        assert changed.isfinite().all()
        if kind is not Resampler:
            assert len(changed) == length
        again = augmentation(crop, RATE, generator(seed))
        assert torch.equal(changed, again)


@pytest.mark.parametrize("kind", ALL)
def test_crops_are_left_as_they_were(kind):
    crop = speech()
    before = crop.clone()
    kind(share=1.0)(crop, RATE, generator())
    assert torch.equal(crop, before)


@pytest.mark.parametrize("kind", [k for k in ALL if k is not SoundMixer])
def test_silence_stays_silence(kind):
    changed = kind(share=1.0)(torch.zeros(4000), RATE, generator())
    assert not changed.any()


# Their composition


def test_they_are_applied_in_order():
    half = LevelSetter(share=1.0, level_db=(-20, -20))
    other = LevelSetter(share=1.0, level_db=(-30, -30))
    for parts in ([half, other], [other, half]):
        changed = Augment(parts)(speech(), RATE, generator())
        wanted = parts[-1].level_db[0]
        assert level(changed) == pytest.approx(wanted, abs=1e-3)


def test_the_share_of_one_leaves_the_choices_of_others_alone():
    crop = speech()

    def changed(share):
        parts = [Equalizer(share=share), LevelSetter(share=1.0)]
        return level(Augment(parts)(crop, RATE, generator(5)))

    assert changed(0.0) == pytest.approx(changed(1.0), abs=1e-3)


def test_reach_is_enough_for_the_fastest():
    augment = Augment([Resampler(share=1.0, factor=(1.25, 1.25)), Equalizer()])
    assert augment.reach == 1.25
    crop = white()[: int(6000 * augment.reach)]
    assert len(augment(crop, RATE, generator())) >= 6000
    assert Augment([Resampler(factor=(0.8, 0.9))]).reach == 1.0
    assert Augment([]).reach == 1.0


def test_augmented_crops_never_clip_and_can_be_made_again(tmp_path):
    path = tmp_path / "x.wav"
    soundfile.write(path, speech_like(1.0, seed=4), RATE)

    def crop(epoch, augment):
        epochs = SimpleNamespace(current=epoch)
        return Cropper(RATE, 6000, 1, epochs, augment)("x", path)[0]

    augment = Augment([kind(share=0.7) for kind in ALL])
    for epoch in range(1, 30):
        made = crop(epoch, augment)
        assert made.shape == (6000,) and made.dtype == torch.float32
        assert made.abs().max() <= 1 + 1e-6
        assert torch.equal(made, crop(epoch, augment))
        assert not torch.equal(made, crop(epoch, None))


CROPPING = [path for path in HPARAMS if "crop_frames" in top_level_keys(path)]


@pytest.mark.parametrize("path", CROPPING, ids=lambda path: path.stem)
def test_each_has_its_share_in_every_yaml_of_crops(path):
    text = path.read_text("utf-8")
    for kind in ALL:
        name = f"!new:speechbrain_flowmac.training.augmentation.{kind.__name__}"
        after = text.split(name)
        assert len(after) == 2
        assert after[1].split()[0] == "share:"


# Voices


def vowel(f0, formants, seconds=0.8):
    """A pulse train through resonances of 80 Hz."""
    pulses = np.zeros(int(seconds * RATE))
    pulses[(np.arange(int(seconds * f0)) * RATE / f0).astype(int)] = 1
    for formant in formants:
        radius = np.exp(-np.pi * 80 / RATE)
        angle = 2 * np.pi * formant / RATE
        poles = [1, -2 * radius * np.cos(angle), radius**2]
        pulses = lfilter([1], poles, pulses)
    return torch.from_numpy(0.3 * pulses / np.abs(pulses).max()).float()


def centre(signal, low, high):
    """Centre of gravity of the power between two frequencies, in Hz."""
    power = np.abs(np.fft.rfft(np.asarray(signal))) ** 2
    frequency = np.fft.rfftfreq(len(signal), 1 / RATE)
    inside = (frequency > low) & (frequency < high)
    return (power * frequency)[inside].sum() / power[inside].sum()


def median_f0(signal):
    """What the labels say of a crop, over its voiced part."""
    labels = F0Labels(RATE, 512, 2, 50.0, 600.0)(signal)[8:-8]
    assert (labels > 0).float().mean() > 0.9
    return labels[labels > 0].median().item()


@pytest.mark.parametrize("factor", [0.8, 1.0, 1.25])
def test_resampling_moves_pitch_formants_and_pace(factor):
    signal = vowel(150, [700])
    resampler = Resampler(share=1.0, factor=(factor, factor))
    changed = resampler(signal, RATE, generator())
    assert len(changed) == pytest.approx(len(signal) / factor, abs=2)
    assert median_f0(changed) == pytest.approx(150 * factor, rel=0.01)
    before = centre(signal, 300, 1400)
    after = centre(changed, 300 * factor, 1400 * factor)
    assert after == pytest.approx(factor * before, rel=0.02)


def test_resampling_draws_all_of_its_range():
    signal, source = white(0.1), generator()
    resampler = Resampler(share=1.0)
    factors = [
        len(signal) / len(resampler(signal, RATE, source)) for _ in range(200)
    ]
    assert 0.8 <= min(factors) + 1e-3 < 0.82
    assert 1.22 < max(factors) <= 1.25 + 1e-3
    assert np.median(factors) == pytest.approx(1, abs=0.04)


@pytest.mark.parametrize("f0", [110, 210])
@pytest.mark.parametrize("factor", [0.85, 1.18])
def test_formants_are_shifted_and_pitch_stays(f0, factor):
    signal = vowel(f0, [1500])
    shifter = FormantShifter(share=1.0, factor=(factor, factor))
    changed = shifter(signal, RATE, generator())
    assert median_f0(changed) == pytest.approx(f0, rel=0.01)
    before, after = (centre(x, 1000, 2100) for x in (signal, changed))
    assert after / before == pytest.approx(factor, rel=0.04)


def test_formants_that_stay_leave_the_signal():
    signal = speech()
    shifter = FormantShifter(share=1.0, factor=(1.0, 1.0))
    changed = shifter(signal, RATE, generator())
    torch.testing.assert_close(changed, signal, atol=1e-4, rtol=0)


def below(limit, rest=0.0):
    """White noise, of which little is left above a frequency."""
    signal = white().numpy()
    spectrum = np.fft.rfft(signal)
    spectrum[np.fft.rfftfreq(len(signal), 1 / RATE) > limit] *= rest
    return torch.from_numpy(np.fft.irfft(spectrum)).float()


def test_no_frequency_is_raised_without_bounds():
    # formants move into the empty band, whose noise must stay noise
    signal = below(6000, rest=1e-2)
    shifter = FormantShifter(share=1.0, factor=(1.18, 1.18), max_gain_db=20)
    changed = shifter(signal, RATE, generator())
    assert 17 < gain_db(changed, signal, 6400, 6700) < 20.5


@pytest.mark.parametrize("slope", [-2.0, 0.0, 2.0])
def test_tilt_is_a_line_over_octaves(slope):
    signal = white()
    tilter = SpectralTilter(share=1.0, db_per_octave=(slope, slope))
    changed = tilter(signal, RATE, generator())
    gains = [
        gain_db(changed, signal, 0.97 * f, 1.03 * f)
        for f in (250, 500, 1000, 2000, 4000, 8000)
    ]
    wanted = slope * np.arange(-2, 4)
    assert gains == pytest.approx(list(wanted), abs=0.3)


# Microphones, rooms and channels


def test_equalizer_keeps_to_its_range_and_uses_it():
    signal, gains = white(), []
    for seed in range(30):
        changed = Equalizer(share=1.0)(signal, RATE, generator(seed))
        gains += [
            gain_db(changed, signal, 0.99 * f, 1.01 * f)
            for f in (375, 1500, 6000)
        ]
    assert -6.3 < min(gains) < -5 and 5 < max(gains) < 6.3
    assert abs(np.mean(gains)) < 1


@pytest.mark.parametrize("kind", [Equalizer, SpectralTilter, Reverberator])
def test_nothing_sounds_before_its_cause(kind):
    for seed in range(5):
        changed = kind(share=1.0)(impulse(), RATE, generator(seed)).numpy()
        early = np.square(changed[:1000]).sum()
        assert early < 1e-6 * np.square(changed).sum()
        # an equalizer lasts a few milliseconds: it makes no echo
        if kind is not Reverberator:
            late = np.square(changed[1500:]).sum()
            assert late < 1e-4 * np.square(changed).sum()


def test_rooms_are_small_and_let_the_sound_itself_through():
    for seed in range(20):
        response = Reverberator().response(RATE, generator(seed))
        assert response[0] == 1
        assert 0.05 * RATE - 1 <= len(response) <= 0.4 * RATE
        assert not response[1:24].any()  # a millisecond
        rest = 10 * np.log10(np.square(response[1:]).sum())
        assert -20 - 1e-6 <= rest <= -3 + 1e-6


def test_rooms_die_away():
    room = Reverberator(rt60=(0.3, 0.3))
    energies = []
    for seed in range(20):
        response = room.response(RATE, generator(seed))
        energies.append(np.square(response[240:]))
    energy = np.mean(energies, 0)
    early, late = energy[:480].mean(), energy[3600:4080].mean()
    # 0.15 s later: half of the 60 dB
    assert 10 * np.log10(early / late) == pytest.approx(30, abs=2)


def test_convolution_with_a_room_is_exact():
    signal = speech(0.2)
    changed = Reverberator(share=1.0)(signal, RATE, generator(1))
    source = generator(1)
    source.random()
    response = Reverberator().response(RATE, source)
    wanted = np.convolve(signal.double(), response)[: len(signal)]
    np.testing.assert_allclose(changed, wanted, atol=1e-5)


@pytest.mark.parametrize("limit", [2000, 5000, 9000, 11500])
def test_bandwidth_is_measured(limit):
    signal = below(limit, rest=1e-4).numpy()
    # wherever it is cut
    for start in (0, 777):
        found = bandwidth(signal[start : start + 18432], RATE)
        assert found == pytest.approx(limit, abs=201)
    assert bandwidth(np.zeros(4000), RATE) == 0


def test_band_limits_are_below_that_of_the_recording():
    own = 8000
    signal = below(own, rest=1e-6)
    limits = []
    for seed in range(60):
        changed = BandLimiter(share=1.0)(signal, RATE, generator(seed))
        limits.append(bandwidth(changed.numpy(), RATE))
        # what passes, passes as it was, at once
        assert abs(gain_db(changed, signal, 100, 3000)) < 0.05
        if limits[-1] < own - 400:
            gone = gain_db(changed, signal, limits[-1] + 200, own)
            assert gone < -40
    assert 3500 < min(limits) < 4200 and 7200 < max(limits) <= own + 200


def test_a_narrow_recording_is_left_alone():
    signal = below(3000)
    changed = BandLimiter(share=1.0)(signal, RATE, generator())
    assert torch.equal(changed, signal)


def test_levels_fill_their_range():
    signal, source = speech(), generator()
    setter = LevelSetter(share=1.0)
    levels = [level(setter(signal, RATE, source)) for _ in range(100)]
    assert -40 - 1e-3 <= min(levels) < -38
    loudest = min(-10, level(signal) + 20)
    assert loudest - 2 < max(levels) <= loudest + 1e-3


def test_a_pause_stays_one():
    pause = 1e-4 * white()
    for seed in range(20):
        changed = LevelSetter(share=1.0)(pause, RATE, generator(seed))
        assert level(changed) <= level(pause) + 20 + 1e-3


# Noise and tones


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
        lambda seed: coloured_noise(length, generator(seed)),
        lambda seed: tones(length, RATE, generator(seed)),
    ):
        sound = make(seed)
        assert sound.shape == (length,)
        assert level(sound) == pytest.approx(0, abs=1e-6)
        assert np.array_equal(sound, make(seed))
        assert not np.array_equal(sound, make(seed + 1))


def test_noise_is_between_white_and_brown():
    slopes, banded = [], 0
    for seed in range(60):
        noise = coloured_noise(2**14, generator(seed))
        power = np.abs(np.fft.rfft(noise)) ** 2
        if np.median(power) < 1e-9 * power.max() or (power < 1e-12).sum() > 2:
            banded += 1
        else:
            slopes.append(slope(noise))
    assert 20 <= banded <= 40
    assert -0.5 < min(slopes) < 1.5 and 4.5 < max(slopes) < 6.5


def test_tones_are_a_few_lines():
    for seed in range(10):
        power = np.abs(np.fft.rfft(tones(RATE, RATE, generator(seed)))) ** 2
        largest = np.sort(power)[::-1]
        # at most 5 x 24 harmonics, each of a few bins
        assert largest[: 5 * 24 * 8].sum() > 0.9 * power.sum()


def test_log_uniform_halves_at_the_geometric_mean():
    source = generator()
    drawn = np.array([log_uniform(10, 1000, source) for _ in range(2000)])
    assert drawn.min() >= 10 and drawn.max() <= 1000
    assert np.mean(drawn < 100) == pytest.approx(0.5, abs=0.04)


def test_sounds_alone_and_mixed_keep_to_their_ranges():
    crop = speech()
    mixer = SoundMixer(share=1.0, level_db=(-50, -20), snr_db=(5, 15))
    alone, ratios = [], []
    for seed in range(80):
        mixed = mixer(crop, RATE, generator(seed))
        # what is mixed holds the speech in full
        similarity = (mixed @ crop) / (crop @ crop)
        if similarity > 0.6:
            ratios.append(level(crop) - level(mixed - crop))
        else:
            alone.append(level(mixed))
    assert len(alone) > 20 and len(ratios) > 20
    assert -50 <= min(alone) < -45 and -25 < max(alone) <= -20
    assert 5 - 1e-3 <= min(ratios) < 7 and 13 < max(ratios) <= 15 + 1e-3
