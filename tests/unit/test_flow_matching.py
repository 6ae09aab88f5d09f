"""Conditional flow matching: the objective and the sampler."""

import math

import pytest
import torch

from speechbrain_flowmac.lobes.convnext import ConvNeXt
from speechbrain_flowmac.lobes.flow_matching import (
    FlowMatching,
    LogitNormalTime,
    UniformTime,
    masked_mean,
)
from speechbrain_flowmac.lobes.sampling import Sampling
from speechbrain_flowmac.lobes.solvers import SOLVERS, get_solver
from speechbrain_flowmac.lobes.vector_field import ConvNeXtField, UNetField

M = 4
MASK = torch.arange(7) < torch.tensor([7, 3, 5])[:, None]


def noise(seed, *shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def make_flow(kind=ConvNeXtField, **options):
    torch.manual_seed(0)
    if kind is ConvNeXtField:
        field = ConvNeXtField(M, ConvNeXt(8, 2, condition_dim=6))
    else:
        field = UNetField(M, (8, 8), num_heads=2)
    torch.nn.init.normal_(field.project_out.weight, std=0.3)
    return FlowMatching(field, **options)


class Recorder(torch.nn.Module):
    """A field that says nothing and remembers what it was asked."""

    def forward(self, x, t, mu, mask=None):
        self.asked = x, t, mu, mask
        return torch.zeros_like(x)


@pytest.mark.parametrize("sigma_min", [0.0, 1e-4, 0.3])
def test_loss_is_that_of_the_formula(sigma_min):
    recorder = Recorder()
    flow = FlowMatching(recorder, sigma_min)
    mel, mu = noise(0, 3, 7, M), noise(1, 3, 7, M)
    loss = flow.loss(mel, mu, MASK, generator(5)).total

    replay = generator(5)
    x_0 = torch.randn(mel.shape, generator=replay)
    t = torch.rand(3, generator=replay)
    total = 0.0
    for b in range(3):
        for n in range(7):
            for m in range(M):
                noisy, data = x_0[b, n, m].item(), mel[b, n, m].item()
                if not MASK[b, n]:
                    continue
                x_t = (1 - (1 - sigma_min) * t[b]) * noisy + t[b] * data
                found = recorder.asked[0][b, n, m]
                assert found.item() == pytest.approx(x_t.item(), abs=1e-5)
                total += (data - (1 - sigma_min) * noisy) ** 2
    expected = total / (MASK.sum().item() * M)
    assert loss.item() == pytest.approx(expected, rel=1e-5)
    _, asked_t, asked_mu, asked_mask = recorder.asked
    assert torch.equal(asked_t, t)
    assert torch.equal(asked_mu[MASK], mu[MASK]) and asked_mask is MASK


def test_a_perfect_field_has_no_loss():
    """With one datum, the field is (x_1 - (1 - s) x_t) / (1 - (1 - s) t)."""
    mel = noise(0, 1, 7, M).expand(3, -1, -1)
    shrink = 1 - 1e-2

    class Perfect(torch.nn.Module):
        def forward(self, x, t, mu, mask=None):
            return (mel - shrink * x) / (1 - shrink * t[:, None, None])

    flow = FlowMatching(Perfect(), sigma_min=1e-2)
    assert flow.loss(mel, mel, MASK, generator()).total < 1e-8


def padded_result(kind, padding):
    flow = make_flow(kind)
    outside = ~MASK.unsqueeze(-1)
    mel = noise(0, 3, 7, M).masked_fill(outside, padding).requires_grad_()
    mu = noise(1, 3, 7, M).masked_fill(outside, padding).requires_grad_()
    loss = flow(mel, mu, MASK, generator()).total
    loss.backward()
    grads = [p.grad for p in flow.parameters()]
    return loss, [*grads, mel.grad[MASK], mu.grad[MASK]]


@pytest.mark.parametrize("kind", [ConvNeXtField, UNetField])
@pytest.mark.parametrize(
    "padding",
    [
        30.0,
        -1e4,
        math.inf,
        math.nan,
    ],
)
def test_what_padding_holds_changes_neither_loss_nor_gradients(kind, padding):
    loss, grads = padded_result(kind, 0.0)
    other_loss, other_grads = padded_result(kind, padding)
    torch.testing.assert_close(other_loss, loss)
    for grad, other in zip(grads, other_grads, strict=True):
        torch.testing.assert_close(other, grad, atol=1e-6, rtol=1e-4)


def test_loss_of_a_padded_batch_is_the_mean_over_valid_frames():
    recorder = Recorder()
    flow = FlowMatching(recorder)
    mel = noise(0, 3, 7, M)
    loss, mse = flow.loss(mel, mel, MASK, generator(3))
    x_0 = torch.randn(mel.shape, generator=generator(3))
    errors = (mel - (1 - 1e-4) * x_0).square()
    torch.testing.assert_close(loss, errors[MASK].mean())
    assert torch.equal(mse, loss)
    torch.testing.assert_close(
        flow.loss(mel, mel, None, generator(3)).total, errors.mean()
    )


def test_masked_mean_of_nothing_is_zero():
    values = torch.full((2, 3, M), math.nan)
    nothing = torch.zeros(2, 3, dtype=torch.bool)
    assert masked_mean(values, nothing) == 0


def test_gradients_flow_into_the_condition():
    flow = make_flow()
    mel, mu = noise(0, 2, 7, M), noise(1, 2, 7, M).requires_grad_()
    flow(mel, mu, None, generator()).total.backward()
    assert (mu.grad.abs().sum((1, 2)) > 0).all()


def test_chance_comes_from_the_generator_alone():
    flow = make_flow(condition_dropout=0.5)
    mel, mu = noise(0, 2, 7, M), noise(1, 2, 7, M)
    torch.manual_seed(1)
    first = flow(mel, mu, None, generator(7)).total
    torch.manual_seed(2)
    assert torch.equal(flow(mel, mu, None, generator(7)).total, first)
    losses = {flow(mel, mu, None, generator(s)).total.item() for s in range(5)}
    assert len(losses) == 5


def test_condition_is_dropped_as_often_as_said():
    recorder = Recorder()
    flow = FlowMatching(recorder, condition_dropout=0.3)
    mu = torch.ones(2000, 1, 1)
    flow.loss(mu, mu, None, generator())
    dropped = (recorder.asked[2] == 0).float().mean().item()
    assert dropped == pytest.approx(0.3, abs=0.04)


def test_uniform_times():
    t = UniformTime()(20_000, generator())
    assert 0 <= t.min() and t.max() <= 1
    assert t.mean().item() == pytest.approx(0.5, abs=0.01)
    assert t.var().item() == pytest.approx(1 / 12, abs=0.003)


@pytest.mark.parametrize("mean, std", [(0.0, 1.0), (-0.5, 0.7), (1.0, 2.0)])
def test_logits_of_logit_normal_times_are_normal(mean, std):
    t = LogitNormalTime(mean, std)(20_000, generator())
    logits = torch.logit(t.double())
    assert 0 < t.min() and t.max() < 1
    assert logits.mean().item() == pytest.approx(mean, abs=0.03 * std)
    assert logits.std().item() == pytest.approx(std, rel=0.03)
    median = 1 / (1 + math.exp(-mean))
    assert (t < median).float().mean().item() == pytest.approx(0.5, abs=0.02)


@pytest.mark.parametrize("std", [0.0, -1.0])
def test_logit_normal_times_need_a_spread(std):
    with pytest.raises(ValueError, match=f"found {std}"):
        LogitNormalTime(std=std)


def test_guidance_needs_a_model_trained_for_it():
    mel = noise(0, 1, 7, M)
    with pytest.raises(ValueError, match="condition_dropout"):
        make_flow().sample(mel, mel, None, Sampling(n_steps=2, guidance=1.0))


class Linear(torch.nn.Module):
    """The field whose flow moves every x_0 straight to x_0 + mu."""

    receptive_field = 5
    alignment = 4

    def __init__(self):
        super().__init__()
        self.calls = 0

    def forward(self, x, t, mu, mask=None):
        self.calls += 1
        return mu


@pytest.mark.parametrize("solver", SOLVERS)
@pytest.mark.parametrize(
    "settings", [{"n_steps": 1}, {"n_steps": 5, "schedule": "sway"}]
)
def test_sampling_with_an_exact_field_gives_the_data(solver, settings):
    data, x_0 = noise(0, 2, 7, M), noise(1, 2, 7, M)
    sampling = Sampling().with_changes(solver=solver, **settings)
    flow = FlowMatching(Linear())
    x = flow.sample(x_0, data - x_0, None, sampling)
    torch.testing.assert_close(x, data)
    assert not x.requires_grad
    per_step = get_solver(solver).evaluations_per_step
    if per_step is None:
        # that depends on the field: nobody knows before
        assert flow.evaluations(sampling) is None
        assert flow.receptive_field(sampling) is None
    else:
        assert flow.evaluations(sampling) == flow.field.calls
        assert flow.field.calls == settings["n_steps"] * per_step


@pytest.mark.parametrize(
    "mask",
    [
        torch.ones(2, 7, dtype=torch.bool),
        None,
    ],
)
def test_guidance_moves_away_from_the_unconditional_field(mask):
    """For a field that is mu, that without condition is 0."""
    flow = FlowMatching(Linear(), condition_dropout=0.1)
    x_0, mu = noise(0, 2, 7, M), noise(1, 2, 7, M)
    x = flow.sample(x_0, mu, mask, Sampling(n_steps=3, guidance=0.5))
    torch.testing.assert_close(x, x_0 + 1.5 * mu)


def test_temperature_scales_the_noise():
    x_0, mu = noise(0, 2, 7, M), noise(1, 2, 7, M)
    sampling = Sampling(n_steps=1, temperature=0.3)
    x = FlowMatching(Linear()).sample(x_0, mu, None, sampling)
    torch.testing.assert_close(x, 0.3 * x_0 + mu)


def test_the_flow_answers_for_its_reach():
    flow = FlowMatching(Linear())
    assert flow.alignment == 4
    assert flow.receptive_field(Sampling(n_steps=0)) == 0
    assert flow.receptive_field(Sampling(n_steps=3)) == 15
    guided = Sampling(n_steps=3, guidance=1.0)
    assert flow.receptive_field(guided) == 15
    assert flow.receptive_field(guided.with_changes(rescale=0.5)) is None
    flow.field.receptive_field = None
    assert flow.receptive_field(Sampling(n_steps=3)) is None
    assert flow.receptive_field(Sampling(n_steps=0)) == 0
