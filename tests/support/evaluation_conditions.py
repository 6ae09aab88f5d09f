"""Conditions whose systems are fakes, of a module that workers can import."""

from collections.abc import Callable
from dataclasses import dataclass

import evaluation_fakes

from speechbrain_flowmac.evaluation.scoring import Conditions


@dataclass(frozen=True)
class FakeConditions(Conditions):
    """As `Conditions`, with other systems."""

    make_system: Callable = evaluation_fakes.make_system
