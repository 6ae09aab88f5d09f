"""Imports never run upwards, and importing has no side effects.

recipes -> speechbrain_flowmac -> speechbrain_flowmac.codec -> lobes -> torch
"""

import ast
import importlib
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
LOBES = sorted((ROOT / "lobes").glob("*.py"))
LOBE_IMPORTS = {
    "dataclasses",
    "einops",
    "itertools",
    "math",
    "nnAudio",  # optional
    "numpy",
    "speechbrain",
    "speechbrain_flowmac",
    "torch",
    "torchaudio",
    "torchdiffeq",  # optional
    "typing",
    "vector_quantize_pytorch",
}


def _imports(path):
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield node.module


@pytest.mark.parametrize("path", LOBES, ids=lambda path: path.name)
def test_lobes_import_only_what_is_below_them(path):
    for name in _imports(path):
        assert name.split(".")[0] in LOBE_IMPORTS
        if name.startswith("speechbrain_flowmac"):
            assert name.startswith("speechbrain_flowmac.lobes")


@pytest.mark.parametrize("name", ["codec", "dynamic_codec"])
def test_the_codec_imports_only_lobes(name):
    below = ("speechbrain_flowmac.lobes", "speechbrain_flowmac.codec")
    for imported in _imports(ROOT / "speechbrain_flowmac" / f"{name}.py"):
        if imported.startswith("speechbrain_flowmac"):
            assert imported.startswith(below[: 1 + (name != "codec")])


@pytest.mark.parametrize(
    "old, new, names",
    [
        (
            "bigvgan",
            "snake",
            "half_band_filter LowPass Snake AntiAliasedSnake",
        ),
        ("bigvgan", "weight_norm", "add_weight_norm fold_weight_norm"),
        ("features", "lengths", "num_frames length_mask absolute_lengths"),
        ("features", "mel_scale", "hz_to_mel mel_to_hz mel_filterbank"),
        ("features", "normalizer", "MelNormalizer RunningStatistics"),
        (
            "istft_vocoder",
            "heads",
            "Head FreePhaseHead MultiBandHead HarmonicNoiseHead",
        ),
    ],
)
def test_names_in_the_yaml_of_others_stay_where_they_were(old, new, names):
    old, new = (
        importlib.import_module(f"speechbrain_flowmac.lobes.{name}")
        for name in (old, new)
    )
    for name in names.split():
        found = getattr(old, name)
        assert found is getattr(new, name)
        assert found.__module__ == new.__name__


def test_the_package_does_not_import_recipes_or_tests():
    for path in (ROOT / "speechbrain_flowmac").rglob("*.py"):
        tops = {name.split(".")[0] for name in _imports(path)}
        assert not tops & {"recipes", "tests", "libritts_prepare"}


def test_importing_leaves_random_state_and_threads_alone():
    code = """
import torch, numpy, random, speechbrain
torch.manual_seed(3); numpy.random.seed(3); random.seed(3)
before = (
    torch.get_rng_state().sum().item(), numpy.random.get_state()[1].sum(),
    random.getstate(), torch.get_num_threads(), torch.get_default_dtype(),
)
import speechbrain_flowmac, speechbrain_flowmac.cli, speechbrain_flowmac.training.brains
after = (
    torch.get_rng_state().sum().item(), numpy.random.get_state()[1].sum(),
    random.getstate(), torch.get_num_threads(), torch.get_default_dtype(),
)
assert before == after, (before, after)
"""
    subprocess.run([sys.executable, "-c", code], check=True, timeout=600)
