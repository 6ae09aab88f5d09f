"""What the README shows runs as it stands there, and leads where it says."""

import re
import shlex
from pathlib import Path

import pytest
import soundfile
from corpus import speech_like

from speechbrain_flowmac.cli import main
from speechbrain_flowmac.models.loading import MODELS_FOLDER, built_in_models

ROOT = Path(__file__).resolve().parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
CARDS = sorted(MODELS_FOLDER.glob("*/README.md"))
PAGES = [
    *sorted(ROOT.glob("*.md")),
    *sorted((ROOT / "docs").glob("*.md")),
    *sorted((ROOT / "recipes").rglob("*.md")),
    *sorted((ROOT / "benchmarks").rglob("*.md")),
    *CARDS,
]


def _blocks(text, language):
    return re.findall(rf"```{language}\n(.*?)```", text, re.DOTALL)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A working folder that holds speech.wav."""
    soundfile.write(tmp_path / "speech.wav", speech_like(2.0, 0), 24000)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_python_of_the_readme_runs(folder):
    (block,) = _blocks(README, "python")
    values = {}
    exec(block, values)
    assert values["tokens"].shape == (2, 47, 8)
    assert values["decoded"].shape == (2, 47 * 512)


def test_files_of_the_readme_are_made(folder):
    (block,) = [b for b in _blocks(README, "bash") if "flowmac enc" in b]
    for line in block.splitlines():
        arguments = shlex.split(line, comments=True)[1:]
        assert main(arguments) == 0, line
    info = soundfile.info(str(folder / "out.wav"))
    assert (info.frames, info.samplerate) == (48000, 24000)
    # header, two chunks and trailer around 94 frames of 8 and of 4 bytes
    framing = 32 + 2 * 15 + 11
    assert (folder / "speech.fmac").stat().st_size == framing + 94 * 8
    assert (folder / "half.fmac").stat().st_size == framing + 94 * 4


def test_demo_codes_at_three_kilobits(folder, capsys):
    assert main(["demo"]) == 0
    assert "3.001 kbps payload" in capsys.readouterr().out
    names = {path.name for path in (folder / "flowmac_demo").iterdir()}
    assert names == {"original.wav", "coded.fmac", "decoded.wav"}


def test_the_two_commands_are_there():
    first, second = _blocks(README, "bash")[:2]
    assert first.strip().endswith("flowmac demo")
    assert second.strip().endswith("pytest")
    assert "<!-- test command -->" in README


@pytest.mark.parametrize("card", CARDS, ids=lambda path: path.parent.name)
def test_model_cards_say_what_users_must_know(card):
    text = card.read_text(encoding="utf-8")
    for part in ("license:", "## Data", "## Training", "## Results"):
        assert part in text
    size = sum(path.stat().st_size for path in card.parent.iterdir())
    assert size < 40_000_000


def test_a_model_ships():
    assert built_in_models() == ["flowmac-24khz-3kbps"]


@pytest.mark.parametrize(
    "page", PAGES, ids=[str(page.relative_to(ROOT)) for page in PAGES]
)
def test_links_lead_somewhere(page):
    text = page.read_text(encoding="utf-8")
    targets = re.findall(r"\]\(([^)#\s]+)", text)
    local = [target for target in targets if "://" not in target]
    broken = [t for t in local if not (page.parent / t).exists()]
    assert not broken


def _table(text, first):
    """Cells by column and row of the first table whose corner is `first`."""
    block = re.search(rf"^\| {first} .*\n(?:\|.*\n)+", text, re.MULTILINE)[0]
    rows = [
        [cell.strip() for cell in line.strip("|").split("|")]
        for line in block.splitlines()
    ]
    return {row[0]: dict(zip(rows[0], row, strict=True)) for row in rows[2:]}


def test_figures_of_the_readme_are_those_of_the_results():
    short = _table(README, "system")
    results = (ROOT / "docs" / "results.md").read_text(encoding="utf-8")
    whole = _table(results, "system")
    assert len(short) == 5
    for system, cells in short.items():
        for column, cell in cells.items():
            # the results have intervals too
            assert cell == whole[system][column].split(" ± ")[0]
