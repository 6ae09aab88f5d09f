"""Distorted mels are smoother or rougher, seeded, and only a share of them."""

import pytest
import torch

from speechbrain_flowmac.lobes.mel_distortion import (
    MelDistortion,
    four_neighbour_mean,
)


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def mels(batch=64):
    return torch.randn(batch, 12, 10, generator=generator(3))


def roughness(mel):
    return (mel - four_neighbour_mean(mel)).square().mean((1, 2)).sqrt()


def test_mean_is_that_of_the_neighbours():
    mel = mels(2)
    mean = four_neighbour_mean(mel)
    expected = (mel[:, 4, 7] + mel[:, 6, 7] + mel[:, 5, 6] + mel[:, 5, 8]) / 4
    torch.testing.assert_close(mean[:, 5, 7], expected)
    corner = (2 * mel[:, 0, 0] + mel[:, 1, 0] + mel[:, 0, 1]) / 4
    torch.testing.assert_close(mean[:, 0, 0], corner)


@pytest.mark.parametrize(("weight", "rougher"), [(0.9, False), (-0.4, True)])
def test_positive_weights_smooth_and_negative_ones_roughen(weight, rougher):
    mel = mels()
    distort = MelDistortion(1.0, (weight, weight), noise=0.0)
    changed = roughness(distort(mel, generator())) > roughness(mel)
    assert bool((changed == rougher).all())


@pytest.mark.parametrize("share", [0.0, 0.3, 1.0])
def test_only_a_share_is_distorted(share):
    mel = mels(400)
    same = (MelDistortion(share)(mel, generator()) == mel).all((1, 2))
    assert abs((~same).float().mean().item() - share) < 0.08


def test_the_generator_decides():
    mel, distort = mels(), MelDistortion(1.0)
    first = distort(mel, generator(1))
    assert first.equal(distort(mel, generator(1)))
    assert not first.equal(distort(mel, generator(2)))


def test_noise_is_bounded_by_its_range():
    mel = torch.zeros(200, 12, 10)
    distort = MelDistortion(1.0, (0.0, 0.0), noise=0.2)
    spread = distort(mel, generator()).std((1, 2))
    assert spread.max() < 0.25 and spread.min() < 0.02
