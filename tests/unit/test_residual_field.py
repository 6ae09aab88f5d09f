"""Fields that start from the flow of a Gaussian around the condition."""

import pytest
import torch

from speechbrain_flowmac.lobes import vector_field
from speechbrain_flowmac.lobes.convnext import ConvNeXt
from speechbrain_flowmac.lobes.residual_field import (
    MeanResidualField,
    ResidualField,
)
from speechbrain_flowmac.lobes.solvers import RK4, Euler, Midpoint, Uniform
from speechbrain_flowmac.lobes.vector_field import ConvNeXtField, UNetField

M = 4


def noise(seed, *shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


SIGMA = 1e-2
TAU = 0.3


def zero(x, t, mu, mask=None):
    return torch.zeros_like(x)


def path(count, t, seed=0):
    """Pairs on the path where x_1 is mu + tau r: (x_t, u, mu)."""
    x_0, r = torch.randn(
        2, count, 1, 1, generator=torch.Generator().manual_seed(seed)
    ).double()
    mu = torch.full_like(x_0, 1.7)
    x_1 = mu + TAU * r
    x_t = (1 - (1 - SIGMA) * t) * x_0 + t * x_1
    return x_t, x_1 - (1 - SIGMA) * x_0, mu


@pytest.mark.parametrize("t", [0.0, 0.1, 0.5, 0.9, 1.0])
def test_residual_field_is_the_best_for_its_gaussian(t):
    """Its error is tau^2 / D, and is not correlated with what it saw."""
    count = 200_000
    x_t, u, mu = path(count, t)
    times = torch.full((count,), t, dtype=torch.float64)
    v = ResidualField(zero, TAU, SIGMA)(x_t, times, mu)
    error = (u - v).double().flatten()
    d = (1 - (1 - SIGMA) * t) ** 2 + (t * TAU) ** 2
    spread = TAU / d**0.5
    assert abs(error.mean()) < 5 * spread / count**0.5
    assert error.var().item() == pytest.approx(spread**2, rel=0.02)
    seen = torch.stack([error, x_t.flatten()])
    assert abs(torch.corrcoef(seen)[0, 1]) < 5 / count**0.5


@pytest.mark.parametrize("t", [0.05, 0.5, 0.95])
def test_residual_field_gives_its_network_unit_scale(t):
    """What the network sees, and what it should say, have variance 1."""
    count = 100_000
    seen = []

    def spy(y, t, mu, mask):
        seen.append(y)
        return torch.zeros_like(y)

    x_t, u, mu = path(count, t)
    times = torch.full((count,), t)
    field = ResidualField(spy, TAU, SIGMA)
    known = field(x_t, times, mu)
    assert seen[0].var().item() == pytest.approx(1.0, rel=0.02)
    unit = ResidualField(lambda y, *_: torch.ones_like(y), TAU, SIGMA)
    scale = unit(x_t, times, mu) - known
    assert ((u - known) / scale).var().item() == pytest.approx(1.0, rel=0.02)


def test_one_step_of_the_residual_field_gives_the_condition():
    x, mu = noise(0, 2, 5, M), noise(1, 2, 5, M)
    field = ResidualField(zero, TAU, sigma_min=0.0)
    solution = Euler()(lambda x, t: field(x, t, mu), x, Uniform()(1))
    torch.testing.assert_close(solution.x, mu)


def test_many_steps_of_the_residual_field_sample_its_gaussian():
    x = noise(0, 20_000, 1, 1).double()
    mu = torch.full_like(x, -2.5)
    field = ResidualField(zero, TAU, sigma_min=1e-4)
    solution = Midpoint()(lambda x, t: field(x, t, mu), x, Uniform()(64))
    assert solution.x.mean().item() == pytest.approx(-2.5, abs=0.01)
    assert solution.x.std().item() == pytest.approx(TAU, rel=0.02)


def test_residual_field_passes_on_mask_and_condition():
    seen = []

    def spy(y, t, mu, mask):
        seen.append((t, mu, mask))
        return torch.zeros_like(y)

    x, mu, t = noise(0, 1, 5, M), noise(1, 1, 5, M), torch.rand(1)
    mask = torch.ones(1, 5, dtype=torch.bool)
    ResidualField(spy, TAU)(x, t, mu, mask)
    assert all(a is b for a, b in zip(seen[0], (t, mu, mask), strict=True))


def test_residual_field_is_that_of_one_time():
    """Its formulas are those of the velocity at t, not of a mean over time."""
    x = noise(0, 2, 5, M)
    with pytest.raises(ValueError, match="one time"):
        ResidualField(zero, TAU)(x, torch.rand(2, 2), x)


@pytest.mark.parametrize("tau", [0.0, -0.1])
def test_spreads_not_above_zero_are_refused(tau):
    with pytest.raises(ValueError, match=f"found {tau}"):
        ResidualField(zero, tau)


# Over an interval

KINDS = [(ResidualField, 1), (MeanResidualField, 2)]


@pytest.mark.parametrize("kind, num_times", KINDS)
def test_reach_and_alignment_are_the_network_s(kind, num_times):
    trunk = ConvNeXt(8, 2, condition_dim=6)
    field = kind(ConvNeXtField(M, trunk, num_times), TAU)
    assert field.receptive_field == trunk.receptive_field
    unet = UNetField(M, (8, 8), num_heads=2, num_times=num_times)
    field = kind(unet, TAU)
    assert field.receptive_field is None and field.alignment == 2
    # YAML of older models finds them beside the networks
    assert getattr(vector_field, kind.__name__) is kind


@pytest.mark.parametrize("t, r", [(0.0, 1.0), (0.0, 0.3), (0.4, 0.8)])
def test_mean_residual_field_is_the_mean_of_the_velocity(t, r):
    x, mu = noise(0, 2, 3, 7, M).double()
    times = torch.tensor([[t, r]]).double().expand(3, 2)
    u = MeanResidualField(zero, TAU, SIGMA)(x, times, mu)
    velocity = ResidualField(zero, TAU, SIGMA)
    grid = t + (r - t) * Uniform()(256, dtype=torch.float64)
    end = RK4()(lambda x, t: velocity(x, t, mu), x, grid).x
    torch.testing.assert_close(u, (end - x) / (r - t), atol=1e-7, rtol=1e-7)


@pytest.mark.parametrize("t", [0.0, 0.3, 1.0])
def test_over_no_time_the_mean_is_the_velocity(t):
    """Also what the network says, which may know more than two times."""
    x, mu = noise(0, 2, 2, 5, M)
    one = torch.full((2,), t)
    three = torch.stack([one, one, 0.5 * one], dim=1)
    asked = []

    def net(y, times, mu, mask):
        asked.append(times)
        return y.sin() + mu

    torch.testing.assert_close(
        MeanResidualField(net, TAU, SIGMA)(x, three, mu),
        ResidualField(net, TAU, SIGMA)(x, one, mu),
    )
    assert asked[0] is three


def test_mean_residual_field_needs_two_times():
    x = noise(0, 2, 5, M)
    for times in (torch.rand(2), torch.rand(2, 1)):
        with pytest.raises(ValueError, match="two times or more"):
            MeanResidualField(zero, TAU)(x, times, x)
