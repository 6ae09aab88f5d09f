"""Each YAML is listed, linked from a README, and uses only what it defines."""

import re
from pathlib import Path

import pytest
import yaml
from hyperpyyaml import load_hyperpyyaml
from speechbrain.core import RunOptions

ROOT = Path(__file__).resolve().parents[2]
HPARAMS = sorted((ROOT / "hparams").glob("*.yaml"))
ALIKE = 8  # keys in which two YAMLs may differ and still be nearly the same
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
            re.search(rf"!ref [^#\n]*<{key}>", text)
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


def _values(path):
    """Text of each top-level key, without comments."""
    text = path.read_text(encoding="utf-8")
    text = re.sub(r"(^|\s)#.*", "", text, flags=re.MULTILINE)
    text = re.sub(r"\s*\n+", "\n", text)
    found = re.findall(r"^(\w+):((?:.*\n)(?:[ ].*\n)*)", text, re.MULTILINE)
    return dict(found)


def _differences(path, other):
    """Keys whose values differ."""
    one, two = _values(path), _values(other)
    return {key for key in one | two if one.get(key) != two.get(key)}


def _stated(path):
    """The YAML that a head names, and the keys in which it says to differ."""
    head = (
        path.read_text(encoding="utf-8").split("\n\n")[0].replace("\n# ", " ")
    )
    found = re.search(r"Differs from (\w+\.yaml) in: (.*?)\.(?:\s|$)", head)
    if found is None:
        return None, set()
    return path.parent / found[1], set(re.findall(r"\w+", found[2]))


@pytest.mark.parametrize("path", HPARAMS, ids=_ids(HPARAMS))
def test_head_of_the_yaml_says_what_differs(path):
    other, stated = _stated(path)
    if other is not None:
        keys = set(_values(path)) | set(_values(other))
        # the rest of the sentence is for people
        assert stated & keys == _differences(path, other)


def test_of_two_yamls_that_are_alike_one_says_so():
    related = {path: _stated(path)[0] for path in HPARAMS}

    def family(path):
        while related[path] is not None:
            path = related[path]
        return path

    for path in HPARAMS:
        for other in HPARAMS:
            if path < other and len(_differences(path, other)) <= ALIKE:
                assert family(path) == family(other), (path, other)


@pytest.mark.parametrize(
    ("name", "choices"),
    [
        ("flowmac_meanflow", ["mean_flow", "improved_mean_flow"]),
        (
            "flowmac_mdct",
            ["flow_matching", "mean_flow", "improved_mean_flow", "autoencoder"],
        ),
    ],
)
def test_objectives_are_chosen_by_name(name, choices, tmp_path):
    """As --flow='!ref <improved_mean_flow>' does."""
    text = (ROOT / "hparams" / f"{name}.yaml").read_text(encoding="utf-8")
    for choice in choices:
        overrides = f"flow: !ref <{choice}>\noutput_folder: {tmp_path}\n"
        hparams = load_hyperpyyaml(text, overrides)
        found = {type(part).__name__ for part in hparams["codec"].modules()}
        names = {name.title().replace("_", "") for name in choices}
        assert found & names == {choice.title().replace("_", "")}
