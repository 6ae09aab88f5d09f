"""Gains and shapes: exact both ways, and what makes them fit to be coded."""

import math

import pytest
import torch
from corpus import speech_like

from speechbrain_flowmac.lobes.features import (
    LogMel,
    MelSettings,
    RunningStatistics,
)
from speechbrain_flowmac.lobes.front_end import FrontEndMismatchError
from speechbrain_flowmac.lobes.gain_shape import (
    GainShapeMDCT,
    GainShapeNormalizer,
    InverseGainShapeMDCT,
    MDCTSettings,
    band_weights,
    pseudo_power,
)

SETTINGS = MDCTSettings()
FEATURES = GainShapeMDCT(SETTINGS)
INVERSE = InverseGainShapeMDCT(SETTINGS)


def speech(seconds=1.0, seed=0):
    return torch.from_numpy(speech_like(seconds, seed=seed)).float()[None]


def tone(hz, phase, samples=24 * 512):
    time = torch.arange(samples, dtype=torch.float64) / 24000
    return (0.5 * torch.sin(2 * math.pi * hz * time + phase)).float()[None]


def sounds():
    generator = torch.Generator().manual_seed(0)
    noise = 2 * torch.rand(1, 24001, generator=generator) - 1
    return {
        "speech": speech(),
        "quiet speech": 1e-4 * speech(),
        "noise": noise,
        "tone": tone(440.0, 0.3),
        "click": torch.eye(1, 5000, dtype=torch.float32),
        "silence": torch.zeros(1, 5000),
        "one sample": torch.ones(1, 1),
    }


@pytest.mark.parametrize("name", sounds())
def test_nothing_is_lost(name):
    wav = sounds()[name]
    features = FEATURES(wav)
    frames = -(-wav.shape[1] // 512)
    assert features.shape == (1, frames, SETTINGS.width)
    assert features.isfinite().all()
    again = INVERSE(features)
    assert again.shape == (1, frames * 512)
    padded = torch.zeros(1, frames * 512)
    padded[:, : wav.shape[1]] = wav
    assert (again - padded).abs().max() < 5e-6


def test_nothing_is_lost_through_the_normalizer():
    wav = speech()
    statistics = RunningStatistics(per_band=True)
    statistics.update(FEATURES(wav))
    normalizer = GainShapeNormalizer(SETTINGS)
    normalizer.set_statistics(statistics.mean, statistics.std)
    again = INVERSE(normalizer.denormalize(normalizer(FEATURES(wav))))
    assert (again[:, : wav.shape[1]] - wav).abs().max() < 5e-6


def test_items_do_not_depend_on_their_batch():
    wav, lengths = speech().repeat(3, 1), torch.tensor([24000, 12345, 512])
    wav = wav * (torch.arange(24000) < lengths[:, None])
    batch = FEATURES(wav, lengths)
    for item, found, length in zip(wav, batch, lengths, strict=True):
        alone = FEATURES(item[None, :length])[0]
        torch.testing.assert_close(
            found[: len(alone)], alone, rtol=0, atol=1e-4
        )


def test_a_louder_sound_has_higher_gains_and_the_same_shapes():
    wav, bands = speech(), SETTINGS.n_bands
    one, ten = FEATURES(wav), FEATURES(10 * wav)
    # the floor is far below most of it
    loud = one[..., :bands] > -8
    higher = (ten - one)[..., :bands][loud]
    assert (higher - math.log(10)).abs().max() < 1e-2
    shapes = (ten - one)[..., bands:]
    assert shapes.abs().median() < 1e-4


def test_gains_hear_less_of_a_phase_than_coefficients():
    found, raw = [], []
    for step in range(8):
        wav = tone(1000.0, step * math.pi / 4)
        features = FEATURES(wav)[:, 4:-4]
        found.append(features[..., : SETTINGS.n_bands].amax(-1))
        power = FEATURES.mdct.to_tokens(wav)[:, 4:-4].square()
        raw.append(0.5 * (power @ FEATURES.filters.T).amax(-1).log())
    spread, before = (torch.stack(v).std(0).mean() for v in (found, raw))
    assert spread < 0.5 * before


def test_shapes_are_of_unit_size():
    """Also of silence, tones and clicks: each gain knows of its bins."""
    widest = band_weights(SETTINGS).sum(0).max().sqrt()
    for name, wav in sounds().items():
        shapes = FEATURES(wav)[..., SETTINGS.n_bands :]
        assert shapes.abs().max() <= 1.5 * widest, name
    shapes = FEATURES(sounds()["noise"])[..., SETTINGS.n_bands :]
    # one of three squares of the pseudo-power, whose logarithm is convex
    assert 0.5 < shapes.std() < 0.75


def test_pseudo_power_goes_on_by_the_symmetries_of_the_mdct():
    coefficients = torch.randn(1, 2, 6)
    extended = torch.cat(
        [coefficients[..., :1], coefficients, -coefficients[..., -1:]], -1
    )
    slope = extended[..., 2:] - extended[..., :-2]
    expected = coefficients.square() + slope.square()
    assert torch.equal(pseudo_power(coefficients), expected)


@pytest.mark.parametrize("hop, bands", [(512, 128), (512, 21), (256, 64)])
def test_weights_of_bands_are_a_partition_of_unity(hop, bands):
    weights = band_weights(MDCTSettings(24000, hop, bands))
    assert (weights.sum(1) - 1).abs().max() < 1e-6
    assert (weights >= 0).all() and (weights.sum(0) > 0).all()
    assert ((weights > 0).sum(1) <= 2).all()


def test_too_many_bands_are_refused():
    with pytest.raises(ValueError, match="300 bands are too many for 512"):
        GainShapeMDCT(MDCTSettings(n_bands=300))


@pytest.mark.parametrize("shape", [(24000,), (1, 0), (1, 1, 24000)])
def test_signals_of_another_shape_are_refused(shape):
    with pytest.raises(ValueError, match=r"\[B, T\]"):
        FEATURES(torch.zeros(shape))


# Settings and statistics travel with the weights


def test_weights_of_other_settings_are_refused():
    other = GainShapeMDCT(MDCTSettings(n_bands=64))
    with pytest.raises(FrontEndMismatchError, match="n_bands") as error:
        FEATURES.load_state_dict(other.state_dict())
    assert "128" in str(error.value) and "64" in str(error.value)


def test_weights_of_another_kind_are_refused():
    mel = LogMel(MelSettings())
    for one, other in ((FEATURES, mel), (mel, FEATURES)):
        with pytest.raises(FrontEndMismatchError, match="another kind"):
            one.load_state_dict(other.state_dict())
        with pytest.raises(FrontEndMismatchError, match="differ in kind"):
            one.settings.check_same(other.settings)


def test_the_inverse_has_nothing_to_learn():
    assert INVERSE.state_dict() == {}
    assert INVERSE.receptive_field == 1


def test_statistics_of_each_band_are_those_of_the_whole():
    values = torch.randn(10, 7, 5, dtype=torch.float64) * torch.arange(1, 6)
    statistics = RunningStatistics(per_band=True)
    for part in values.split(3):
        statistics.update(part)
    flat = values.flatten(0, 1)
    assert statistics.count == 70
    assert statistics.mean == pytest.approx(flat.mean(0).tolist())
    assert statistics.std == pytest.approx(
        flat.std(0, correction=0).tolist(), rel=1e-9
    )


def test_gains_get_their_own_deviation():
    generator = torch.Generator().manual_seed(0)
    features = 3 + 2 * torch.randn(1, 4000, 640, generator=generator)
    normalizer = GainShapeNormalizer(SETTINGS, gain_deviation=4.0)
    statistics = RunningStatistics(per_band=True)
    statistics.update(features)
    normalizer.set_statistics(statistics.mean, statistics.std)
    gains, shapes = normalizer(features).split([128, 512], dim=-1)
    assert gains.std(1).sub(4).abs().max() < 1e-2
    assert shapes.std(1).sub(1).abs().max() < 1e-2
    assert gains.mean().abs() < 1e-3 and shapes.mean().abs() < 1e-3


def test_a_band_that_is_always_the_same_is_taken_as_it_is():
    normalizer = GainShapeNormalizer(SETTINGS)
    normalizer.set_statistics([-11.5] * 640, [0.0] * 640)
    features = torch.full((1, 2, 640), -11.5)
    assert not normalizer(features).any()
    assert normalizer(features + 1).isfinite().all()


@pytest.mark.parametrize(
    "mean, std",
    [
        (0.0, 1.0),
        ([0.0] * 639, [1.0] * 639),
        ([math.nan] * 640, [1.0] * 640),
        ([0.0] * 640, [math.inf] * 640),
    ],
)
def test_impossible_statistics_are_refused(mean, std):
    normalizer = GainShapeNormalizer(SETTINGS)
    before = normalizer.state_dict()["scale"].clone()
    with pytest.raises(ValueError, match="640 finite means"):
        normalizer.set_statistics(mean, std)
    assert torch.equal(normalizer.scale, before)
