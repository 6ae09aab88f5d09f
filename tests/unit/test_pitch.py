"""Pitch from a log-mel: reading, labels, training."""

import math

import pytest
import torch

from speechbrain_flowmac.lobes.convnext import ConvNeXt
from speechbrain_flowmac.lobes.pitch import (
    Pitch,
    PitchPredictor,
    carry_voiced,
    hold_last,
)
from speechbrain_flowmac.lobes.transformer import Transformer


def noise(seed, *shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def make(n_mels=8, **options):
    torch.manual_seed(0)
    return PitchPredictor(n_mels, ConvNeXt(16, 1), **options)


def cents(a, b):
    return 1200 * torch.log2(a / b).abs()


def bell(predictor, f0, width=1.25):
    """Logits with a peak at a pitch, which may lie between two bins."""
    position = torch.log2(f0 / predictor.f_min) * predictor.bins_per_octave
    bins = torch.arange(predictor.num_bins)
    return -((bins - position.unsqueeze(-1)) / width).square()


@pytest.mark.parametrize("bins_per_octave", [24, 60])
def test_a_peak_between_bins_is_read(bins_per_octave):
    predictor = make(bins_per_octave=bins_per_octave)
    f0 = torch.linspace(70, 500, 400)[None]
    pitch = predictor.read((bell(predictor, f0), torch.ones_like(f0)))
    assert cents(pitch.f0, f0).max() < 2
    assert pitch.voiced.all()


def test_the_highest_peak_is_read():
    predictor = make()
    low, high = torch.full((1, 1), 100.0), torch.full((1, 1), 200.0)
    bins = torch.maximum(bell(predictor, low) - 1, bell(predictor, high))
    pitch = predictor.read((bins, torch.ones(1, 1)))
    assert cents(pitch.f0, high).max() < 2


@pytest.mark.parametrize("edge", ["f_min", "f_max"])
def test_peaks_at_the_ends_are_read(edge):
    predictor = make()
    f0 = torch.full((1, 1), getattr(predictor, edge))
    pitch = predictor.read((bell(predictor, f0), torch.ones(1, 1)))
    assert cents(pitch.f0, f0).max() < 10


@pytest.mark.parametrize("upsample", [1, 2, 4])
def test_pitch_has_its_rate_and_range(upsample):
    predictor = make(upsample=upsample)
    pitch = predictor(3 * noise(0, 2, 9, 8))
    assert pitch.f0.shape == pitch.voiced.shape == (2, 9 * upsample)
    top = predictor.f_max * 2 ** (1 / predictor.bins_per_octave)
    assert (pitch.f0 >= predictor.f_min).all() and (pitch.f0 <= top).all()
    assert pitch.voiced.dtype == torch.bool
    assert not pitch.f0.requires_grad


def test_labels_are_the_best_prediction():
    """No other F0 has a lower loss than the label's own bell."""
    predictor = make()
    f0 = torch.linspace(60, 550, 50)[None]
    voicing = torch.full_like(f0, 20.0)

    def loss(shift_in_cents):
        shifted = f0 * 2 ** (shift_in_cents / 1200)
        return predictor.loss((bell(predictor, shifted), voicing), f0).item()

    losses = [loss(c) for c in (0, 10, -10, 50, -50)]
    assert losses[0] < min(losses[1:])
    assert max(losses[1:3]) < min(losses[3:])


def test_gradients_of_f0_flow_only_where_voiced():
    predictor = make()
    bins = noise(0, 2, 6, predictor.num_bins).requires_grad_()
    voicing = noise(1, 2, 6).requires_grad_()
    f0 = torch.tensor([[0, 100, 200, 0, 150, 0], [120.0] * 6])
    predictor.loss((bins, voicing), f0).backward()
    assert torch.equal(bins.grad.abs().sum(-1) > 0, f0 > 0)
    assert (voicing.grad != 0).all()


def test_loss_is_finite_without_a_voiced_frame():
    predictor = make()
    logits = predictor.logits(noise(0, 1, 3, 8))
    loss = predictor.loss(logits, torch.zeros(1, 6))
    assert loss.isfinite() and loss > 0


def test_labels_out_of_range_are_taken_at_its_ends():
    predictor = make()
    logits = predictor.logits(noise(0, 1, 1, 8))

    def loss(hz):
        return predictor.loss(logits, torch.full((1, 2), hz))

    torch.testing.assert_close(loss(10.0), loss(predictor.f_min))
    torch.testing.assert_close(loss(2000.0), loss(predictor.f_max))


def test_padding_changes_no_valid_frame():
    predictor = make().eval()
    lengths = [1, 4, 9]
    mel = noise(0, 3, 9, 8)
    mask = torch.arange(9) < torch.tensor(lengths)[:, None]
    bins, voicing = predictor.logits(mel, mask)
    for i, length in enumerate(lengths):
        single = predictor.logits(mel[i : i + 1, :length])
        for found, expected in zip((bins, voicing), single, strict=True):
            torch.testing.assert_close(
                found[i : i + 1, : 2 * length], expected, atol=1e-5, rtol=1e-5
            )


def test_receptive_field_covers_voicing_of_neighbours():
    predictor = make(upsample=1).eval()
    assert predictor.receptive_field == 4
    mel = noise(0, 1, 21, 8)
    other = mel.clone()
    outside = (torch.arange(21) - 10).abs() > predictor.receptive_field
    other[:, outside] += 5.0
    for a, b in zip(predictor(mel), predictor(other), strict=True):
        assert torch.equal(a[:, 10], b[:, 10])
    unbounded = PitchPredictor(8, Transformer(8, 1, num_heads=2))
    assert unbounded.receptive_field is None


def test_voiced_frames_lend_their_pitch_to_neighbours():
    generator = torch.Generator().manual_seed(0)
    f0 = 50 + 500 * torch.rand(20, 30, generator=generator)
    voiced = torch.rand(20, 30, generator=generator) < 0.4
    carried = carry_voiced(Pitch(f0, voiced))
    assert torch.equal(carried.voiced, voiced)
    for i in range(20):
        for n in range(30):
            expected = f0[i, n]
            if not voiced[i, n]:
                if n < 29 and voiced[i, n + 1]:
                    expected = f0[i, n + 1]
                if n > 0 and voiced[i, n - 1]:
                    expected = f0[i, n - 1]
            assert carried.f0[i, n] == expected


def test_the_last_valid_frame_is_held_past_the_end():
    f0 = 100 + torch.arange(18.0).reshape(3, 6)
    voiced = torch.tensor([1, 0, 1, 0, 1, 1]).bool().expand(3, 6)
    lengths = torch.tensor([1, 4, 6])
    mask = torch.arange(6) < lengths[:, None]
    held = hold_last(Pitch(f0, voiced), mask)
    for i, length in enumerate(lengths):
        for found, given in zip(held, (f0, voiced), strict=True):
            assert torch.equal(found[i, :length], given[i, :length])
            assert (found[i, length:] == given[i, length - 1]).all()


def test_a_predictor_learns_a_toy():
    """A bump on the mel axis says F0; its absence says unvoiced."""
    torch.manual_seed(0)
    f0 = torch.exp(torch.empty(2, 32).uniform_(math.log(80), math.log(400)))
    f0[:, 20:24] = 0.0
    height = 20 * torch.log(f0.clamp(min=1) / 60) / math.log(500 / 60)
    bump = torch.exp(-0.1 * (torch.arange(20) - height.unsqueeze(-1)) ** 2)
    mel = torch.where(f0.unsqueeze(-1) > 0, 4 * bump, 0.0)
    predictor = PitchPredictor(
        20, ConvNeXt(48, 1), upsample=1, bins_per_octave=24
    )
    optimizer = torch.optim.Adam(predictor.parameters(), 5e-3)
    for _ in range(80):
        optimizer.zero_grad()
        predictor.loss(predictor.logits(mel), f0).backward()
        optimizer.step()
    pitch = predictor(mel)
    voiced = f0 > 0
    assert (pitch.voiced == voiced).float().mean() > 0.97
    both = voiced & pitch.voiced
    assert cents(pitch.f0[both], f0[both]).median() < 50
