"""Optional packages: imported when a metric is used, named when missing."""

import importlib
import warnings
from importlib.metadata import PackageNotFoundError, distribution

from packaging.requirements import Requirement


def optional(module, *packages):
    """Imports a module; ImportError, with the command that installs it, if the
    packages that it needs of pip are missing."""
    try:
        with warnings.catch_warnings():
            # said once by each package that asks setuptools for its version
            warnings.filterwarnings("ignore", "pkg_resources is deprecated")
            return importlib.import_module(module)
    except ImportError as error:
        raise ImportError(
            f"this metric needs {module}: {pip_install(packages)}"
        ) from error


def pip_install(packages):
    """The command that installs packages.

    Example
    -------
    >>> pip_install(["pyworld", "setuptools<82"])
    "pip install 'pyworld' 'setuptools<82'"
    """
    return " ".join(["pip install", *(f"'{name}'" for name in packages)])


def is_installed(requirement):
    """Whether pip would have nothing to do, found without importing anything.

    What a package always needs is taken to have come with it; what its
    extras need is looked for.

    Example
    -------
    >>> is_installed("numpy>=1"), is_installed("numpy<1")
    (True, False)
    """
    wanted = Requirement(requirement)
    try:
        found = distribution(wanted.name)
    except PackageNotFoundError:
        return False
    if not wanted.specifier.contains(found.version, prereleases=True):
        return False
    needs = [Requirement(line) for line in found.requires or ()]
    return all(
        is_installed(f"{need.name}{need.specifier}")
        for extra in wanted.extras
        for need in needs
        if need.marker
        and need.marker.evaluate({"extra": extra})
        and not need.marker.evaluate({"extra": ""})
    )
