"""The built package: what it holds, and that it imports from elsewhere."""

import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import venv
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
MODELS = ROOT / "speechbrain_flowmac" / "models"
PAGES = [
    ROOT / "speechbrain_flowmac" / "evaluation" / name
    for name in ("report_page", "webmushra")
]
PARTS = ("speechbrain_flowmac", "lobes", "recipes", "hparams", "tests")
SHIPPED = {".json", ".md", ".safetensors", ".wav", ".yaml"}


def run(*command, cwd, **variables):
    """Run a command without the paths of this process; return its output."""
    environment = {
        key: value
        for key, value in os.environ.items()
        if key not in ("PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV")
    }
    result = subprocess.run(
        [str(part) for part in command],
        cwd=cwd,
        env={**environment, **variables},
        capture_output=True,
        text=True,
    )
    assert result.returncode == 0, result.stdout + result.stderr
    return result.stdout


def sources():
    """Python files of the package, by the name that they are installed as."""
    return {
        f"{target}/{path.relative_to(ROOT / folder).as_posix()}": path
        for folder, target in (
            ("speechbrain_flowmac", "speechbrain_flowmac"),
            ("lobes", "speechbrain_flowmac/lobes"),
        )
        for path in (ROOT / folder).rglob("*.py")
    }


def data():
    """Other files of the package, by the name that they are installed as."""
    models = [path for path in MODELS.rglob("*") if path.suffix in SHIPPED]
    recipes = [
        path
        for ending in ("py", "md", "txt")
        for path in (ROOT / "recipes").rglob(f"*.{ending}")
    ]
    copied = [*recipes, *(ROOT / "hparams").glob("*.yaml")]
    return {
        **{
            p.relative_to(ROOT).as_posix(): p
            for p in [*models, *(x for page in PAGES for x in page.iterdir())]
        },
        **{
            f"speechbrain_flowmac/{p.relative_to(ROOT).as_posix()}": p
            for p in copied
        },
    }


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """Paths of an sdist made from a copy of the tree, and its wheel."""
    folder = tmp_path_factory.mktemp("package")
    tree = folder / "tree"
    ignored = shutil.ignore_patterns("__pycache__", "*.egg-info")
    for name in PARTS:
        shutil.copytree(ROOT / name, tree / name, ignore=ignored)
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, tree / name)
    # The wheel is made from the sdist, so both are complete or this fails.
    run(
        *(sys.executable, "-m", "build", "--no-isolation"),
        *("--outdir", folder / "dist", tree),
        cwd=folder,
    )
    (sdist,) = (folder / "dist").glob("*.tar.gz")
    (wheel,) = (folder / "dist").glob("*.whl")
    return sdist, wheel


def test_wheel_holds_the_package_and_nothing_else(built):
    with zipfile.ZipFile(built[1]) as wheel:
        names = {name for name in wheel.namelist() if not name.endswith("/")}
        info = {name for name in names if ".dist-info/" in name}
        assert names - info == set(sources()) | set(data())
        for name, path in {**sources(), **data()}.items():
            assert wheel.read(name) == path.read_bytes(), name
        (scripts,) = (n for n in info if n.endswith("/entry_points.txt"))
        assert "flowmac = speechbrain_flowmac.cli:main" in (
            wheel.read(scripts).decode()
        )
    assert any(name.endswith("/LICENSE") for name in info)


def test_sdist_holds_the_sources(built):
    with tarfile.open(built[0]) as sdist:
        names = {name.partition("/")[2] for name in sdist.getnames()}
    for path in [*sources().values(), *data().values()]:
        assert path.relative_to(ROOT).as_posix() in names


def clean_environment(folder):
    """Python of a new environment that borrows only the dependencies.

    The other packages of this environment are put on its path as a plain
    path, so an editable install of this project in there is not active.
    """
    venv.create(folder, with_pip=False, symlinks=os.name != "nt")
    scripts = folder / ("Scripts" if os.name == "nt" else "bin")
    python = scripts / Path("python").with_suffix(
        ".exe" if os.name == "nt" else ""
    )
    purelib = run(
        *(python, "-c"),
        "import sysconfig; print(sysconfig.get_path('purelib'))",
        cwd=folder,
    ).strip()
    paths = dict.fromkeys(sysconfig.get_path(n) for n in ("purelib", "platlib"))
    (Path(purelib) / "dependencies.pth").write_text("\n".join(paths) + "\n")
    return python, Path(purelib)


@pytest.fixture(scope="module")
def installed(built, tmp_path_factory):
    """Python of an environment with the wheel, and where the wheel is."""
    folder = tmp_path_factory.mktemp("installed")
    python, purelib = clean_environment(folder / "venv")
    run(
        *(sys.executable, "-m", "pip", "install", "--no-deps", "--no-index"),
        *("--disable-pip-version-check", "--target", purelib, built[1]),
        cwd=folder,
    )
    return python, purelib


def test_wheel_brings_the_recipes(installed, tmp_path):
    command = (installed[0], "-m", "speechbrain_flowmac.cli", "recipe")
    names = run(*command, cwd=tmp_path)
    assert {"ASR_tokens", "codec", "vocoder"} <= set(
        re.findall(r"^(\w+):", names, re.MULTILINE)
    )
    run(*command, "ASR_tokens", cwd=tmp_path)
    text = (tmp_path / "train.py").read_bytes()
    assert text == (ROOT / "recipes/LibriTTS/ASR_tokens/train.py").read_bytes()
    # it runs up to the data, which is not there
    result = subprocess.run(
        [installed[0], "train.py", "hparams/asr_mel.yaml", "--device=cpu"]
        + ["--data_folder=nowhere", "--train_splits=[x]"],
        cwd=tmp_path,
        env={k: v for k, v in os.environ.items() if k != "PYTHONPATH"},
        capture_output=True,
        text=True,
    )
    assert "LibriTTS splits not found: x" in result.stdout + result.stderr


def test_wheel_imports_from_another_folder(installed, tmp_path):
    python, purelib = installed
    modules = sorted(
        name.removesuffix(".py").removesuffix("/__init__").replace("/", ".")
        for name in sources()
        if not name.endswith("__main__.py")
    )
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    output = run(
        *(python, "-c"),
        "import importlib, sys\n"
        "for name in sys.argv[1:]:\n"
        "    print(importlib.import_module(name).__file__)",
        *modules,
        cwd=elsewhere,
    )
    files = [Path(line) for line in output.splitlines()]
    assert len(files) == len(modules)
    assert all(file.is_relative_to(purelib) for file in files), files


@pytest.mark.parametrize("place", ["elsewhere", "checkout"])
def test_wheel_and_checkout_find_their_own_lobes(installed, tmp_path, place):
    python, purelib = installed
    output = run(
        *(python, "-c"),
        "import speechbrain_flowmac.lobes as m; print(m.__file__)",
        cwd=ROOT if place == "checkout" else tmp_path,
    )
    expected = {
        "checkout": ROOT / "lobes",
        "elsewhere": purelib / "speechbrain_flowmac" / "lobes",
    }
    assert Path(output.strip()).parent == expected[place]


def test_editable_install_maps_the_lobes(tmp_path):
    # Asked of the running environment, which the tests are installed into.
    output = run(
        *(sys.executable, "-c"),
        "import speechbrain_flowmac.lobes as m; print(m.__file__)",
        cwd=tmp_path,
    )
    assert Path(output.strip()).parent.name == "lobes"
