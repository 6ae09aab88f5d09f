"""FlowMAC, a neural audio codec, as a SpeechBrain plugin.

>>> from speechbrain_flowmac import FlowMACCodec
>>> codec = FlowMACCodec.from_hparams(source="flowmac-24khz-3kbps")
"""

import importlib.util
import sys
from pathlib import Path

__all__ = ["FlowMACCodec"]
__version__ = "0.1.0"


def _import_lobes_of_checkout():
    """Makes lobes/ beside this folder `speechbrain_flowmac.lobes`.

    Python that was started in a checkout imports this copy of the package,
    whatever is installed; only an installed package has lobes/ inside.
    """
    folder = Path(__file__).parents[1] / "lobes"
    if Path(__file__).with_name("lobes").is_dir() or not folder.is_dir():
        return
    spec = importlib.util.spec_from_file_location(
        f"{__name__}.lobes",
        folder / "__init__.py",
        submodule_search_locations=[str(folder)],
    )
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = sys.modules[__name__].lobes = module
    spec.loader.exec_module(module)


_import_lobes_of_checkout()


def __getattr__(name):
    # imported when it is first asked for: what reads headers needs no torch
    if name == "FlowMACCodec":
        try:
            from speechbrain_flowmac.inference import FlowMACCodec
        except OSError as error:  # a library that does not load
            _check_releases(error)
            raise
        return FlowMACCodec
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def _check_releases(error):
    """ImportError if torch and torchaudio, which pip does not hold together,
    are of different releases."""
    from importlib.metadata import version

    torch, torchaudio = (
        version(name).partition("+")[0] for name in ("torch", "torchaudio")
    )
    if torch != torchaudio:
        raise ImportError(
            f"torchaudio {torchaudio} does not load beside torch {torch}: "
            "install the pair of one release, "
            f"pip install 'torchaudio=={torch}'"
        ) from error
