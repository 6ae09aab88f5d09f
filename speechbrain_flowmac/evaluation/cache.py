"""What an evaluation keeps, so that nothing is worked out twice.

The name of an entry says what it was made of, by content, so an entry is
never out of date, and may be deleted at any time. An entry appears when it is
complete; one that was damaged since counts as missing.
"""

import hashlib
import importlib.metadata
import inspect
import json
import re
import zipfile
from contextlib import suppress
from pathlib import Path

import numpy as np

from speechbrain_flowmac.evaluation.systems.base import digest, file_digest
from speechbrain_flowmac.files import atomic_write

# Raised when entries mean something else than before
VERSION = 1


class Cache:
    """A folder of entries: a few arrays, or anything that JSON takes.

    Example
    -------
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     cache = Cache(Path(folder) / "cache")
    ...     cache.put_json("scores", "0a", {"pesq": 1.5})
    ...     cache.get_json("scores", "0a"), cache.get_json("scores", "0b")
    ({'pesq': 1.5}, None)
    """

    def __init__(self, folder):
        self.folder = Path(folder)

    def path(self, kind, key, ending):
        """Where an entry is or would be; `key` is the digest of all that it
        follows from."""
        # few enough files in a folder for every file system
        return self.folder / kind / key[:2] / f"{key}{ending}"

    def get_json(self, kind, key):
        """An entry, or None; see `path`."""
        try:
            return json.loads(self.path(kind, key, ".json").read_text())
        except (OSError, ValueError):
            return None

    def put_json(self, kind, key, value):
        """Keeps what JSON takes; NaN and infinity are refused."""
        path = self.path(kind, key, ".json")
        path.parent.mkdir(parents=True, exist_ok=True)
        text = json.dumps(value, allow_nan=False)
        with atomic_write(path, "w") as file:
            file.write(text)

    def get_arrays(self, kind, key):
        """An entry as a dict of arrays, or None; see `path`."""
        try:
            # checks the CRC of each
            with np.load(self.path(kind, key, ".npz")) as arrays:
                return dict(arrays)
        except (OSError, ValueError, EOFError, zipfile.BadZipFile):
            return None

    def put_arrays(self, kind, key, **arrays):
        """Keeps arrays under their names."""
        path = self.path(kind, key, ".npz")
        path.parent.mkdir(parents=True, exist_ok=True)
        with atomic_write(path) as file:
            np.savez(file, **arrays)


def signal_digest(signal):
    """SHA-256 of samples, in hex.

    Example
    -------
    >>> silence = np.zeros(3)
    >>> signal_digest(silence) == signal_digest(np.zeros(4))
    False
    """
    found = hashlib.sha256(f"{signal.dtype} {signal.shape} ".encode())
    found.update(np.ascontiguousarray(signal).data)
    return found.hexdigest()


def function_digest(function, packages=()):
    """Changes whenever what a function of a module returns may: with the sources
    in the folder of its file, and the versions of its pip packages.

    Example
    -------
    >>> function_digest(digest) == function_digest(digest, ("numpy",))
    False
    """
    folder = Path(inspect.getfile(function)).parent
    sources = {
        path.name: file_digest(path) for path in sorted(folder.glob("*.py"))
    }
    name = f"{function.__module__}.{function.__qualname__}"
    return digest(name, sources, package_versions(packages))


def source_digest(source):
    """Changes whenever a model does that is named in some way: a folder by all
    its files, anything else, such as a Hub id, by its name.

    Example
    -------
    >>> source_digest("one/model") == source_digest("another/model")
    False
    """
    paths = sorted(Path(source).rglob("*")) if source else []
    return digest(
        source,
        {
            path.relative_to(source).as_posix(): file_digest(path)
            for path in paths
            if path.is_file()
        },
    )


def package_versions(packages):
    """Versions of those packages that are installed, by name.

    Example
    -------
    >>> list(package_versions(["numpy>=1", "no-such-package[all]"]))
    ['numpy']
    """
    names = [re.match(r"[\w.-]+", package).group() for package in packages]
    versions = {}
    for name in names:
        with suppress(importlib.metadata.PackageNotFoundError):
            versions[name] = importlib.metadata.version(name)
    return versions
