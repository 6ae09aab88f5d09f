"""Improved mean flow: its velocity, its guidance, its one step."""

import math

import pytest
import torch
from small_flows import SmallField, distance_of_samples, train

from speechbrain_flowmac.lobes.convnext import ConvNeXt
from speechbrain_flowmac.lobes.flow_matching import FlowMatching
from speechbrain_flowmac.lobes.improved_mean_flow import ImprovedMeanFlow
from speechbrain_flowmac.lobes.residual_field import (
    MeanResidualField,
    ResidualField,
)
from speechbrain_flowmac.lobes.sampling import Sampling
from speechbrain_flowmac.lobes.vector_field import ConvNeXtField

M = 4
MASK = torch.arange(7) < torch.tensor([7, 3, 5])[:, None]


def noise(seed, *shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


class Wave(torch.nn.Module):
    """u = w sin(x) (1 + t r) + g mu, and a note of what it was asked."""

    receptive_field = 3
    alignment = 1

    def __init__(self, w=1.3):
        super().__init__()
        self.w = torch.nn.Parameter(torch.tensor(w))
        self.asked = []

    def forward(self, x, times, mu, mask=None):
        self.asked.append((times.detach(), mu.detach()))
        times = times.reshape(len(times), -1)
        t, r = times[:, 0], times[:, min(1, times.shape[1] - 1)]
        gain = 1 + (t * r)[:, None, None]
        guided = times[:, 2] if times.shape[1] == 5 else torch.zeros_like(t)
        return self.w * x.sin() * gain + (1 + guided)[:, None, None] * mu

    def slope(self, x, v, t, r):
        gain = 1 + t * r
        return self.w * (x.cos() * v * gain + x.sin() * r)


@pytest.mark.parametrize("auxiliary", [False, True])
def test_loss_is_that_of_the_formula(auxiliary):
    field = Wave()
    v_field = Wave(0.7) if auxiliary else None
    flow = ImprovedMeanFlow(field, v_field, 0.1, power=0.5, eps=0.2)
    mel, mu = noise(0, 2, 3, 7, M)
    losses = flow(mel, mu, MASK, generator(5))

    replay = generator(5)
    x_0 = torch.randn(mel.shape, generator=replay)
    t, r = flow.times(3, replay)
    total = errors = 0.0
    for b in range(3):
        x_1, x_0b, mu_b = (z[b][MASK[b]] for z in (mel, x_0, mu))
        x = (1 - 0.9 * t[b]) * x_0b + t[b] * x_1
        v = x_1 - 0.9 * x_0b
        if auxiliary:
            moves = v_field.w * x.sin() * (1 + t[b] ** 2) + mu_b
            error = (moves - v).square().mean()
            total = total + error / (error.detach() + 0.2) ** 0.5 / 3
        else:
            moves = field.w * x.sin() * (1 + t[b] ** 2) + mu_b
        slope = field.slope(x, moves, t[b], r[b]).detach()
        u = field.w * x.sin() * (1 + t[b] * r[b]) + mu_b
        implied = u - (r[b] - t[b]) * slope
        error = (implied - v).square().mean()
        total = total + error / (error.detach() + 0.2) ** 0.5 / 3
        errors += error.item() / 3
    torch.testing.assert_close(losses.total, total)
    assert losses.mse.item() == pytest.approx(errors, rel=1e-5)
    weights = list(flow.parameters())
    torch.testing.assert_close(
        torch.autograd.grad(losses.total, weights),
        torch.autograd.grad(total, weights),
        rtol=1e-4,
        atol=1e-6,
    )


class Known(torch.nn.Module):
    """A network that has nothing to add to the Gaussian's field."""

    def forward(self, x, t, mu, mask=None):
        return torch.zeros_like(x)


@pytest.mark.parametrize("auxiliary", [False, True])
def test_the_boundary_and_the_auxiliary_field_are_one_velocity(auxiliary):
    v_field = ResidualField(Known(), 0.3) if auxiliary else None
    flow = ImprovedMeanFlow(MeanResidualField(Known(), 0.3), v_field)
    x, mu = noise(0, 2, 2, 7, M)
    t = torch.tensor([0.2, 0.9])
    torch.testing.assert_close(
        flow.velocity(x, t, mu, None), ResidualField(Known(), 0.3)(x, t, mu)
    )


def guided_flow(**options):
    return ImprovedMeanFlow(
        Wave(), condition_dropout=0.25, max_guidance=7.0, **options
    )


def test_guidance_is_drawn_as_in_the_paper():
    flow = guided_flow()
    count = 20_000
    equal = torch.arange(count) % 2 == 0
    kept = (torch.arange(count) % 5 > 0).float()
    share, start, end = flow.draw_guidance(equal, kept, generator())
    assert not share[kept == 0].any()
    log_omega = -torch.log1p(-share[kept > 0].double())
    # log-uniform in 1..8
    assert log_omega.max() <= math.log(8) + 1e-5
    assert log_omega.mean().item() == pytest.approx(math.log(8) / 2, rel=0.02)
    assert log_omega.std().item() == pytest.approx(
        math.log(8) / 12**0.5, rel=0.02
    )
    assert not start[equal].any() and (end[equal] == 1).all()
    assert start.max() <= 0.5 <= end.min()
    assert start[~equal].mean().item() == pytest.approx(0.25, abs=0.01)
    assert end[~equal].mean().item() == pytest.approx(0.75, abs=0.01)


def test_the_guided_velocity_is_a_fixed_point():
    """Where v_theta is omega v - (omega - 1) v_free, it is its own target."""
    flow = guided_flow()
    x, mu = noise(0, 2, 4, 7, M)
    t = torch.tensor([0.2, 0.5, 0.6, 0.9])
    omega = torch.tensor([1.0, 2.0, 5.0, 8.0])
    start, end = torch.zeros(4), torch.tensor([1.0, 1.0, 1.0, 0.8])
    none = torch.zeros(4)
    free = flow.velocity(x, t, torch.zeros_like(x), None, none, start, end)
    velocity = free + mu
    w = omega[:, None, None]
    v = w * velocity - (w - 1) * free
    target = flow.guided(velocity, v, x, t, None, (1 - 1 / omega, start, end))
    torch.testing.assert_close(target[:3], v[:3])
    # outside the interval there is no guidance
    assert torch.equal(target[3], velocity[3])


def test_the_field_is_told_its_guidance_in_training_and_sampling():
    flow = guided_flow()
    mel, mu = noise(0, 2, 64, 7, M)
    flow(mel, mu, None, generator())
    asked, condition = flow.field.asked[-1]
    assert asked.shape == (64, 5)
    dropped = ~condition.flatten(1).any(1)
    assert 5 < dropped.sum() < 30
    assert not asked[dropped, 2].any() and (asked[~dropped, 2] > 0).all()

    sampling = Sampling(n_steps=2, guidance=3.0, guidance_interval=[0.25, 0.5])
    flow.sample(mel, mu, None, sampling)
    (first, _), (second, _) = flow.field.asked[-2:]
    told = [0.75, 0.25, 0.5]
    assert first[0].tolist() == [0.0, 0.5, *told]
    assert second[-1].tolist() == [0.5, 1.0, *told]
    assert flow.evaluations(sampling) == 2


def test_guidance_that_was_not_trained_is_refused():
    x = noise(0, 1, 3, M)
    with pytest.raises(ValueError, match="up to 7, found 7.5"):
        guided_flow().sample(x, x, None, Sampling(n_steps=1, guidance=7.5))
    with pytest.raises(ValueError, match="up to 0, found 1"):
        ImprovedMeanFlow(Wave()).sample(
            x, x, None, Sampling(n_steps=1, guidance=1.0)
        )
    with pytest.raises(ValueError, match="condition_dropout"):
        ImprovedMeanFlow(Wave(), max_guidance=1.0)


@pytest.mark.parametrize("padding", [1e4, math.nan])
def test_what_padding_holds_changes_nothing(padding):
    flow = guided_flow(v_field=Wave(0.7))
    results = []
    for value in (0.0, padding):
        mel, mu = noise(0, 2, 3, 7, M).masked_fill(~MASK.unsqueeze(-1), value)
        mu.requires_grad_()
        losses = flow(mel, mu, MASK, generator())
        wrt = [*flow.parameters(), mu]
        *grads, mu_grad = torch.autograd.grad(losses.total, wrt)
        results.append([*losses, *grads, mu_grad[MASK]])
    for a, b in zip(*results, strict=True):
        torch.testing.assert_close(a, b, atol=1e-6, rtol=1e-4)


def test_both_fields_start_from_one_of_flow_matching():
    def field(num_times):
        trunk = ConvNeXt(8, 1, condition_dim=6)
        made = ConvNeXtField(M, trunk, num_times)
        torch.nn.init.normal_(made.project_out.weight)
        return made

    plain = FlowMatching(field(1))
    flow = ImprovedMeanFlow(field(5), field(4))
    flow.load_state_dict(flow.adopt(plain.state_dict()))
    x, mu = noise(0, 2, 3, 7, M)
    t, *told = torch.rand(5, 3, generator=generator())
    v = plain.field(x, t, mu)
    for found in (
        flow.velocity(x, t, mu, None, *told[:3]),
        flow.field(x, torch.stack([t, *told], 1), mu),
    ):
        torch.testing.assert_close(found, v)
    # its own weights are left alone
    own = flow.state_dict()
    assert all(torch.equal(v, own[k]) for k, v in flow.adopt(own).items())


def test_in_one_step_it_beats_flow_matching():
    one = Sampling(n_steps=1)
    torch.manual_seed(0)
    v_field = SmallField(1)
    for options in ({}, {"v_field": v_field}):
        flow = train(ImprovedMeanFlow, num_times=2, **options)
        assert distance_of_samples(flow, one) < 0.2
