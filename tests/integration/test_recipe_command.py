"""`flowmac recipe`: what it copies, and what it leaves alone."""

import re

import pytest
from training_runs import ROOT, Training

from speechbrain_flowmac.cli import main
from speechbrain_flowmac.commands.recipe import files_of, recipes


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_all_recipes_are_listed(capsys):
    assert main(["recipe"]) == 0
    lines = capsys.readouterr().out.splitlines()
    scripts = (ROOT / "recipes").glob("*/*/train.py")
    names = sorted(script.parent.name for script in scripts)
    assert [line.split(":")[0] for line in lines] == names
    assert "codec: LibriTTS: the codec" in lines


@pytest.mark.parametrize("name", sorted(recipes()))
def test_a_copy_has_all_that_the_recipe_imports_and_names(name, folder, capsys):
    assert main(["recipe", name]) == 0
    install = "pip install -r extra_requirements.txt\n"
    needs_more = (recipes()[name] / "extra_requirements.txt").is_file()
    printed = capsys.readouterr().out
    assert (install in printed) == needs_more
    # what is told to be run is what the README runs first
    command = printed.splitlines()[-1].removeprefix("python ")
    readme = (folder / "README.md").read_text(encoding="utf-8")
    assert command in readme.split("```")[1]
    assert not any(path.is_symlink() for path in folder.rglob("*"))
    yamls = {path.name for path in (folder / "hparams").iterdir()}
    assert yamls and all(f"hparams/{yaml}" in readme for yaml in yamls)
    for target, source in files_of(recipes()[name]).items():
        assert (folder / target).read_bytes() == source.read_bytes()
    script = (folder / "train.py").read_text(encoding="utf-8")
    imported = re.findall(r"^(?:from|import) (\w+)", script, re.MULTILINE)
    shared = [recipes()[name], recipes()[name].parent]
    own = [
        f"{module}.py"
        for module in imported
        if any((place / f"{module}.py").is_file() for place in shared)
    ]
    assert own and all((folder / file).is_file() for file in own)


def test_files_of_the_user_are_not_replaced(folder, capsys):
    (folder / "train.py").write_text("mine")
    assert main(["recipe", "codec"]) == 2
    assert "train.py would be replaced" in capsys.readouterr().err
    assert [path.name for path in folder.iterdir()] == ["train.py"]
    assert main(["recipe", "codec", "--overwrite"]) == 0
    assert (folder / "train.py").read_text() != "mine"


def test_unknown_recipes_are_refused(capsys):
    assert main(["recipe", "ASR"]) == 2
    assert "there are ASR_tokens, TTS_tokens, codec" in capsys.readouterr().err


def test_a_copy_trains(folder, corpus):
    assert main(["recipe", "ASR_tokens"]) == 0
    yaml = folder / "hparams" / "asr_mel.yaml"
    training = Training(
        yaml, corpus, folder / "run", script=folder / "train.py", debug=True
    )
    assert len(training.check().steps) == 4
