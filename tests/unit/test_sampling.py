"""Settings of sampling: their ranges, changes and names."""

import pytest
import torch

from speechbrain_flowmac import codec
from speechbrain_flowmac.lobes.sampling import Sampling
from speechbrain_flowmac.lobes.solvers import Euler, Heun, Sway, Uniform


def test_changes_leave_the_rest():
    sampling = Sampling(n_steps=4, temperature=0.5)
    changed = sampling.with_changes(
        n_steps=None, guidance=1.5, solver="heun", schedule=Sway()
    )
    assert isinstance(changed.solver, Heun)
    assert isinstance(changed.schedule, Sway)
    assert (changed.n_steps, changed.temperature) == (4, 0.5)
    assert changed.guidance == 1.5
    assert isinstance(sampling.solver, Euler) and sampling.guidance == 0
    assert isinstance(sampling.schedule, Uniform)
    assert sampling.with_changes(n_steps=0).n_steps == 0


def test_the_grid_is_that_of_the_schedule():
    sampling = Sampling(n_steps=4).with_changes(schedule="sway")
    assert torch.equal(sampling.grid, Sway()(4))


@pytest.mark.parametrize(
    "change, message",
    [
        (dict(n_steps=-1), "found -1"),
        (dict(n_steps=1.5), "found 1.5"),
        (dict(temperature=-0.5), "found -0.5"),
        (dict(temperature=float("nan")), "found nan"),
        (dict(guidance=-1.0), "found -1.0"),
        (dict(spread=-1.0), "found -1.0"),
        (dict(rescale=1.5), "found 1.5"),
        (dict(solver="runge"), "'runge', expected one of euler"),
        (dict(schedule="linear"), "'linear', expected one of uniform"),
    ],
)
def test_impossible_samplings_are_refused(change, message):
    with pytest.raises(ValueError, match=message):
        Sampling().with_changes(**change)


@pytest.mark.parametrize("value", [3, None])
def test_unknown_settings_are_refused(value):
    with pytest.raises(TypeError, match="steps; expected some of n_steps"):
        Sampling().with_changes(steps=value)


def test_yaml_of_older_models_finds_it_in_the_codec():
    assert codec.Sampling is Sampling
