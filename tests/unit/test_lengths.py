"""Frames of samples, lengths relative and exact, and masks."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis.strategies import integers

from speechbrain_flowmac.lobes import features, lengths
from speechbrain_flowmac.lobes.lengths import (
    absolute_lengths,
    length_mask,
    num_frames,
)

HOP = 512


@pytest.mark.parametrize("samples", [1, 2, 511, 512, 513, 1023, 1025, 5000])
def test_frames_are_hops_begun(samples):
    expected = math.ceil(samples / HOP)
    assert num_frames(samples, HOP) == expected
    assert num_frames(torch.tensor([samples]), HOP).tolist() == [expected]


@pytest.mark.parametrize(
    "longest", [1, 7, 1000, 24001, 719999, 4000037, 2**23 - 1]
)
def test_relative_lengths_lose_nothing(longest):
    generator = np.random.default_rng(0)
    exact = generator.integers(1, longest, 5000, endpoint=True)
    ends = [1, max(longest - 1, 1), longest]
    exact = torch.from_numpy(np.append(exact, ends))
    for dtype in (torch.float32, torch.float64):
        relative = exact.to(dtype) / longest
        assert torch.equal(absolute_lengths(relative, longest), exact)
    # and what was float32 once
    relative = (exact.float() / longest).double()
    assert torch.equal(absolute_lengths(relative, longest), exact)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_coarse_types_lose_nothing_they_can_say(dtype):
    longest = int(0.4 / torch.finfo(dtype).eps)
    exact = torch.arange(1, longest + 1)
    relative = (exact.double() / longest).to(dtype)
    assert torch.equal(absolute_lengths(relative, longest), exact)


@given(samples=integers(1, 2**22), longest=integers(1, 2**22))
@settings(max_examples=500, deadline=None)
def test_parts_of_a_frame_are_frames(samples, longest):
    samples, longest = sorted((samples, longest))
    relative = torch.tensor([samples / longest])  # float32
    assert absolute_lengths(relative, longest).item() == samples
    frames = absolute_lengths(relative, num_frames(longest, HOP)).item()
    # how far into its last frame the longest goes is not known
    needed = num_frames(samples, HOP)
    assert needed <= frames <= min(needed + 1, num_frames(longest, HOP))


def test_every_length_near_the_edge_of_a_frame_keeps_its_frames():
    edges = [k * HOP + d for k in range(1, 60) for d in (-2, -1, 0, 1, 2)]
    for longest in [*edges, 59 * HOP + 255]:
        shorter = torch.tensor([n for n in edges if n <= longest] or [1])
        relative = shorter / longest
        frames = absolute_lengths(relative, num_frames(longest, HOP))
        needed = num_frames(shorter, HOP)
        assert (frames >= needed).all() and (frames <= needed + 1).all()
        if longest % HOP == 0:
            assert torch.equal(frames, needed)


@pytest.mark.parametrize("bad", [0.0, -0.1, 1.01, math.nan, math.inf])
def test_relative_lengths_out_of_range_are_refused(bad):
    with pytest.raises(ValueError, match=r"\(0, 1\]"):
        absolute_lengths(torch.tensor([0.5, bad]), 100)


def test_mask_counts_the_lengths():
    exact = torch.tensor([0, 3, 5])
    mask = length_mask(exact, 5)
    assert torch.equal(mask.sum(1), exact)
    assert torch.equal(mask, mask.cummin(1).values)


@pytest.mark.parametrize(
    "name", ["num_frames", "length_mask", "absolute_lengths"]
)
def test_the_old_place_still_has_them(name):
    assert getattr(features, name) is getattr(lengths, name)
