"""Each YAML is listed, linked from a README, and uses only what it defines."""

import re
from pathlib import Path

import pytest
import yaml
from speechbrain.core import RunOptions

ROOT = Path(__file__).resolve().parents[2]
HPARAMS = sorted((ROOT / "hparams").glob("*.yaml"))
RECIPES = sorted((ROOT / "recipes").rglob("train.py"))


def _ids(paths):
    return [str(path.relative_to(ROOT)) for path in paths]


@pytest.mark.parametrize("path", HPARAMS, ids=_ids(HPARAMS))
def test_yaml_is_listed_in_the_readmes(path):
    name = f"hparams/{path.name}"
    assert name in (ROOT / "README.md").read_text(encoding="utf-8")
    recipe_readmes = "".join(
        (recipe.parent / "README.md").read_text(encoding="utf-8")
        for recipe in RECIPES
    )
    assert name in recipe_readmes


@pytest.mark.parametrize("path", RECIPES, ids=_ids(RECIPES))
def test_recipe_is_listed_in_the_readme(path):
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    assert str(path.relative_to(ROOT)) in readme


@pytest.mark.parametrize("path", HPARAMS, ids=_ids(HPARAMS))
def test_every_key_of_the_yaml_is_used(path):
    text = path.read_text(encoding="utf-8")
    keys = re.findall(r"^(\w+):", text, re.MULTILINE)
    code = "".join(
        source.read_text(encoding="utf-8")
        for source in [
            *(ROOT / "recipes").rglob("*.py"),
            *(ROOT / "speechbrain_flowmac").rglob("*.py"),
        ]
    )
    options = RunOptions().as_dict()
    for key in keys:
        used = (
            f"!ref <{key}>" in text
            or f"<{key}>/" in text
            or f'hparams["{key}"]' in code
            or f"hparams.{key}" in code
            or f'hparams, "{key}"' in code
            or key in options
            or key.startswith("__")  # run for its effect
            or key == "modules"
        )
        assert used, f"nothing uses {key}"


@pytest.mark.parametrize("path", HPARAMS, ids=_ids(HPARAMS))
def test_every_class_of_the_yaml_exists(path):
    from pydoc import locate

    for token in yaml.scan(path.read_text(encoding="utf-8")):
        if isinstance(token, yaml.TagToken):
            kind, _, name = token.value[1].partition(":")
            if kind in ("new", "name", "apply"):
                assert locate(name) is not None, name
