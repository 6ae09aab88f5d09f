"""Properties of the data pipeline: crops, rates, items, statistics."""

import json
from types import SimpleNamespace

import numpy as np
import pytest
import soundfile
import torch
from corpus import speech_like
from scipy.signal import resample_poly
from speechbrain.dataio.batch import PaddedBatch
from speechbrain.utils.data_pipeline import provides, takes
from torch.utils.data import DataLoader

from speechbrain_flowmac.lobes.features import LogMel, MelSettings
from speechbrain_flowmac.training.data import (
    Audio,
    Cropper,
    F0Labels,
    TextTokens,
    label_f0,
    make_dataset,
    read_crop,
)
from speechbrain_flowmac.training.statistics import (
    load_or_compute_statistics,
    mel_statistics,
)

RATE = 24000
HOP = 256


@pytest.fixture(scope="module")
def sounds(tmp_path_factory):
    """Folder with a sound of one second in several forms."""
    folder = tmp_path_factory.mktemp("sounds")
    signal = speech_like(1.0, seed=4)
    soundfile.write(folder / "mono.wav", signal, RATE, subtype="FLOAT")
    both = np.stack([signal, speech_like(1.0, seed=5)], 1)
    soundfile.write(folder / "stereo.wav", both, RATE, subtype="FLOAT")
    faster = resample_poly(signal, 2, 1).astype(np.float32)
    soundfile.write(folder / "faster.wav", faster, 2 * RATE, subtype="FLOAT")
    slower = resample_poly(signal, 2, 3).astype(np.float32)
    soundfile.write(folder / "slower.wav", slower, 16000, subtype="FLOAT")
    soundfile.write(folder / "short.wav", signal[:5000], RATE, subtype="FLOAT")
    soundfile.write(folder / "silent.wav", 0 * signal, RATE, subtype="FLOAT")
    return folder


def read(path):
    """Samples of a file as they are, float32 [T] or [T, C]."""
    return torch.from_numpy(soundfile.read(path, dtype="float32")[0])


# Crops


def cropper(seed=1, epoch=1, length=6000, **options):
    return Cropper(
        RATE, length, seed, SimpleNamespace(current=epoch), **options
    )


def test_crops_are_a_function_of_seed_epoch_and_utterance(sounds):
    path = sounds / "mono.wav"
    first, length = cropper()("name", path)
    assert first.shape == (6000,) and length == 6000
    assert torch.equal(first, cropper()("name", path)[0])
    others = [
        cropper(seed=2)("name", path)[0],
        cropper(epoch=2)("name", path)[0],
        cropper()("another name", path)[0],
    ]
    for i, other in enumerate(others):
        for crop in [first, *others[:i]]:
            assert not torch.equal(other, crop)


def test_the_epoch_is_read_when_the_crop_is_made(sounds):
    epochs = SimpleNamespace(current=1)
    crops = Cropper(RATE, 6000, 1, epochs)
    first = crops("name", sounds / "mono.wav")[0]
    epochs.current = 2
    second = crops("name", sounds / "mono.wav")[0]
    assert torch.equal(second, cropper(epoch=2)("name", sounds / "mono.wav")[0])
    assert not torch.equal(first, second)


def test_a_crop_is_a_stretch_of_the_file(sounds):
    signal = read(sounds / "mono.wav")
    starts = set()
    for epoch in range(1, 21):
        crop, _ = cropper(epoch=epoch)("x", sounds / "mono.wav")
        heads = signal.unfold(0, 32, 1)
        (start,) = (heads == crop[:32]).all(1).nonzero()[:, 0].tolist()
        assert torch.equal(crop, signal[start : start + 6000])
        starts.add(start // 6000)
    assert starts == {0, 1, 2}  # all over the 18000 places that there are


class Changing:
    """Stands for augmentations; notes what it is given."""

    def __init__(self, reach=1.0, gain=1.0, keep=None):
        self.reach = reach
        self.gain = gain
        self.keep = keep
        self.given = []

    def __call__(self, signal, sample_rate, rng):
        self.given.append((len(signal), sample_rate, rng.random()))
        return self.gain * signal[: self.keep]


def test_augmentations_get_what_they_need_and_are_cut(sounds):
    augment = Changing(reach=1.3)
    crop, length = cropper(augment=augment)("x", sounds / "mono.wav")
    assert crop.shape == (6000,) and length == 6000
    ((given, rate, choice),) = augment.given
    assert (given, rate) == (7800, RATE)
    cropper(augment=augment)("x", sounds / "mono.wav")
    assert augment.given[1][2] == choice  # the same again
    cropper(epoch=2, augment=augment)("x", sounds / "mono.wav")
    assert augment.given[2][2] != choice


def test_what_is_shorter_after_augmentation_is_padded(sounds):
    augment = Changing(keep=4000)
    crop, length = cropper(augment=augment)("x", sounds / "mono.wav")
    assert crop.shape == (6000,) and length == 4000
    assert crop[:4000].any() and not crop[4000:].any()


@pytest.mark.parametrize("gain", [0.1, 1.0, 100.0])
def test_crops_never_clip(sounds, gain):
    plain, _ = cropper()("x", sounds / "mono.wav")
    crop, _ = cropper(augment=Changing(gain=gain))("x", sounds / "mono.wav")
    scale = min(gain, 1 / plain.abs().max().item())
    torch.testing.assert_close(crop, scale * plain)


def test_short_utterances_are_padded_and_say_so(sounds):
    crop, length = cropper()("x", sounds / "short.wav")
    assert crop.shape == (6000,) and length == 5000
    assert torch.equal(crop[:5000], read(sounds / "short.wav"))
    assert not crop[5000:].any()


def test_silence_stays_silence(sounds):
    crop, _ = cropper()("x", sounds / "silent.wav")
    assert torch.equal(crop, torch.zeros(6000))


# Rates and channels


def test_whole_files_are_read_as_they_are(sounds):
    path = sounds / "mono.wav"
    assert torch.equal(read_crop(path, None, RATE), read(path))


def test_stereo_is_mixed_down(sounds):
    both = read(sounds / "stereo.wav")
    mixed = read_crop(sounds / "stereo.wav", None, RATE)
    torch.testing.assert_close(mixed, both.mean(1))


@pytest.mark.parametrize("name", ["faster", "slower"])
def test_other_rates_are_resampled(sounds, name):
    wanted = read(sounds / "mono.wav")
    found = read_crop(sounds / f"{name}.wav", None, RATE)
    assert abs(len(found) - len(wanted)) <= 1
    if name == "slower":  # what lies above 8 kHz is gone
        wanted = resample_poly(resample_poly(wanted.numpy(), 2, 3), 3, 2)
        wanted = torch.from_numpy(wanted.astype(np.float32))
    count = min(len(found), len(wanted))
    inner = slice(500, count - 500)
    error = (found[inner] - wanted[inner]).square().mean()
    assert error < 1e-3 * wanted[inner].square().mean()


@pytest.mark.parametrize("name", ["mono", "faster", "slower", "stereo"])
@pytest.mark.parametrize("length", [1, 999, 6001])
@pytest.mark.parametrize("position", [0.0, 0.5, 1.0])
def test_crops_of_any_file_have_their_length(sounds, name, length, position):
    crop = read_crop(sounds / f"{name}.wav", length, RATE, position)
    assert len(crop) == length
    assert crop.dtype == torch.float32 and crop.ndim == 1


# F0 labels


def tone(f0, seconds=1.0):
    """Harmonics of a constant F0, float32."""
    time = torch.arange(int(seconds * RATE), dtype=torch.float64) / RATE
    harmonics = torch.arange(1, 11, dtype=torch.float64)[:, None]
    waves = torch.sin(2 * torch.pi * harmonics * f0 * time) / harmonics
    return (0.2 * waves.sum(0)).float()


def labels(signal, count):
    return label_f0(signal, RATE, HOP, count, 50.0, 600.0)


@pytest.mark.parametrize("f0", [80.0, 123.4, 220.0, 410.0])
def test_labels_tell_the_f0_of_a_tone(f0):
    found = labels(tone(f0), 94)
    assert found.shape == (94,) and found.dtype == torch.float32
    inner = found[8:-8]
    assert (inner > 0).all()
    torch.testing.assert_close(
        inner, torch.full_like(inner, f0), rtol=0.01, atol=0
    )


def test_labels_are_for_the_middle_of_hops():
    # a chirp tells when: its F0 rises by 1 Hz in every 160 samples
    time = torch.arange(2 * RATE, dtype=torch.float64) / RATE
    low, slope = 100.0, 150.0
    phase = low * time + slope * time.square() / 2
    harmonics = torch.arange(1, 8, dtype=torch.float64)[:, None]
    chirp = 0.1 * torch.sin(2 * torch.pi * harmonics * phase).sum(0).float()
    found = labels(chirp, 187)[10:170].double()
    middles = (torch.arange(10, 170) + 0.5) * HOP / RATE
    late = (found - low) / slope - middles
    # a sixth of a hop: labels at its start or end would be half a hop off
    assert late.mean().abs() < HOP / RATE / 6


@pytest.mark.parametrize("kind", ["silence", "noise"])
def test_nothing_voiced_without_a_voice(kind):
    signal = torch.zeros(RATE)
    if kind == "noise":
        generator = torch.Generator().manual_seed(2)
        signal = 0.1 * torch.randn(RATE, generator=generator)
    voiced = (labels(signal, 94) > 0).float().mean()
    assert voiced == 0 if kind == "silence" else voiced < 0.1


def test_labels_do_not_follow_hum():
    time = torch.arange(RATE) / RATE
    hum = 0.05 * torch.sin(2 * torch.pi * 50 * time)
    found = labels(tone(220.0) + hum, 94)[8:-8]
    torch.testing.assert_close(
        found, torch.full_like(found, 220.0), rtol=0.01, atol=0
    )


def test_labels_of_speech_are_in_range_or_zero():
    found = labels(torch.from_numpy(speech_like(2.0, seed=6)), 188)
    voiced = found > 0
    assert 0.2 < voiced.float().mean() < 1
    assert ((found[voiced] >= 50) & (found[voiced] <= 600)).all()


@pytest.mark.parametrize("samples", [1, 255, 5000])
@pytest.mark.parametrize("count", [1, 7, 60])
def test_any_number_of_labels_can_be_asked_for(samples, count):
    assert labels(tone(150.0)[:samples], count).shape == (count,)


def test_labels_past_the_end_are_unvoiced():
    assert not labels(tone(150.0, 0.5), 94)[52:].any()


# Datasets


@pytest.fixture
def manifest(sounds, tmp_path):
    """Manifest of two utterances."""
    path = tmp_path / "manifest.json"
    texts = {"mono": "one mouse", "short": "two"}
    path.write_text(
        json.dumps(
            {
                name: {"wav": f"{{data_root}}/{name}.wav", "label": text}
                for name, text in texts.items()
            }
        )
    )
    return path


def test_dataset_of_whole_utterances(sounds, manifest):
    dataset = make_dataset(manifest, sounds, [Audio(RATE)])
    assert [item["id"] for item in dataset] == ["mono", "short"]
    for item in dataset:
        assert torch.equal(item["sig"], read(sounds / f"{item['id']}.wav"))
        assert item["num_samples"] == len(item["sig"])
        assert item.keys() == {"id", "sig", "num_samples"}


def test_workers_see_the_epoch(sounds, manifest):
    epochs = SimpleNamespace(current=1)
    crops = Cropper(RATE, 6000, 1, epochs)
    dataset = make_dataset(manifest, sounds, [crops])
    for epochs.current in (1, 2):
        loader = DataLoader(dataset, batch_size=None, num_workers=1)
        for item, expected in zip(loader, dataset, strict=True):
            assert torch.equal(item["sig"], expected["sig"])


def test_dataset_of_labelled_crops(sounds, manifest):
    labels = F0Labels(RATE, frame_length=512, upsample=2, f_min=50, f_max=600)
    dataset = make_dataset(manifest, sounds, [cropper(length=8192), labels])
    for item in dataset:
        whole = len(read(sounds / f"{item['id']}.wav"))
        assert item["sig"].shape == (8192,)
        assert item["num_samples"] == min(8192, whole)
        assert item["f0"].shape == (32,)  # two for each of 16 frames
        expected = label_f0(item["sig"], RATE, 256, 32, 50.0, 600.0)
        assert torch.equal(item["f0"], expected)


def characters(text):
    """Numbers of letters, as a tokenizer gives them."""
    return [ord(letter) for letter in text]


def test_text_needs_no_sound(manifest):
    # nothing is at the data folder: what is not asked for is not read
    dataset = make_dataset(manifest, "nowhere", [TextTokens(characters)])
    first, second = dataset
    assert first.keys() == {"id", "text", "text_tokens"}
    assert first["text"] == "one mouse"
    assert second["text_tokens"].dtype == torch.int64
    assert second["text_tokens"].tolist() == [116, 119, 111]


def test_sound_text_and_stored_tokens_in_one_batch(sounds, manifest, tmp_path):
    stored = {"mono": 47, "short": 10}  # frames
    entries = json.loads(manifest.read_text())
    for name, frames in stored.items():
        tokens = np.arange(frames * 8).reshape(frames, 8)
        np.save(tmp_path / f"{name}.npy", tokens)
        entries[name]["npy"] = f"{{token_root}}/{name}.npy"
    manifest.write_text(json.dumps(entries))

    @takes("npy")
    @provides("tokens")
    def tokens(path):
        return torch.from_numpy(np.load(path))

    items = [Audio(RATE), tokens, TextTokens(characters)]
    dataset = make_dataset(manifest, sounds, items, token_root=str(tmp_path))
    batch = PaddedBatch(list(dataset))
    assert batch.text == ["one mouse", "two"]
    assert batch.num_samples.tolist() == [24000, 5000]
    assert batch.tokens.data.shape == (2, 47, 8)
    assert (batch.tokens.lengths * 47).tolist() == [47, 10]
    assert batch.tokens.data[1, 9].tolist() == list(range(72, 80))
    assert (batch.text_tokens.lengths * 9).round().tolist() == [9, 3]


def test_an_item_of_ones_own_takes_what_others_provide(sounds, manifest):
    @takes("sig")
    @provides("peak")
    def peak(signal):
        return signal.abs().max().item()

    for item in make_dataset(manifest, sounds, [Audio(RATE), peak]):
        assert item["peak"] == item["sig"].abs().max()


# Statistics


def test_statistics_are_those_of_all_frames(sounds, manifest):
    features = LogMel(MelSettings())
    dataset = make_dataset(manifest, sounds, [Audio(RATE)])
    found = mel_statistics(dataset, features)
    mels = torch.cat(
        [
            features(read(sounds / f"{name}.wav")[None])[0]
            for name in ("mono", "short")
        ]
    )
    assert found["mean"] == pytest.approx(mels.double().mean().item())
    assert found["std"] == pytest.approx(mels.double().std(correction=0).item())
    assert found["frames"] == len(mels) == 47 + 10
    assert found["utterances"] == 2


def test_statistics_of_a_random_choice(sounds, manifest):
    dataset = make_dataset(manifest, sounds, [Audio(RATE)])
    features = LogMel(MelSettings())
    choices = [
        mel_statistics(dataset, features, max_utterances=1, seed=seed)
        for seed in [0, 0, *range(1, 6)]
    ]
    assert choices[0] == choices[1]
    assert {choice["frames"] for choice in choices} == {47, 10}


def test_statistics_are_computed_once(sounds, manifest, tmp_path):
    path = tmp_path / "statistics.json"
    features = LogMel(MelSettings())
    first = load_or_compute_statistics(path, manifest, sounds, features)
    assert json.loads(path.read_text()) == first
    # the data may have moved, or be gone: it is not touched again
    again = load_or_compute_statistics(path, manifest, "nowhere", features)
    assert again == first
    assert [p.name for p in tmp_path.glob("statistics*")] == [path.name]


@pytest.mark.parametrize("change", ["training set", "front end", "old file"])
def test_statistics_of_something_else_are_made_anew(
    sounds, manifest, tmp_path, change, caplog
):
    path = tmp_path / "statistics.json"
    features = LogMel(MelSettings())
    first = load_or_compute_statistics(path, manifest, sounds, features)
    if change == "training set":
        entries = json.loads(manifest.read_text())
        entries.pop("short")
        manifest.write_text(json.dumps(entries))
    elif change == "front end":
        features = LogMel(MelSettings(n_mels=64))
    else:  # that does not say what it was made from
        path.write_text(json.dumps({"mean": 0.0, "std": 1.0}))
    second = load_or_compute_statistics(path, manifest, sounds, features)
    assert "made anew" in caplog.text and str(path) in caplog.text
    assert (second == first) == (change == "old file")
    assert json.loads(path.read_text()) == second
    assert second == load_or_compute_statistics(
        path, manifest, sounds, features
    )
