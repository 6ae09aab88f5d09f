"""Decoded mels get the spread of true ones back."""

import pytest
import torch

from speechbrain_flowmac.lobes.mel_spread import MelSpread, log_power

SPREAD = MelSpread([1.3, 1.1])


def mels(*shape, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return 2 * torch.randn(*shape, generator=generator) - 4


@pytest.mark.parametrize("codebooks, ratio", [(1, 1.3), (2, 1.1)])
@pytest.mark.parametrize("strength", [0.0, 0.5, 1.0])
def test_every_frame_is_stretched_and_keeps_its_power(
    codebooks, ratio, strength
):
    mel = mels(2, 5, 100)
    wide = SPREAD(mel, codebooks, strength)
    expected = mel.std(2) * (1 + strength * (ratio - 1))
    torch.testing.assert_close(wide.std(2), expected)
    torch.testing.assert_close(log_power(wide), log_power(mel))
    if strength == 0:
        torch.testing.assert_close(wide, mel)


def test_level_makes_no_difference():
    mel = mels(1, 5, 100)
    torch.testing.assert_close(SPREAD(mel + 3, 1), SPREAD(mel, 1) + 3)


def test_a_frame_needs_no_other():
    mel = mels(1, 7, 100)
    assert torch.equal(SPREAD(mel, 1)[:, 2:4], SPREAD(mel[:, 2:4], 1))


def test_a_flat_frame_stays_as_it_is():
    flat = torch.full((1, 1, 100), -11.5)
    torch.testing.assert_close(SPREAD(flat, 1), flat)


@pytest.mark.parametrize("ratio", [0, -1, float("inf"), float("nan")])
def test_ratios_are_above_0(ratio):
    with pytest.raises(ValueError, match="ratios must be above 0"):
        MelSpread([1.1, ratio])


def test_more_codebooks_than_ratios_are_refused():
    with pytest.raises(ValueError, match=r"expected 1\.\.2 codebooks"):
        SPREAD(mels(1, 1, 4), 3)
