"""What a recipe may import: the package's dependencies, and its own file's."""

import importlib.metadata
import sys
from functools import cache
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

if sys.version_info < (3, 11):
    import tomli as tomllib
else:
    import tomllib

ROOT = Path(__file__).parents[2]
FILE = "extra_requirements.txt"


def project():
    """The table `project` of pyproject.toml."""
    text = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    return tomllib.loads(text)["project"]


def requirements_of(folder):
    """Lines of a recipe's file, an empty list where there is none."""
    path = folder / FILE
    return path.read_text("utf-8").splitlines() if path.is_file() else []


def packages_of(requirements):
    """Names of the installed packages that requirements bring."""
    names, left = set(), [(Requirement(line), "") for line in requirements]
    while left:
        requirement, parent = left.pop()
        marker = requirement.marker
        name = canonicalize_name(requirement.name)
        key = (name, *sorted(requirement.extras))
        if key in names or marker and not marker.evaluate({"extra": parent}):
            continue
        names.add(key)
        try:
            needs = importlib.metadata.requires(name) or ()
        except importlib.metadata.PackageNotFoundError:
            continue
        left += [
            (Requirement(need), extra)
            for need in needs
            for extra in ("", *requirement.extras)
        ]
    return {name for name, *_ in names}


@cache
def forbidden_modules(folder):
    """Modules that extras bring, but not what a recipe says to install."""
    base, extras = project()["dependencies"], project()["optional-dependencies"]
    allowed = packages_of([*base, *requirements_of(folder)])
    optional = packages_of(sum(extras.values(), [])) - allowed
    return {
        module
        for module, names in importlib.metadata.packages_distributions().items()
        if {canonicalize_name(name) for name in names} <= optional
    } - sys.stdlib_module_names


class _Without:
    """A finder of modules, which does not find some."""

    def __init__(self, finder, modules):
        self.finder, self.modules = finder, modules

    def __getattr__(self, name):
        return getattr(self.finder, name)

    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in self.modules:
            return None
        return self.finder.find_spec(name, path, target)


def forbid(modules):
    """Makes modules look as if they were not installed.

    Arguments
    ---------
    modules : set of str
        Top-level names.
    """
    # some are loaded: SpeechBrain imports what it can find
    for name in [n for n in sys.modules if n.partition(".")[0] in modules]:
        del sys.modules[name]
    sys.meta_path[:] = [_Without(finder, modules) for finder in sys.meta_path]
