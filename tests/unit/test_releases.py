"""torch and torchaudio of different releases: one error that says so."""

import os
import subprocess
import sys

import pytest
import torch

RELEASE = torch.__version__.partition("+")[0]
ASK = "import speechbrain_flowmac as package; package.FlowMACCodec"
CODE = "-m speechbrain_flowmac.cli encode a.wav".split()


@pytest.fixture
def run(tmp_path):
    """Runs Python beside a torchaudio that does not load."""

    def run(release, *argv):
        for name, content in (
            ("torchaudio/__init__.py", "raise OSError('undefined symbol')"),
            (
                f"torchaudio-{release}.dist-info/METADATA",
                f"Name: torchaudio\nVersion: {release}\n",
            ),
        ):
            path = tmp_path / name
            path.parent.mkdir()
            path.write_text(content)
        (tmp_path / "a.wav").touch()
        done = subprocess.run(
            [sys.executable, *argv],
            cwd=tmp_path,
            env=os.environ
            | {"PYTHONPATH": os.pathsep.join([str(tmp_path), *sys.path])},
            capture_output=True,
            text=True,
        )
        assert done.returncode == 1
        return done.stderr.splitlines()

    return run


@pytest.mark.parametrize("release", ["2.99.0", f"{RELEASE}9"])
@pytest.mark.parametrize("argv", [["-c", ASK], CODE], ids=["python", "command"])
def test_other_releases_are_named_with_what_to_do(run, argv, release):
    lines = run(release, *argv)
    assert len(lines) == 1 or argv != CODE
    assert (
        f"torchaudio {release} does not load beside torch {RELEASE}"
        in lines[-1]
    )
    assert lines[-1].endswith(f"pip install 'torchaudio=={RELEASE}'")


def test_another_fault_of_the_same_release_is_told_as_it_is(run):
    assert run(RELEASE, "-c", ASK)[-1] == "OSError: undefined symbol"
