"""Mean flow: derivatives, the identity, the objective and the sampler."""

import math

import pytest
import torch
from ranks import on_two_ranks
from small_flows import distance_of_samples, train

from speechbrain_flowmac.lobes.convnext import ConvNeXt
from speechbrain_flowmac.lobes.flow_matching import FlowMatching
from speechbrain_flowmac.lobes.mean_flow import (
    MeanFlow,
    item_mean,
    value_and_slope,
)
from speechbrain_flowmac.lobes.residual_field import (
    MeanResidualField,
    ResidualField,
)
from speechbrain_flowmac.lobes.sampling import Sampling
from speechbrain_flowmac.lobes.vector_field import ConvNeXtField, UNetField

M = 4
MASK = torch.arange(7) < torch.tensor([7, 3, 5])[:, None]


def noise(seed, *shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def awake(module, seed=0):
    """Seeded random weights everywhere, also where they start at zero."""
    chance = generator(seed)
    for parameter in module.parameters():
        fan_in = parameter[0].numel() if parameter.ndim > 1 else 100
        parameter.data.normal_(0, fan_in**-0.5, generator=chance)
    return module


FIELDS = {
    "convnext": lambda: ConvNeXtField(
        M, ConvNeXt(8, 2, condition_dim=6), num_times=2
    ),
    "unet": lambda: UNetField(M, (8, 8), num_heads=2, num_times=2),
    "residual": lambda: MeanResidualField(
        ConvNeXtField(M, ConvNeXt(8, 2, condition_dim=6), num_times=2), 0.3
    ),
}


@pytest.fixture(params=FIELDS)
def make_field(request):
    return lambda: awake(FIELDS[request.param]())


def double_case(field):
    """A double-precision u(x, t), with a point and a direction."""
    field = field.double().eval()
    x, v, mu = noise(0, 3, 3, 7, M).double()
    t, r = torch.tensor([0.1, 0.5, 0.3]), torch.tensor([0.9, 0.6, 0.3])
    t, r = t.double(), r.double()

    def u(x, t):
        return field(x, torch.stack([t, r], 1), mu, MASK)

    return u, (x, t), (v, torch.ones_like(t))


def test_slopes_are_those_of_finite_differences(make_field):
    u, (x, t), (v, one) = double_case(make_field())
    value, slope = value_and_slope(u, (x, t), (v, one))
    h = 1e-6
    with torch.no_grad():
        expected = (u(x + h * v, t + h) - u(x - h * v, t - h)) / (2 * h)
        torch.testing.assert_close(value, u(x, t))
    torch.testing.assert_close(
        slope[MASK], expected[MASK], rtol=1e-5, atol=1e-6
    )


def test_slopes_are_those_of_reverse_mode(make_field):
    """<w, J d> = <J' w, d> for any w."""
    u, point, direction = double_case(make_field())
    _, slope = value_and_slope(u, point, direction)
    w = noise(1, 3, 7, M).double() * MASK.unsqueeze(-1)
    point = [p.clone().requires_grad_() for p in point]
    pulled = torch.autograd.grad((w * u(*point)).sum(), point)
    expected = sum(
        (p * d).sum() for p, d in zip(pulled, direction, strict=True)
    )
    torch.testing.assert_close((w * slope).sum(), expected)


def test_gradients_flow_through_the_value_alone(make_field):
    field = make_field()
    u, point, direction = double_case(field)
    weights = list(field.parameters())
    value, slope = value_and_slope(u, point, direction)
    assert not slope.requires_grad
    found = torch.autograd.grad(value[MASK].square().sum(), weights)
    expected = torch.autograd.grad(u(*point)[MASK].square().sum(), weights)
    for a, b in zip(found, expected, strict=True):
        torch.testing.assert_close(a, b)


def test_autocast_around_it_changes_nothing(make_field):
    flow = MeanFlow(make_field()).eval()
    mel, mu = noise(0, 2, 3, 7, M)
    alone = flow(mel, mu, MASK, generator(1))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        inside = flow(mel, mu, MASK, generator(1))
    assert torch.equal(alone.total, inside.total)


# The identity, on a flow that is known

TAU, SIGMA = 0.3, 1e-2


class Known(torch.nn.Module):
    """A network that has nothing to add to the Gaussian's field."""

    receptive_field = 3
    alignment = 2

    def forward(self, x, t, mu, mask=None):
        return torch.zeros_like(x)


@pytest.mark.parametrize("t, r", [(0.0, 1.0), (0.2, 0.7), (0.4, 0.4)])
def test_the_gaussian_keeps_the_mean_flow_identity(t, r):
    """v = u - (r - t) du/dt, with signs and all, where both are known."""
    flow = MeanFlow(MeanResidualField(Known(), TAU, SIGMA), SIGMA)
    velocity = ResidualField(Known(), TAU, SIGMA)
    x, mu = noise(0, 2, 2, 7, M).double()
    t, r = torch.full((2, 2), t).double()[0], torch.full((2,), r).double()
    v = velocity(x, t, mu)
    implied = flow.implied_velocity(x, t, r, v, mu, None)
    torch.testing.assert_close(implied, v, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("n_steps", [1, 2, 4])
@pytest.mark.parametrize("schedule", ["uniform", "sway"])
def test_any_number_of_steps_ends_where_the_ode_does(n_steps, schedule):
    x, mu = noise(0, 2, 2, 7, M)
    settings = Sampling().with_changes(temperature=0.8)
    one = MeanFlow(MeanResidualField(Known(), TAU, SIGMA), SIGMA).sample(
        x, mu, None, settings.with_changes(n_steps=n_steps, schedule=schedule)
    )
    many = FlowMatching(ResidualField(Known(), TAU, SIGMA), SIGMA).sample(
        x, mu, None, settings.with_changes(n_steps=64, solver="rk4")
    )
    torch.testing.assert_close(one, many, atol=1e-4, rtol=1e-4)


# The objective


class Wave(torch.nn.Module):
    """u = w sin(x) t r: its slope is known."""

    def __init__(self):
        super().__init__()
        self.w = torch.nn.Parameter(torch.tensor(1.3))

    def forward(self, x, times, mu, mask=None):
        t, r = times[:, 0, None, None], times[:, 1, None, None]
        return self.w * x.sin() * t * r

    def slope(self, x, v, t, r):
        return self.w * r * (x.cos() * v * t + x.sin())


@pytest.mark.parametrize("power, eps", [(0.0, 1e-3), (1.0, 1e-3), (0.5, 0.2)])
def test_loss_is_that_of_the_formula(power, eps):
    field = Wave()
    flow = MeanFlow(field, 0.1, equal_fraction=0.5, power=power, eps=eps)
    mel, mu = noise(0, 2, 3, 7, M)
    losses = flow(mel, mu, MASK, generator(5))
    found = torch.autograd.grad(losses.total, field.w)[0]

    replay = generator(5)
    x_0 = torch.randn(mel.shape, generator=replay)
    t, r = flow.times(3, replay)
    assert (t < r).any() and (t == r).any()
    total = errors = 0.0
    for b in range(3):
        x_1, x_0b = mel[b][MASK[b]], x_0[b][MASK[b]]
        x = (1 - 0.9 * t[b]) * x_0b + t[b] * x_1
        v = x_1 - 0.9 * x_0b
        slope = field.slope(x, v, t[b], r[b])
        target = (v + (r[b] - t[b]) * slope).detach()
        u = field.w * x.sin() * t[b] * r[b]
        error = (u - target).square().mean()
        total = total + error / (error.detach() + eps) ** power / 3
        errors += error.item() / 3
    torch.testing.assert_close(losses.total, total)
    torch.testing.assert_close(
        found, torch.autograd.grad(total, field.w)[0], rtol=1e-4, atol=1e-6
    )
    assert losses.mse.item() == pytest.approx(errors, rel=1e-5)
    assert not losses.mse.requires_grad
    # weights are for training
    assert flow.eval()(mel, mu, MASK, generator(5)).total == losses.mse


def test_where_the_times_are_equal_it_is_flow_matching():
    class TwoTimes(torch.nn.Module):
        def forward(self, x, times, mu, mask=None):
            return x.sin() * times[:, :1, None] + mu

    class OneTime(torch.nn.Module):
        def forward(self, x, t, mu, mask=None):
            return x.sin() * t[:, None, None] + mu

    mel, mu = noise(0, 2, 3, 7, M)

    def fixed(count, chance):
        return torch.tensor([0.2, 0.5, 0.9])

    mean = MeanFlow(TwoTimes(), time=fixed).eval()
    plain = FlowMatching(OneTime(), time=fixed)
    torch.testing.assert_close(
        mean(mel, mu, None, generator()).total,
        plain(mel, mu, None, generator()).total,
    )


@pytest.mark.parametrize("fraction", [0.0, 0.3, 1.0])
def test_times_are_ordered_and_as_often_equal_as_said(fraction):
    flow = MeanFlow(Wave(), equal_fraction=fraction)
    t, r = flow.times(20_000, generator())
    assert (t <= r).all() and t.min() >= 0 and r.max() <= 1
    equal = (t == r).float().mean().item()
    assert equal == pytest.approx(fraction, abs=0.01)
    # the smaller of two uniform draws
    assert t.mean().item() == pytest.approx(1 / 3, abs=0.01)


@pytest.mark.parametrize("padding", [30.0, -1e4, math.inf, math.nan])
def test_what_padding_holds_changes_nothing(make_field, padding):
    flow = MeanFlow(make_field(), equal_fraction=0.3)
    results = []
    for value in (0.0, padding):
        mel, mu = noise(0, 2, 3, 7, M).masked_fill(~MASK.unsqueeze(-1), value)
        mu.requires_grad_()
        losses = flow(mel, mu, MASK, generator())
        wrt = [*flow.parameters(), mu]
        *grads, mu_grad = torch.autograd.grad(losses.total, wrt)
        assert (mu_grad.abs().sum((1, 2)) > 0).all()
        results.append([*losses, *grads, mu_grad[MASK]])
    for a, b in zip(*results, strict=True):
        torch.testing.assert_close(a, b, atol=1e-6, rtol=1e-4)


def test_chance_comes_from_the_generator_alone():
    flow = MeanFlow(awake(FIELDS["convnext"]())).eval()
    mel, mu = noise(0, 2, 3, 7, M)
    torch.manual_seed(1)
    first = flow(mel, mu, None, generator(7)).total
    torch.manual_seed(2)
    assert torch.equal(flow(mel, mu, None, generator(7)).total, first)
    assert flow(mel, mu, None, generator(8)).total != first


def test_item_mean_of_nothing_is_zero():
    values = torch.full((2, 3, M), math.nan)
    assert not item_mean(values, torch.zeros(2, 3, dtype=torch.bool)).any()
    assert item_mean(values[:, :0] + 1).shape == (2,)


def test_fractions_out_of_range_are_refused():
    with pytest.raises(ValueError, match="found 1.5"):
        MeanFlow(Wave(), equal_fraction=1.5)


# Sampling


def test_it_answers_for_its_evaluations_and_its_reach():
    flow = MeanFlow(MeanResidualField(Known(), TAU))
    assert flow.alignment == 2
    for n in (0, 1, 4):
        assert flow.evaluations(Sampling(n_steps=n)) == n
        assert flow.receptive_field(Sampling(n_steps=n)) == 3 * n
    flow.field.field.receptive_field = None
    assert flow.receptive_field(Sampling(n_steps=1)) is None
    assert flow.receptive_field(Sampling(n_steps=0)) == 0


@pytest.mark.parametrize(
    "change, message",
    [
        (dict(solver="heun"), "must be euler, found heun"),
        (dict(guidance=0.5), "without guidance"),
    ],
)
def test_what_it_cannot_do_is_refused(change, message):
    x = noise(0, 1, 3, M)
    sampling = Sampling(n_steps=2).with_changes(**change)
    with pytest.raises(ValueError, match=message):
        MeanFlow(MeanResidualField(Known(), TAU)).sample(x, x, None, sampling)


def test_it_starts_from_a_field_of_flow_matching():
    """u(x, t, r) = v(x, t) for all r."""

    def trunk():
        return ConvNeXt(8, 2, condition_dim=6)

    plain = FlowMatching(ResidualField(awake(ConvNeXtField(M, trunk())), TAU))
    flow = MeanFlow(
        MeanResidualField(ConvNeXtField(M, trunk(), num_times=2), TAU)
    )
    flow.load_state_dict(flow.adopt(plain.state_dict()))
    x, mu = noise(0, 2, 3, 7, M)
    t, r = torch.rand(2, 3, generator=generator())
    u = flow.field(x, torch.stack([t, r], 1), mu, MASK)
    v = plain.field(x, t, mu, MASK)
    same = ResidualField(Known(), TAU)(x, t, mu)
    also = MeanResidualField(Known(), TAU)(x, torch.stack([t, r], 1), mu)
    torch.testing.assert_close(u - also, v - same, atol=1e-5, rtol=1e-5)
    again = flow.adopt(flow.state_dict())
    assert all(torch.equal(v, again[k]) for k, v in flow.state_dict().items())


def test_in_one_step_it_beats_flow_matching():
    """On two modes, where one step of flow matching falls between them."""
    plain = train(FlowMatching, num_times=1)
    mean = train(MeanFlow, num_times=2, equal_fraction=0.5)
    one, many = Sampling(n_steps=1), Sampling(n_steps=32)
    between = distance_of_samples(plain, one)
    assert between > 0.6
    assert distance_of_samples(plain, many) < 0.2
    assert distance_of_samples(mean, one) < 0.25 * between


# Several ranks


def batch_of(rank):
    mel, mu = noise(rank, 2, 3, 7, M)
    return mel, mu, MASK, generator(100 + rank)


def gradients(flow):
    return [parameter.grad.clone() for parameter in flow.parameters()]


def train_rank(rank, store, results):
    torch.set_num_threads(1)
    torch.distributed.init_process_group(
        "gloo", init_method=f"file://{store}", rank=rank, world_size=2
    )
    flow = MeanFlow(awake(FIELDS["residual"]()), equal_fraction=0.3)
    wrapped = torch.nn.parallel.DistributedDataParallel(flow)
    wrapped(*batch_of(rank)).total.backward()
    torch.save(gradients(flow), f"{results}/{rank}.pt")
    torch.distributed.barrier()
    torch.distributed.destroy_process_group()


def test_two_ranks_have_the_gradient_of_one_with_both_halves(tmp_path):
    """DDP stands around the objective, not inside its forward mode."""
    on_two_ranks(train_rank, str(tmp_path / "store"), str(tmp_path))
    flow = MeanFlow(awake(FIELDS["residual"]()), equal_fraction=0.3)
    total = sum(flow(*batch_of(rank)).total for rank in range(2)) / 2
    total.backward()
    for rank in range(2):
        found = torch.load(tmp_path / f"{rank}.pt")
        for a, b in zip(found, gradients(flow), strict=True):
            torch.testing.assert_close(a, b, atol=1e-6, rtol=1e-4)
