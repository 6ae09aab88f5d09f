"""Functions of test modules, run on two processes."""

import importlib.util
import inspect
import sys
from pathlib import Path

from torch import multiprocessing


def on_two_ranks(function, *arguments):
    """Calls `function(rank, *arguments)` in two new processes.

    Pytest loads test modules from their files, under names that a new process
    cannot import: it loads the file again.
    """
    place = (inspect.getfile(function), function.__name__)
    multiprocessing.spawn(_call, (*place, arguments), nprocs=2)


def _call(rank, path, name, arguments):
    spec = importlib.util.spec_from_file_location(Path(path).stem, path)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    getattr(module, name)(rank, *arguments)
