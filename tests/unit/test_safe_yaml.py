"""YAML of strangers: what it may describe, and what it must not do."""

import ast
import random
import re
import time
from pathlib import Path

import pytest
import torch
from hyperpyyaml import load_hyperpyyaml
from yaml_attacks import ATTACKS, BOMBS, HEADS

from speechbrain_flowmac.lobes.convnext import ConvNeXt
from speechbrain_flowmac.lobes.solvers import Euler, Heun
from speechbrain_flowmac.models.description import ModelDescription
from speechbrain_flowmac.models.loading import HPARAMS_FILE, MODELS_FOLDER
from speechbrain_flowmac.models.safe_yaml import (
    MAX_BYTES,
    MAX_DEPTH,
    InvalidModelError,
    ModelError,
    UnsafeModelError,
)

ROOT = Path(__file__).resolve().parents[2]
SHIPPED = sorted(MODELS_FOLDER.glob(f"*/{HPARAMS_FILE}"))[0].read_text()
LOBES = "speechbrain_flowmac.lobes"


def build(text):
    return ModelDescription(text).build()


# what it may describe


SCALARS = """
0 7 -3 +5 010 1.5 -.5 1. 1e-4 1e5 -2.5E+3 1.e5 1e . +
true False TRUE yes no on off y null ~ Null
12:30 1.2.3 e5 'null' '1' "a\\u00e9\\n" word
"""


@pytest.mark.parametrize("text", SCALARS.split())
def test_scalars_are_those_of_hyperpyyaml(text):
    text = f"a: {text}\nb: [{text}]"
    expected, found = load_hyperpyyaml(text), build(text)
    assert found == expected
    assert type(found["a"]) is type(expected["a"])


def test_dates_are_text():
    assert build("a: 2026-01-01")["a"] == "2026-01-01"


def test_empty_values_are_null():
    assert build("a:\nb: {c: , d: ''}\ne: []\nf: {}\n") == {
        "a": None,
        "b": {"c": None, "d": ""},
        "e": [],
        "f": {},
    }


def test_text_in_utf8_with_or_without_a_mark():
    for start in (b"", b"\xef\xbb\xbf"):
        assert build(start + "a: é日\n".encode()) == {"a": "é日"}


def test_references_are_the_same_object_and_copies_another():
    found = build(
        f"""
        a: &anchor !new:{LOBES}.solvers.Euler
        b: !ref <a>
        c: *anchor
        d: !copy <a>
        e: [!copy <a>, !ref <d>, {{f: !ref <c>}}]
        g: [1, [2, 3]]
        h: !ref <g>
        i: !copy <g>
        """
    )
    a, d = found["a"], found["d"]
    assert isinstance(a, Euler) and isinstance(d, Euler)
    assert found["b"] is a and found["c"] is a and d is not a
    assert found["e"][0] not in (a, d)
    assert found["e"][1:] == [d, {"f": a}]
    assert found["h"] is found["g"]
    assert found["i"] == found["g"] and found["i"] is not found["g"]


def test_copies_share_what_they_refer_to():
    found = build(
        f"""
        settings: !new:{LOBES}.features.MelSettings
        a: !new:{LOBES}.features.LogMel [!ref <settings>]
        b: !copy <a>
        """
    )
    assert found["b"] is not found["a"]
    assert found["b"].settings is found["a"].settings is found["settings"]


def test_references_go_into_maps_and_arguments():
    found = build(
        f"""
        sizes: {{dim: 4, deep: {{num_layers: 2}}}}
        trunk: !new:{LOBES}.convnext.ConvNeXt
            dim: !ref <sizes[dim]>
            num_layers: !ref <sizes.deep.num_layers>
        dim: !ref <trunk[dim]>
        """
    )
    assert isinstance(found["trunk"], ConvNeXt) and found["dim"] == 4
    assert len(found["trunk"].blocks) == 2


def test_positional_arguments():
    (field,) = build(f"a: [!new:{LOBES}.convnext.ConvNeXt [4, 1]]")["a"]
    assert len(field.blocks) == 1


def test_the_shipped_yaml_builds_as_with_hyperpyyaml():
    expected, found = load_hyperpyyaml(SHIPPED), build(SHIPPED)
    assert found.keys() == expected.keys()
    for name in expected:
        shapes = [
            {k: v.shape for k, v in parts[name].state_dict().items()}
            for parts in (expected, found)
        ]
        assert shapes[0] == shapes[1] and len(shapes[0]) > 50
        assert str(found[name]) == str(expected[name])


@pytest.mark.parametrize("path", sorted((ROOT / "lobes").glob("*.py")))
def test_public_classes_of_the_lobes_are_allowed(path):
    for node in ast.parse(path.read_text()).body:
        if isinstance(node, ast.ClassDef):
            text = f"a: !new:{LOBES}.{path.stem}.{node.name} []"
            if node.name.startswith("_"):
                with pytest.raises(UnsafeModelError):
                    ModelDescription(text)
            else:
                ModelDescription(text)


# what it must not do


@pytest.mark.parametrize("name", ATTACKS)
@pytest.mark.parametrize("first", [True, False])
def test_attacks_leave_no_trace_and_name_the_line(tmp_path, name, first):
    marker = tmp_path / "ran"
    attack = ATTACKS[name].replace("MARKER", str(marker))
    text = attack + SHIPPED if first else SHIPPED + attack
    with pytest.raises(ModelError) as caught:
        build(text)
    line = int(re.match(r"YAML, line (\d+): ", str(caught.value))[1])
    start = 1 if first else SHIPPED.count("\n") + 1
    assert start <= line < start + attack.count("\n") + 1
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", HEADS)
def test_tags_by_other_names_are_refused(tmp_path, name):
    marker = tmp_path / "ran"
    with pytest.raises(ModelError, match=r"YAML, line \d: "):
        build(HEADS[name].replace("MARKER", str(marker)))
    assert not list(tmp_path.iterdir())


@pytest.fixture(scope="module")
def cost_of_a_model():
    """Seconds of the processor that the shipped description takes."""
    build(SHIPPED)  # what runs first is slower
    start = time.process_time()
    build(SHIPPED)
    return time.process_time() - start


@pytest.mark.parametrize("name", BOMBS)
def test_bombs_cost_no_more_than_some_models(name, cost_of_a_model):
    start = time.process_time()
    with pytest.raises(ModelError) as caught:
        build(SHIPPED + BOMBS[name])
    assert time.process_time() - start < 10 * cost_of_a_model
    assert len(str(caught.value)) < 300


@pytest.mark.parametrize("seed", range(4))
def test_spoiled_yaml_gives_an_error_of_ours_or_a_model(seed):
    chance = random.Random(seed)
    pieces = "!new: !ref !copy < > [ ] { } & * : - ? | ' \" ( ) % # , \t \x00"
    pieces = [*pieces.split(" "), " ", "\n", "---", "<codec>", "&a", "*a", "é"]
    refused = 0
    for _ in range(40):
        text = list(SHIPPED)
        for _ in range(chance.randrange(1, 4)):
            place = chance.randrange(len(text))
            text[place : place + chance.randrange(3)] = chance.choice(pieces)
        try:
            ModelDescription("".join(text))
        except ModelError:
            refused += 1
    assert refused > 5


@pytest.mark.parametrize(
    "text, message",
    [
        ("", "must be a YAML map"),
        ("# nothing\n", "must be a YAML map"),
        ("[1, 2]", "must be a YAML map"),
        ("codec", "must be a YAML map"),
        ("a: 1\nb: 2\na: 3\n", "line 3: 'a' is there twice"),
        ("a: {b: 1, b: 1}\n", "line 1: 'b' is there twice"),
        ("a: é\n".encode("latin-1"), "not valid YAML: 'utf-8' codec"),
        ("a: é\n".encode("utf-16"), "not valid YAML: 'utf-8' codec"),
        ("a: [1\n", "line 2: not valid YAML"),
        ("a: \x07\n", "not valid YAML"),
        ("a: *b\n", "line 1: not valid YAML: found undefined alias"),
        ("a: .nan\n", "line 1: expected finite numbers"),
        ("a: !!int x\n", "line 1: invalid literal"),
        ("a: !ref <b>\n", "line 1: !ref <b> leads nowhere"),
        (f"\na: !new:{LOBES}.convnext.ConvNeXt [0]\n", "line 2: ConvNeXt: "),
        (f"a: !new:{LOBES}.convnext.ConvNeXt {{size: 1}}", "line 1: ConvNeXt"),
    ],
)
def test_what_is_no_model_is_said_so(text, message):
    with pytest.raises(InvalidModelError, match=re.escape(message)):
        build(text)


def test_limits_leave_room():
    deep = "a: " + "[" * (MAX_DEPTH - 2) + "]" * (MAX_DEPTH - 2)
    assert build(deep)["a"]
    many = "\n".join(f"k{i}: !ref <a>" for i in range(2000))
    assert len(build(f"a: 1\n{many}\n")) == 2001
    assert len(build("a: " + "x" * (MAX_BYTES - 3))["a"]) == MAX_BYTES - 3


def test_only_the_users_own_yaml_goes_through_hyperpyyaml():
    users = {"models/description.py", "training/experiment.py"}
    package = ROOT / "speechbrain_flowmac"
    for path in package.rglob("*.py"):
        if "hyperpyyaml" in path.read_text():
            for node in ast.walk(ast.parse(path.read_text())):
                if isinstance(node, ast.ImportFrom):
                    assert node.module != "hyperpyyaml" or (
                        path.relative_to(package).as_posix() in users
                    )


# what its user may change


TRUNK = f"""
dim: 4
trunk: !new:{LOBES}.convnext.ConvNeXt
    dim: !ref <dim>
    num_layers: 1
solver: !new:{LOBES}.solvers.Euler
sampling: !new:speechbrain_flowmac.codec.Sampling
    n_steps: 1
    solver: !ref <solver>
"""


def changed(overrides, **options):
    description = ModelDescription(TRUNK)
    description.override(overrides, **options)
    return description.build()


@pytest.mark.parametrize("form", ["dict", "text"])
def test_values_are_overridden_where_references_see_them(form):
    dims = {"dim": 8} if form == "dict" else "dim: 8\n"
    assert changed(dims)["trunk"].dim == 8
    steps = (
        {"sampling": {"n_steps": 4}}
        if form == "dict"
        else "sampling: {n_steps: 4}"
    )
    found = changed(steps)
    assert found["sampling"].n_steps == 4
    assert found["sampling"].solver is found["solver"]


def test_overrides_may_add_arguments_to_an_object_without_any():
    schedule = f"schedule: !new:{LOBES}.solvers.Sway"
    description = ModelDescription(schedule)
    description.override({"schedule": {"coefficient": -0.5}})
    assert description.build()["schedule"].coefficient == -0.5


def test_overrides_follow_references():
    found = changed({"sampling": {"solver": Heun()}})
    assert isinstance(found["sampling"].solver, Heun)
    assert isinstance(found["solver"], Euler)
    description = ModelDescription("a: {b: 1, c: 2}\nd: !ref <a>\n")
    description.override({"d": {"b": 3}})
    assert description.build()["a"] == {"b": 3, "c": 2}


def test_the_user_may_build_anything():
    layer = torch.nn.Linear(2, 2)
    assert changed({"trunk": layer})["trunk"] is layer
    found = changed("trunk: !new:torch.nn.Linear [2, 3]\n")
    assert found["trunk"].out_features == 3
    assert changed("dim: (1, 2)\ntrunk: null")["dim"] == (1, 2)


@pytest.mark.parametrize("overrides", [None, {}, ""])
def test_no_overrides_change_nothing(overrides):
    assert changed(overrides)["trunk"].dim == 4


def test_overrides_must_match_unless_told_otherwise():
    with pytest.raises(KeyError, match="dmi"):
        changed({"dmi": 8})
    assert changed({"dmi": 8}, must_match=False)["dmi"] == 8


def test_parts_are_lifted_to_the_top():
    description = ModelDescription(SHIPPED)
    description.lift("codec", "sampling")
    description.override({"sampling": {"n_steps": 3}})
    found = description.build()
    assert found["codec"].sampling is found["sampling"]
    assert found["sampling"].n_steps == 3
    for owner, name in (("codec", "no part"), ("nobody", "sampling")):
        description = ModelDescription(SHIPPED)
        description.lift(owner, name)
        assert set(description.build()) == {"codec", "vocoder"}
