"""Utterances that the tools of the recipes measure on."""

from pathlib import Path

import pytest

from speechbrain_flowmac.evaluation.split import spaced_files, split_parser


def test_files_of_a_folder_are_spaced_over_its_speakers(tmp_path):
    for speaker in "abcd":
        for n in range(5):
            path = tmp_path / speaker / "1" / f"{speaker}_{n}.wav"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch()
    found = spaced_files(tmp_path, 4)
    assert [path.name for path in found] == [f"{s}_0.wav" for s in "abcd"]
    assert len(spaced_files(tmp_path, 7)) == 7
    assert len(spaced_files(tmp_path, 100)) == 20
    with pytest.raises(FileNotFoundError, match="no .wav in .*nowhere"):
        spaced_files(tmp_path / "nowhere", 4)


def test_tools_share_their_options():
    parser = split_parser("What it does.", split="test-clean", limit=12)
    options = parser.parse_args(["--data_folder", "corpus"])
    assert options.data_folder / options.split == Path("corpus/test-clean")
    assert options.limit == 12
    assert "What it does." in parser.format_help()
    assert split_parser("").parse_args(["--limit", "3"]).limit == 3
