"""Seeded noise: a function of seed, stream and absolute frame."""

import pytest
import torch

from speechbrain_flowmac.lobes.noise import BLOCK_FRAMES, seeded_noise

WHOLE = 5 * BLOCK_FRAMES


@pytest.mark.parametrize("width", [1, 3, 128])
def test_any_range_is_a_part_of_the_whole(width):
    whole = seeded_noise(3, 1, 0, WHOLE, width)
    assert whole.shape == (WHOLE, width) and whole.dtype == torch.float32
    ends = [0, 1, BLOCK_FRAMES - 1, BLOCK_FRAMES, BLOCK_FRAMES + 1, 200, WHOLE]
    for start in ends:
        for end in ends:
            if start <= end:
                part = seeded_noise(3, 1, start, end - start, width)
                assert torch.equal(part, whole[start:end])


def test_far_frames_are_as_good_as_near_ones():
    start = 10**9 + 7
    part = seeded_noise(0, 0, start, 300, 4)
    assert torch.equal(part[100:], seeded_noise(0, 0, start + 100, 200, 4))
    assert part.std() == pytest.approx(1.0, abs=0.1)


def test_noise_is_standard_normal():
    values = seeded_noise(11, 0, 0, 4000, 50).double().flatten()
    count = len(values)
    assert abs(values.mean()) < 4 / count**0.5
    assert abs(values.var() - 1) < 4 * (2 / count) ** 0.5
    assert abs((values**4).mean() - 3) < 4 * (96 / count) ** 0.5
    assert abs((values.abs() < 1).double().mean() - 0.6827) < 0.005


def correlation(a, b):
    return torch.corrcoef(torch.stack([a.flatten(), b.flatten()]))[0, 1].item()


def test_seeds_streams_and_frames_are_independent():
    base = seeded_noise(5, 0, 0, 1000, 20)
    others = [
        seeded_noise(6, 0, 0, 1000, 20),
        seeded_noise(5, 1, 0, 1000, 20),
        seeded_noise(0, 5, 0, 1000, 20),
        seeded_noise(5, 0, BLOCK_FRAMES, 1000, 20),
        seeded_noise(5, 0, 1, 1000, 20),
    ]
    for other in others:
        assert abs(correlation(base, other)) < 0.03


def test_noise_touches_no_global_generator():
    torch.manual_seed(0)
    state = torch.get_rng_state()
    first = seeded_noise(1, 0, 0, 10, 2)
    assert torch.equal(torch.get_rng_state(), state)
    torch.manual_seed(1)
    assert torch.equal(seeded_noise(1, 0, 0, 10, 2), first)


def test_negative_seeds_are_refused():
    with pytest.raises(ValueError, match="found -1"):
        seeded_noise(-1, 0, 0, 10, 2)
