"""Files appear complete, or not at all."""

import os

import pytest

from speechbrain_flowmac.files import atomic_write


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_atomic_write_cleans_up_after_any_error(tmp_path, error):
    with pytest.raises(error):
        with atomic_write(tmp_path / "a") as file:
            file.write(b"half")
            raise error
    assert os.listdir(tmp_path) == []


def test_atomic_write_shows_the_file_only_when_done(tmp_path):
    path = tmp_path / ("n" * 250)
    with atomic_write(path, "w") as file:
        file.write("ü")
        assert not path.exists()
    assert path.read_text(encoding="utf-8") == "ü"


def test_atomic_write_follows_links_and_the_umask(tmp_path):
    (tmp_path / "plain").write_bytes(b"")
    (tmp_path / "real").write_bytes(b"old")
    (tmp_path / "link").symlink_to("real")
    with atomic_write(tmp_path / "link") as file:
        file.write(b"new")
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "real").read_bytes() == b"new"
    modes = {(tmp_path / n).stat().st_mode for n in ("plain", "real")}
    assert len(modes) == 1


def test_atomic_write_refuses_bad_targets_before_the_work(tmp_path):
    cases = [
        ((tmp_path,), OSError),
        ((os.devnull,), OSError),
        ((tmp_path / "no" / "a",), FileNotFoundError),
        ((tmp_path / "a", "ab"), ValueError),
        ((tmp_path / "a", "r"), ValueError),
    ]
    for arguments, error in cases:
        with pytest.raises(error):
            with atomic_write(*arguments):
                pytest.fail("the body must not run")
    assert os.listdir(tmp_path) == []
