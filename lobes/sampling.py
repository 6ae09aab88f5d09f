"""How a sample is drawn from a flow: steps, solver, grid, noise, guidance."""

from dataclasses import dataclass, field, fields, replace
from typing import Any

from speechbrain_flowmac.lobes.guidance import GuidedField
from speechbrain_flowmac.lobes.solvers import (
    Euler,
    Uniform,
    get_schedule,
    get_solver,
)


@dataclass(frozen=True)
class Sampling:
    """How a mel is sampled from a flow.

    Arguments
    ---------
    n_steps : int
        Steps of the solver; 0 gives the mel decoder's own mel.
    solver : Solver
        From `lobes.solvers`.
    schedule : callable
        From `lobes.solvers`: where the steps lie.
    temperature : float
        Standard deviation of the noise that sampling starts from.
    guidance : float
        Scale w of classifier-free guidance; 0 for none.
    guidance_interval : tuple of float
        First and last time with guidance, within 0..1 (Kynkaanniemi et al.,
        2404.07724).
    rescale : float
        Rescaling of the guided field, 0..1.
    spread : float
        How much of the spread over bands that decoding took the mel gets back
        (`MelSpread`): 1 for all of a mean's. What samples has its own: 0.

    Example
    -------
    >>> sampling = Sampling(n_steps=4).with_changes(n_steps=None, guidance=0.5)
    >>> sampling.n_steps, sampling.guidance
    (4, 0.5)
    """

    n_steps: int = 32
    solver: Any = field(default_factory=Euler)
    schedule: Any = field(default_factory=Uniform)
    temperature: float = 1.0
    guidance: float = 0.0
    guidance_interval: tuple = (0.0, 1.0)
    rescale: float = 0.0
    spread: float = 0.0

    def __post_init__(self):
        if self.n_steps < 0 or self.n_steps != int(self.n_steps):
            raise ValueError(
                f"n_steps must be a whole number, 0 or more, found "
                f"{self.n_steps}"
            )
        for name in ("temperature", "guidance", "spread"):
            value = getattr(self, name)
            if not 0 <= value < float("inf"):
                raise ValueError(f"{name} must be 0 or more, found {value}")
        start, end = self.guidance_interval
        if not 0 <= start <= end <= 1:
            raise ValueError(
                "guidance_interval must be two times in 0..1, found "
                f"{self.guidance_interval}"
            )
        if not 0 <= self.rescale <= 1:
            raise ValueError(f"rescale must be in 0..1, found {self.rescale}")

    def with_changes(self, **changes):
        """A copy with those changes that are not None.

        Arguments
        ---------
        **changes
            Fields by name; solver and schedule also by their names.

        Returns
        -------
        Sampling

        Raises
        ------
        TypeError
            If there is no such field.
        """
        known = [field.name for field in fields(self)]
        unknown = [name for name in changes if name not in known]
        if unknown:
            raise TypeError(
                f"no setting of sampling: {', '.join(unknown)}; expected "
                f"some of {', '.join(known)}"
            )
        changes = {k: v for k, v in changes.items() if v is not None}
        for name, get in (("solver", get_solver), ("schedule", get_schedule)):
            if name in changes:
                changes[name] = get(changes[name])
        return replace(self, **changes)

    def guide(self, field):
        """The field [B, N, M] with this guidance, if any; see `GuidedField`."""
        return GuidedField(
            field, self.guidance, self.rescale, self.guidance_interval
        )

    @property
    def grid(self):
        """Times of the steps, from 0 to 1, float32 [n_steps + 1]."""
        return self.schedule(self.n_steps)
