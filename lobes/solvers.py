"""Solvers of dx/dt = f(x, t) and the time grids they walk on.

A solver is a Butcher tableau (or torchdiffeq's adaptive one); a schedule says where its steps end. Every step
uses the true distance between its two grid points, so any increasing grid is
integrated correctly, warped or not.
"""

import math
from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple

import torch

__all__ = [
    "Cosine",
    "Dopri5",
    "Euler",
    "Heun",
    "Midpoint",
    "RK4",
    "SCHEDULES",
    "SOLVERS",
    "Solution",
    "Solver",
    "Sway",
    "Tableau",
    "Uniform",
    "get_schedule",
    "get_solver",
]


@dataclass(frozen=True)
class Tableau:
    """Butcher tableau of an explicit Runge-Kutta method.

    One step of length h from (x, t) is

        k_i = f(x + h sum_{j<i} a_ij k_j, t + c_i h)
        x'  = x + h sum_i b_i k_i

    Arguments
    ---------
    a : tuple of tuple of float
        Row i has the i weights of the earlier slopes (row 0 is empty).
    b : tuple of float
        Weights of the slopes in the step.
    c : tuple of float
        Where in the step each slope is taken, 0 to 1.

    Raises
    ------
    ValueError
        If the parts do not fit, or a row of ``a`` does not sum to its ``c``,
        or ``b`` does not sum to 1 (a method that does not converge).
    """

    a: tuple
    b: tuple
    c: tuple

    def __post_init__(self):
        stages = len(self.b)
        rows = [len(row) for row in self.a]
        if rows != list(range(stages)) or len(self.c) != stages:
            raise ValueError(
                f"{stages} weights b need {stages} nodes c and rows of a with "
                f"0..{stages - 1} entries, found {len(self.c)} and {rows}"
            )
        sums = [math.fsum(row) for row in self.a] + [math.fsum(self.b)]
        for found, expected in zip(sums, (*self.c, 1.0), strict=True):
            if not math.isclose(found, expected, abs_tol=1e-12):
                raise ValueError(
                    "rows of a must sum to c, and b to 1; a sum is "
                    f"{found}, expected {expected}"
                )


class Solution(NamedTuple):
    """What a solver returns: the state ``x`` at the last grid point, and
    ``nfe``, how often the field was evaluated."""

    x: torch.Tensor
    nfe: int


class Solver:
    """Explicit Runge-Kutta method on a given time grid.

    A new method is a subclass with its ``tableau`` and its ``order``. Only the
    current state is kept.

    Example
    -------
    >>> grid = Uniform()(16)
    >>> x, nfe = Midpoint()(lambda x, t: -x, torch.ones(2, 1, 1), grid)
    >>> nfe
    32
    >>> bool((x - math.exp(-1)).abs().max() < 1e-3)
    True
    """

    tableau: Tableau
    """Coefficients of the method."""

    order: int
    """The error over a fixed time shrinks like (step length) ** order."""

    @property
    def evaluations_per_step(self):
        """How often one step evaluates the field."""
        return len(self.tableau.b)

    def __call__(self, f, x0, grid):
        """Integrate from the first point of the grid to the last.

        Arguments
        ---------
        f : callable
            The field, ``f(x, t)`` with x [B, ...] and t [B] (the same time
            for each item, in the type and on the device of x), returning the
            slope, shaped like x.
        x0 : torch.Tensor
            State at the first grid point, [B, ...].
        grid : torch.Tensor
            Increasing times, [steps + 1].

        Returns
        -------
        Solution
            The last state and the number of evaluations.

        Raises
        ------
        ValueError
            If the grid is not 1-D, has fewer than two points or does not
            increase.
        """
        times = _checked_times(grid)
        x = x0
        for start, end in pairwise(times):
            x = self._step(f, x, start, end - start)
        return Solution(x, self.evaluations_per_step * (len(times) - 1))

    def _step(self, f, x, start, length):
        """The state one step later."""
        slopes = []
        for weights, node in zip(self.tableau.a, self.tableau.c, strict=True):
            t = x.new_full((x.shape[0],), start + node * length)
            slopes.append(f(_advance(x, length, weights, slopes), t))
        return _advance(x, length, self.tableau.b, slopes)


def _advance(x, length, weights, slopes):
    """x + length * sum_i weights_i slopes_i, without the terms of weight 0."""
    for weight, slope in zip(weights, slopes, strict=True):
        if weight:
            x = x + (length * weight) * slope
    return x


def _checked_times(grid):
    """The grid as a list of float, or ValueError."""
    if grid.dim() != 1 or grid.numel() < 2:
        raise ValueError(
            "the grid must be 1-D with at least two times, found shape "
            f"{list(grid.shape)}"
        )
    times = grid.tolist()
    if not all(start < end for start, end in pairwise(times)):
        raise ValueError(f"the times of the grid must increase, found {times}")
    return times


class Euler(Solver):
    """x' = x + h f(x, t): one evaluation per step, order 1."""

    tableau = Tableau(a=((),), b=(1.0,), c=(0.0,))
    order = 1


class Midpoint(Solver):
    """x' = x + h f(x + h/2 f(x, t), t + h/2): two evaluations, order 2."""

    tableau = Tableau(a=((), (0.5,)), b=(0.0, 1.0), c=(0.0, 0.5))
    order = 2


class Heun(Solver):
    """Mean of the slopes at both ends of an Euler step: two evaluations,
    order 2."""

    tableau = Tableau(a=((), (1.0,)), b=(0.5, 0.5), c=(0.0, 1.0))
    order = 2


class RK4(Solver):
    """The classical Runge-Kutta method: four evaluations, order 4."""

    tableau = Tableau(
        a=((), (0.5,), (0.0, 0.5), (0.0, 0.0, 1.0)),
        b=(1 / 6, 1 / 3, 1 / 3, 1 / 6),
        c=(0.0, 0.5, 0.5, 1.0),
    )
    order = 4


class Dopri5(Solver):
    """Dormand and Prince's adaptive method of order 5, by torchdiffeq.

    It takes the steps that its tolerance asks for, whatever the grid. The
    error is that of the whole batch: what else is in it, and padding, changes
    the steps, though not by more than the tolerance.

    Arguments
    ---------
    tolerance : float
        Relative and absolute error of a step, above 0.

    Raises
    ------
    ImportError
        If torchdiffeq is not installed.
    """

    order = 5
    evaluations_per_step = None
    """None: that depends on the field."""

    def __init__(self, tolerance=1e-2):
        if tolerance <= 0:
            raise ValueError(f"tolerance must be above 0, found {tolerance}")
        try:
            from torchdiffeq import odeint
        except ImportError as error:
            raise ImportError(
                "the solver dopri5 needs torchdiffeq: "
                "pip install speechbrain-flowmac[solvers]"
            ) from error
        self.tolerance = tolerance
        self.odeint = odeint

    def __call__(self, f, x0, grid):
        """Integrate from the first point of the grid to the last; see
        `Solver`."""
        times = _checked_times(grid)
        calls = 0

        def slope(t, x):
            nonlocal calls
            calls += 1
            return f(x, t.to(x).expand(x.shape[0]))

        states = self.odeint(
            slope,
            x0,
            torch.tensor([times[0], times[-1]], device=x0.device),
            rtol=self.tolerance,
            atol=self.tolerance,
            method="dopri5",
        )
        return Solution(states[-1], calls)


SOLVERS = {
    "euler": Euler,
    "midpoint": Midpoint,
    "heun": Heun,
    "rk4": RK4,
    "dopri5": Dopri5,
}
"""Names that a user may type, for :func:`get_solver`."""


def get_solver(solver):
    """A solver from its name.

    Arguments
    ---------
    solver : str or Solver
        A key of ``SOLVERS``, or a solver, which is returned as it is.

    Returns
    -------
    Solver

    Raises
    ------
    ValueError
        If it is neither; the message lists the names.

    Example
    -------
    >>> get_solver("heun").evaluations_per_step
    2
    """
    return _get("solver", solver, Solver, SOLVERS)


def _get(kind, value, base, known):
    """The value itself, or what its name stands for."""
    if isinstance(value, base):
        return value
    if value not in known:
        raise ValueError(
            f"unknown {kind} {value!r}, expected one of {', '.join(known)}"
        )
    return known[value]()


class Uniform:
    """Equal steps, t_k = k / n.

    Subclasses bend the grid by overriding :meth:`warp`.

    Example
    -------
    >>> Uniform()(4)
    tensor([0.0000, 0.2500, 0.5000, 0.7500, 1.0000])
    """

    def warp(self, t):
        """Map times [n] in [0, 1] to [0, 1], increasing, keeping both ends."""
        return t

    def __call__(self, n_steps, device=None, dtype=torch.float32):
        """The grid of a number of steps.

        Arguments
        ---------
        n_steps : int
            Steps, at least 1.
        device : torch.device, optional
            Where the grid lives.
        dtype : torch.dtype
            Its floating type.

        Returns
        -------
        torch.Tensor
            Strictly increasing times from exactly 0 to exactly 1,
            [n_steps + 1].

        Raises
        ------
        ValueError
            If there are fewer than 1 steps, or too many for the type to tell
            their times apart.
        """
        if n_steps < 1:
            raise ValueError(f"n_steps must be at least 1, found {n_steps}")
        # Computed in float64: near t = 0 a warped grid has steps so short
        # that float32 cosines would round them away.
        t = torch.linspace(0.0, 1.0, n_steps + 1, dtype=torch.float64)
        grid = self.warp(t)
        grid[0], grid[-1] = 0.0, 1.0
        grid = grid.to(dtype)
        if not bool((grid.diff() > 0).all()):
            raise ValueError(f"{n_steps} steps are too many for {dtype}")
        return grid.to(device)


class Sway(Uniform):
    """Sway sampling of F5-TTS (arXiv 2410.06885),

        t' = t + s (cos(pi t / 2) - 1 + t)

    where s < 0 puts more steps near t = 0, s = 0 is uniform and s > 0 puts
    more near t = 1.

    Arguments
    ---------
    coefficient : float
        s, in [-1, 2 / (pi - 2)], where t' does not decrease.

    Raises
    ------
    ValueError
        If the coefficient is outside that range.

    Example
    -------
    >>> Sway()(4)
    tensor([0.0000, 0.0761, 0.2929, 0.6173, 1.0000])
    """

    LOWEST = -1.0
    HIGHEST = 2.0 / (math.pi - 2.0)

    def __init__(self, coefficient=-1.0):
        if not self.LOWEST <= coefficient <= self.HIGHEST:
            raise ValueError(
                f"the sway coefficient must be in [{self.LOWEST}, "
                f"{self.HIGHEST:.4f}], found {coefficient}"
            )
        self.coefficient = coefficient

    def warp(self, t):
        """t + s (cos(pi t / 2) - 1 + t)."""
        return t + self.coefficient * (torch.cos(math.pi / 2 * t) - 1 + t)


class Cosine(Uniform):
    """t' = 1 - cos(pi t / 2), as in CosyVoice (arXiv 2407.05407): the sway
    grid with s = -1.

    Example
    -------
    >>> torch.equal(Cosine()(8), Sway(-1.0)(8))
    True
    """

    def warp(self, t):
        """1 - cos(pi t / 2), written as 2 sin^2(pi t / 4) to keep the digits
        of small times."""
        return 2 * torch.sin(math.pi / 4 * t).square()


SCHEDULES = {"uniform": Uniform, "sway": Sway, "cosine": Cosine}
"""Names that a user may type, for :func:`get_schedule`."""


def get_schedule(schedule):
    """A schedule from its name.

    Arguments
    ---------
    schedule : str or Uniform
        A key of ``SCHEDULES``, or a schedule, which is returned as it is.

    Returns
    -------
    Uniform

    Raises
    ------
    ValueError
        If it is neither; the message lists the names.

    Example
    -------
    >>> get_schedule("sway").coefficient
    -1.0
    """
    return _get("schedule", schedule, Uniform, SCHEDULES)
