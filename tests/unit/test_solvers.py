"""Fixed-grid solvers and time schedules."""

import math
import sys

import pytest
import torch

from speechbrain_flowmac.lobes.solvers import (
    RK4,
    SOLVERS,
    Cosine,
    Dopri5,
    Euler,
    Heun,
    Midpoint,
    Solver,
    Sway,
    Tableau,
    Uniform,
    get_solver,
)

SOLVER_CLASSES = [Euler, Midpoint, Heun, RK4]
SCHEDULES = [
    Uniform(),
    Sway(),
    Sway(-0.4),
    Sway(Sway.HIGHEST),
    Cosine(),
]


def decay_to_cosine(x, t):
    """dx/dt = -x + cos(t)."""
    return -x + torch.cos(t).view(-1, 1, 1)


def decay_to_cosine_exact(x0, t):
    forced = (math.cos(t) + math.sin(t)) / 2
    return forced + (x0 - 0.5) * math.exp(-t)


def global_error(solver, schedule, n_steps):
    x0 = torch.tensor([1.0, -2.0, 0.3], dtype=torch.float64).view(3, 1, 1)
    grid = schedule(n_steps, dtype=torch.float64)
    x = solver(decay_to_cosine, x0, grid).x
    return (x - decay_to_cosine_exact(x0, 1.0)).abs().max().item()


@pytest.mark.parametrize("schedule", [Uniform(), Sway(), Sway(1.0)])
@pytest.mark.parametrize("solver_class", SOLVER_CLASSES)
def test_order_of_convergence(solver_class, schedule):
    solver = solver_class()
    coarse = global_error(solver, schedule, 40)
    fine = global_error(solver, schedule, 80)
    assert math.log2(coarse / fine) == pytest.approx(solver.order, abs=0.15)


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize(
    "solver_class, degree", [(Euler, 0), (Midpoint, 1), (Heun, 1), (RK4, 3)]
)
def test_exact_where_the_quadrature_is(solver_class, degree, schedule):
    """A slope that is a polynomial in t is integrated without error."""

    def field(x, t):
        return (t**degree).view(-1, 1).expand_as(x)

    grid = schedule(3, dtype=torch.float64)
    x0 = torch.zeros(2, 4, dtype=torch.float64)
    x = solver_class()(field, x0, grid).x
    torch.testing.assert_close(x, torch.full_like(x, 1 / (degree + 1)))


@pytest.mark.parametrize("solver_class", SOLVER_CLASSES)
def test_one_step_is_exact_on_a_straight_path(solver_class):
    """The ideal flow between two points has a constant slope."""
    x0, x1 = torch.randn(2, 3, 5, generator=torch.manual_seed(0))
    x = solver_class()(lambda x, t: x1 - x0, x0, Uniform()(1)).x
    torch.testing.assert_close(x, x1)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("solver_class", SOLVER_CLASSES)
def test_evaluations_are_counted_and_times_are_batched(solver_class, dtype):
    seen = []

    def field(x, t):
        seen.append(t)
        return torch.zeros_like(x)

    solver = solver_class()
    x0 = torch.ones(4, 6, 2, dtype=dtype)
    x, nfe = solver(field, x0, Sway()(5))
    assert nfe == len(seen) == 5 * solver.evaluations_per_step
    assert all(t.shape == (4,) and t.dtype == dtype for t in seen)
    assert all(bool((t == t[0]).all()) for t in seen)
    assert 0.0 <= min(t[0] for t in seen) and max(t[0] for t in seen) <= 1.0
    assert torch.equal(x, x0) and x.dtype == dtype


@pytest.mark.parametrize("tolerance", [1e-2, 1e-4, 1e-7])
def test_the_adaptive_solver_keeps_its_tolerance(tolerance):
    seen = []

    def field(x, t):
        seen.append(t)
        return decay_to_cosine(x, t)

    x0 = torch.tensor([1.0, -2.0, 0.3]).double().view(3, 1, 1)
    x, nfe = Dopri5(tolerance)(field, x0, Uniform()(1))
    error = (x - decay_to_cosine_exact(x0, 1.0)).abs().max()
    assert error < 5 * tolerance
    assert nfe == len(seen)
    assert all(t.shape == (3,) and t.dtype == x0.dtype for t in seen)


def test_the_adaptive_solver_works_harder_where_it_must():
    x0 = torch.ones(1, 1, 1)
    counts = [
        Dopri5(1e-4)(lambda x, t, k=k: -k * x, x0, Uniform()(1)).nfe
        for k in (1.0, 30.0)
    ]
    assert counts[1] > 2 * counts[0]
    with pytest.raises(ValueError, match="found 0"):
        Dopri5(0)


def test_without_torchdiffeq_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "torchdiffeq", None)
    with pytest.raises(ImportError, match=r"speechbrain-flowmac\[solvers\]"):
        get_solver("dopri5")


def test_solving_in_two_parts_equals_solving_at_once():
    grid = Sway()(8, dtype=torch.float64)
    x0 = torch.ones(1, 1, 1, dtype=torch.float64)
    whole = RK4()(decay_to_cosine, x0, grid).x
    half = RK4()(decay_to_cosine, x0, grid[:5]).x
    assert torch.equal(RK4()(decay_to_cosine, half, grid[4:]).x, whole)


def test_initial_state_is_left_alone_and_gradients_flow():
    x0 = torch.ones(2, 3, requires_grad=True)
    x = Heun()(lambda x, t: -x, x0, Uniform()(16)).x
    x.sum().backward()
    assert torch.equal(x0.detach(), torch.ones(2, 3))
    torch.testing.assert_close(
        x0.grad, torch.full((2, 3), math.exp(-1)), atol=1e-3, rtol=0
    )


@pytest.mark.parametrize(
    "grid",
    [
        torch.tensor([0.0]),
        torch.tensor(1.0),
        torch.zeros(2, 2),
        torch.tensor([0.0, 0.5, 0.5, 1.0]),
        torch.tensor([1.0, 0.0]),
        torch.tensor([0.0, float("nan"), 1.0]),
    ],
)
def test_bad_grids_are_refused(grid):
    with pytest.raises(ValueError, match="grid"):
        Euler()(lambda x, t: x, torch.zeros(1, 1), grid)


@pytest.mark.parametrize(
    "parts",
    [
        {"a": ((), (0.5,)), "b": (1.0,), "c": (0.0,)},
        {"a": ((), (0.5,)), "b": (0.0, 1.0), "c": (0.0,)},
        {"a": ((), (0.5,)), "b": (0.0, 1.0), "c": (0.0, 1.0)},
        {"a": ((),), "b": (0.9,), "c": (0.0,)},
    ],
)
def test_inconsistent_tableaux_are_refused(parts):
    with pytest.raises(ValueError, match="rows of a"):
        Tableau(**parts)


def test_a_new_method_is_a_tableau():
    class Ralston(Solver):
        tableau = Tableau(((), (2 / 3,)), (0.25, 0.75), (0.0, 2 / 3))
        order = 2

    ratio = global_error(Ralston(), Uniform(), 40) / global_error(
        Ralston(), Uniform(), 80
    )
    assert math.log2(ratio) == pytest.approx(2, abs=0.15)


def test_solvers_are_found_by_name():
    for name, solver_class in SOLVERS.items():
        assert type(get_solver(name)) is solver_class
    solver = RK4()
    assert get_solver(solver) is solver
    with pytest.raises(ValueError, match="euler, midpoint, heun, rk4"):
        get_solver("rk45")


@pytest.mark.parametrize("n_steps", [1, 2, 7, 32, 128])
@pytest.mark.parametrize("schedule", SCHEDULES)
def test_schedules_increase_between_exact_ends(schedule, n_steps):
    grid = schedule(n_steps)
    assert grid.shape == (n_steps + 1,) and grid.dtype == torch.float32
    assert grid[0] == 0.0 and grid[-1] == 1.0
    assert (grid.diff() > 0).all()
    assert schedule(n_steps, dtype=torch.float64).dtype == torch.float64


def test_sway_follows_its_formula():
    s = 0.7
    expected = [
        t + s * (math.cos(math.pi * t / 2) - 1 + t)
        for t in (0, 0.25, 0.5, 0.75, 1)
    ]
    torch.testing.assert_close(Sway(s)(4), torch.tensor(expected))


def test_sign_of_sway_says_where_the_steps_are():
    early, late = Sway(-1.0)(8).diff(), Sway(1.0)(8).diff()
    assert early[0] < 1 / 8 < early[-1]
    assert late[0] > 1 / 8 > late[-1]
    torch.testing.assert_close(Sway(0.0)(8), Uniform()(8))
    torch.testing.assert_close(Sway(-1.0)(8), Cosine()(8))


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_schedules_refuse_too_few_steps(schedule):
    with pytest.raises(ValueError, match="at least 1, found 0"):
        schedule(0)


def test_schedules_refuse_steps_that_the_type_cannot_tell_apart():
    with pytest.raises(ValueError, match="too many"):
        Uniform()(5000, dtype=torch.float16)


@pytest.mark.parametrize("coefficient", [-1.01, 1.76, float("nan")])
def test_sway_refuses_coefficients_that_fold_time(coefficient):
    with pytest.raises(ValueError, match="coefficient"):
        Sway(coefficient)
