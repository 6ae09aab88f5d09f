"""What a metric is: a function of two waveforms, and what to know of it."""

from collections.abc import Callable
from functools import wraps
from typing import NamedTuple

INTRUSIVE = "intrusive"
REFERENCE_FREE = "reference_free"


class Metric(NamedTuple):
    """What tables need to know of a metric.

    Arguments
    ---------
    heading : str
        Of its column.
    decimals : int
        Worth printing.
    higher_is_better : bool
        Which way it points.
    function : Callable
        `function(reference [T], decoded [T], sample_rate) -> float`.
    kind : str
        "intrusive": compares with the reference; "reference_free": judges
        the decoded signal alone.
    packages : tuple of str
        What to ask pip for.
    variable : str or None
        Environment variable that names another model, which replaces these
        packages.
    """

    heading: str
    decimals: int
    higher_is_better: bool
    function: Callable
    kind: str = INTRUSIVE
    packages: tuple = ()
    variable: str | None = None


def reference_free(function):
    """Gives metrics of the decoded signal a common way with bad input: NaN
    for no samples, and a `ValueError` unless both signals are [T].

    Example
    -------
    >>> import numpy as np
    >>> @reference_free
    ... def peak(reference, decoded, sample_rate):
    ...     return float(np.abs(decoded).max())
    >>> peak(np.zeros(3), np.ones(3), 16000)
    1.0
    >>> peak(np.zeros(3), np.ones(4), 16000)
    Traceback (most recent call last):
        ...
    ValueError: reference and decoded must both be [T], found [3] and [4]
    """

    @wraps(function)
    def checked(reference, decoded, sample_rate):
        if reference.ndim != 1 or reference.shape != decoded.shape:
            raise ValueError(
                "reference and decoded must both be [T], found "
                f"{list(reference.shape)} and {list(decoded.shape)}"
            )
        if not len(reference):
            return float("nan")
        return function(reference, decoded, sample_rate)

    return checked


def intrusive(function):
    """The same for metrics that compare: NaN if the reference is silent, too.

    Example
    -------
    >>> import numpy as np
    >>> @intrusive
    ... def error(reference, decoded, sample_rate):
    ...     return float(np.abs(decoded - reference).max())
    >>> error(np.zeros(3), np.ones(3), 16000)
    nan
    """

    @reference_free
    @wraps(function)
    def checked(reference, decoded, sample_rate):
        if not reference.any():
            return float("nan")
        return function(reference, decoded, sample_rate)

    return checked
