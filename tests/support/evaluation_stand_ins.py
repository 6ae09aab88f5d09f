"""Modules in the place of optional packages, or of nothing."""

import pkgutil
import sys
from importlib import import_module

from speechbrain_flowmac import metrics


def _forget():
    """Drops every model and result that the metrics keep."""
    for info in pkgutil.iter_modules(metrics.__path__, "."):
        module = import_module(info.name, metrics.__name__)
        for value in vars(module).values():
            for name in ("cache_clear", "forget"):
                getattr(value, name, lambda: None)()


def stand_ins(monkeypatch):
    """Body of a fixture: a function that puts a module in place of another.

    Arguments
    ---------
    monkeypatch : pytest.MonkeyPatch
        Takes them away again.

    Yields
    ------
    Callable
        `install(name, module)`; None is for a package that is missing.
    """
    _forget()
    yield lambda name, module: monkeypatch.setitem(sys.modules, name, module)
    _forget()
