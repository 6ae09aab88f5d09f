"""Systems by name: `make_system("opus:6")`.

A name is FAMILY or FAMILY:DETAIL[:OPTION=VALUE...]. A new family is a function
`make(name, family, details, dict(options)) -> System` in a module of `FAMILIES`.
"""

import importlib

from speechbrain_flowmac.evaluation.systems.base import (
    Coded,
    Recording,
    System,
    UnavailableError,
)

__all__ = ["Coded", "Recording", "System", "UnavailableError", "make_system"]

# family: module of this package that has its function `make`
FAMILIES = {
    "flowmac": "flowmac",
    "folder": "folder",
    "lowpass": "anchors",
    "opus": "programs",
    "codec2": "programs",
    "amrwb": "amrwb",
    "speex": "programs",
    "lc3": "programs",
    "encodec": "transformers_codecs",
    "dac": "transformers_codecs",
    "mimi": "transformers_codecs",
}


def make_system(name):
    """Makes a system.

    Arguments
    ---------
    name : str
        Such as "flowmac:8", "flowmac:8:steps=4", "opus:6", "lowpass:3.5".

    Returns
    -------
    System

    Raises
    ------
    ValueError
        For a name that means nothing; it says what could be meant.
    UnavailableError
        For one that cannot run here.
    """
    family, *details = name.split(":")
    if family not in FAMILIES:
        raise ValueError(
            f"no system {family!r}, known are {', '.join(sorted(FAMILIES))}"
        )
    options = [x.split("=", 1) for x in details if "=" in x]
    if len(dict(options)) < len(options):
        raise ValueError(f"{name!r} gives an option twice")
    details = [x for x in details if "=" not in x]
    module = importlib.import_module(f"{__name__}.{FAMILIES[family]}")
    return module.make(name, family, details, dict(options))
