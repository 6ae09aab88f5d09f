"""Roughness of log-mels."""

import math

import pytest
import torch

from speechbrain_flowmac.metrics import mel_roughness


def noise(*shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0))


def test_planes_are_smooth():
    frames, bands = torch.arange(9.0)[:, None], torch.arange(7.0)
    plane = (3 * frames - 2 * bands + 5).expand(2, 9, 7)
    assert mel_roughness(plane) == 0


def test_white_noise_has_what_its_variance_says():
    """Var(x - mean of 4 others) = 1 + 4 / 16."""
    found = mel_roughness(0.3 * noise(4, 300, 100))
    assert found == pytest.approx(0.3 * math.sqrt(1.25), rel=0.01)


def test_it_is_the_sum_written_out():
    x = noise(2, 6, 5)
    total = count = 0
    for b in range(2):
        for n in range(1, 5):
            for m in range(1, 4):
                near = (
                    x[b, n - 1, m]
                    + x[b, n + 1, m]
                    + x[b, n, m - 1]
                    + x[b, n, m + 1]
                )
                total += (x[b, n, m] - near / 4).item() ** 2
                count += 1
    assert mel_roughness(x) == pytest.approx((total / count) ** 0.5)


def test_a_mean_of_samples_is_smoother_than_each():
    samples = noise(8, 50, 20)
    mean = samples.mean(0, keepdim=True)
    assert mel_roughness(mean) < 0.5 * mel_roughness(samples)


def test_padding_does_not_count():
    x = noise(2, 12, 5)
    mask = torch.arange(12) < torch.tensor([12, 7])[:, None]
    x[1, 7:] = math.nan
    parts = [mel_roughness(x[:1]), mel_roughness(x[1:, :7])]
    # 10 and 5 frames have both neighbours
    expected = math.sqrt((10 * parts[0] ** 2 + 5 * parts[1] ** 2) / 15)
    assert mel_roughness(x, mask) == pytest.approx(expected)
    assert math.isnan(mel_roughness(x[:, :2]))
