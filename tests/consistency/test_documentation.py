"""Every public name is documented, and every example in a docstring runs."""

import ast
import doctest
import importlib
import pkgutil
from pathlib import Path

import pytest

import speechbrain_flowmac
import speechbrain_flowmac.lobes

ROOT = Path(__file__).resolve().parents[2]
FOLDERS = ("speechbrain_flowmac", "lobes", "recipes", "tests", "benchmarks")
SOURCES = sorted(
    path for name in FOLDERS for path in (ROOT / name).rglob("*.py")
)
PACKAGES = (speechbrain_flowmac, speechbrain_flowmac.lobes)
MODULES = sorted(
    info.name
    for package in PACKAGES
    for info in pkgutil.walk_packages(package.__path__, package.__name__ + ".")
)


def _public(body):
    kinds = (ast.FunctionDef, ast.ClassDef)
    for node in body:
        if isinstance(node, kinds) and not node.name.startswith("_"):
            yield node
            if isinstance(node, ast.ClassDef):
                yield from _public(node.body)


def _is_test(name):
    return name.startswith(("test_", "Test"))


@pytest.mark.parametrize(
    "path", SOURCES, ids=[str(path.relative_to(ROOT)) for path in SOURCES]
)
def test_public_names_are_documented(path):
    tree = ast.parse(path.read_text(encoding="utf-8"))
    assert ast.get_docstring(tree), "the module has no docstring"
    undocumented = [
        f"{node.name} (line {node.lineno})"
        for node in _public(tree.body)
        if not ast.get_docstring(node) and not _is_test(node.name)
    ]
    # tests say in their names what they show
    if "tests" not in path.parts:
        assert not undocumented


@pytest.mark.parametrize("name", MODULES)
def test_examples_run(name):
    module = importlib.import_module(name)
    result = doctest.testmod(module, optionflags=doctest.ELLIPSIS)
    assert result.failed == 0


def test_modules_were_found():
    assert "speechbrain_flowmac.lobes.features" in MODULES
    assert "speechbrain_flowmac.inference" in MODULES
