"""extra_requirements.txt of each recipe, and the extras of pyproject.toml.

That they are enough is shown by all trainings of the tests, which run without
what the recipe's file does not name (`training_runs`), and by the last test.
"""

import subprocess
import sys
from pathlib import Path

import pytest
from requirements import FILE, forbidden_modules, project, requirements_of

ROOT = Path(__file__).resolve().parents[2]
RECIPES = sorted(path.parent for path in ROOT.glob("recipes/*/*/train.py"))
EXTRA = {"LibriTTS": "train", "MNIST": "study"}
EXTRAS = project()["optional-dependencies"]


@pytest.mark.parametrize("folder", RECIPES, ids=lambda path: path.name)
def test_the_readme_installs_the_file(folder):
    readme = (folder / "README.md").read_text(encoding="utf-8")
    path = (folder / FILE).relative_to(ROOT).as_posix()
    assert (folder / FILE).is_file() == (f"pip install -r {path}" in readme)
    assert ".[" not in readme.split("```")[1]


@pytest.mark.parametrize("data_set", EXTRA)
def test_the_recipes_of_a_data_set_name_together_what_the_extra_does(data_set):
    lines = [
        line
        for folder in RECIPES
        if folder.parent.name == data_set
        for line in requirements_of(folder)
    ]
    assert set(lines) == set(EXTRAS[EXTRA[data_set]])


@pytest.mark.parametrize("folder", RECIPES, ids=lambda path: path.name)
def test_the_file_is_sorted_and_repeats_no_dependency(folder):
    lines = requirements_of(folder)
    assert lines == sorted(set(lines))
    assert not set(lines) & set(project()["dependencies"])


def test_what_is_not_named_is_missing_in_trainings():
    codec, vocoder = ROOT / "recipes/LibriTTS/codec", ROOT / "recipes/LibriTTS"
    assert {"pesq", "swift_f0", "sklearn"} <= forbidden_modules(codec)
    assert "pesq" not in forbidden_modules(vocoder / "vocoder")
    assert {"pesq", "webdataset"} <= forbidden_modules(vocoder)  # has no file
    assert not {"torch", "numpy", "typing"} & forbidden_modules(vocoder)


def test_digits_train_with_what_their_file_names(tmp_path):
    folder = ROOT / "recipes" / "MNIST" / "flow"
    code = """
import runpy, sys
from pathlib import Path
from requirements import forbid, forbidden_modules
script = sys.argv[1]
forbid(forbidden_modules(Path(script).parent))
sys.path.insert(0, str(Path(script).parent))
import study  # which imports all that it needs
sys.argv = sys.argv[1:]
runpy.run_path(script, run_name="__main__")
"""
    options = {
        "study_folder": tmp_path,
        "total_steps": 2,
        "warmup_steps": 1,
        "decay_steps": 1,
        "samples_each": 1,
        "sizes": "{mixer: {dim: 8, num_layers: 1}}",
        "network": "mixer",
    }
    done = subprocess.run(
        [sys.executable, "-c", code, str(folder / "train.py")]
        + [str(ROOT / "hparams" / "mnist_flow.yaml"), "--device=cpu"]
        + [f"--{key}={value}" for key, value in options.items()],
        cwd=ROOT / "tests" / "support",
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert list(tmp_path.rglob("scores.json"))
