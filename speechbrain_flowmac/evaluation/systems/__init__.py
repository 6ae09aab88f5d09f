"""Systems by name: `make_system("opus:6")`.

A name is FAMILY or FAMILY:DETAIL[:OPTION=VALUE...]. A new family is a
`base.Family` among the `FAMILIES` of a module that `MODULES` names.
"""

import importlib

from speechbrain_flowmac.evaluation.systems.base import (
    Coded,
    Recording,
    System,
    UnavailableError,
)

__all__ = ["Coded", "Recording", "System", "UnavailableError", "make_system"]

# family: module of this package, imported when it is asked for
MODULES = {
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
    """Makes the `System` of a name such as "flowmac:8:steps=4" or "opus:6".

    ValueError for a name that means nothing, which says what could be meant;
    UnavailableError for a system that cannot run here.
    """
    family, *parts = name.split(":")
    if family not in MODULES:
        raise ValueError(
            f"no system {family!r}, known are {', '.join(sorted(MODULES))}"
        )
    options = [x.split("=", 1) for x in parts if "=" in x]
    if len(dict(options)) < len(options):
        raise ValueError(f"{name!r} gives an option twice")
    details = [x for x in parts if "=" not in x]
    module = importlib.import_module(f"{__name__}.{MODULES[family]}")
    kind = module.FAMILIES[family]
    try:
        detail, options = kind.read(details, dict(options))
    except ValueError as error:
        raise ValueError(f"{name!r}: {error}; write {kind.usage}") from None
    return kind.make(name, detail, **options)
