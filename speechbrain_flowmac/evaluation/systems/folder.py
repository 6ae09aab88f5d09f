"""Files that someone else decoded, at the same relative paths."""

import io
from collections import defaultdict
from functools import cached_property
from pathlib import Path

import numpy as np
import soundfile
import soxr

from speechbrain_flowmac.console import audio_endings
from speechbrain_flowmac.evaluation.systems.base import (
    SAMPLE_RATE,
    Coded,
    Family,
    System,
    UnavailableError,
    digest,
    file_digest,
    positive,
)


class Folder(System):
    """Decoded files in a folder.

    The one for "a/b.wav" is "a/b" with any ending that libsndfile reads; if
    there are more, the one with the same ending. Channels are mixed down and
    the files' own rate is brought to `sample_rate`.

    Arguments
    ---------
    name : str
        As it is asked for.
    path : Path
        The folder; UnavailableError if there is no audio in it.
    label : str or None
        For people; None for the folder's name.
    kbps : float or None
        Nominal bit rate; None where there is none.
    """

    kind = "folder"
    sample_rate = SAMPLE_RATE

    def __init__(self, name, path, label=None, kbps=None):
        self.name = name
        self.path = path
        self.label = label or path.resolve().name
        self.kbps = kbps
        self._files = defaultdict(list)
        endings = audio_endings()
        for file in sorted(path.rglob("*")):
            if file.suffix.lower() in endings and file.is_file():
                self._files[_without_ending(file.relative_to(path))].append(
                    file
                )
        if not self._files:
            missing = "holds no audio files" if path.is_dir() else "is missing"
            raise UnavailableError(f"{name}: the folder {path} {missing}")

    @cached_property
    def fingerprint(self):
        """Of the contents of all files and the options."""
        return digest(
            self.kbps,
            soxr.__version__,
            soundfile.__libsndfile_version__,
            {
                str(file.relative_to(self.path)): file_digest(file)
                for files in self._files.values()
                for file in files
            },
        )

    def find(self, name):
        """The file of a recording, by its name.

        FileNotFoundError if there is none, ValueError if there is more than one
        and none has the same ending."""
        files = self._files.get(_without_ending(Path(name)), [])
        same = [file for file in files if file == self.path / name]
        found = same or files
        if not found:
            raise FileNotFoundError(f"{self.path} has no file for {name}")
        if len(found) > 1:
            names = ", ".join(file.name for file in found)
            raise ValueError(
                f"{self.path} has more than one for {name}: {names}"
            )
        return found[0]

    def encode(self, recording):
        """Reads the bytes of the file, which are not what was sent: payload
        bits are those of the nominal rate."""
        bits = None
        if self.kbps is not None:
            bits = round(1000 * self.kbps * recording.seconds)
        return Coded(self.find(recording.name).read_bytes(), bits)

    def decode(self, coded, recording):
        """The file's samples, float64, at `sample_rate`."""
        try:
            signal, rate = soundfile.read(
                io.BytesIO(coded.data), always_2d=True
            )
        except soundfile.LibsndfileError as error:
            raise ValueError(
                f"cannot read {self.find(recording.name)}: {error}"
            ) from error
        if not (len(signal) and np.isfinite(signal).all()):
            problem = "samples that are no numbers" if len(signal) else "none"
            raise ValueError(
                f"{self.find(recording.name)} should have samples, has {problem}"
            )
        return soxr.resample(signal.mean(1), rate, self.sample_rate)


def _without_ending(path):
    return path.with_suffix("").as_posix()


FAMILIES = {
    "folder": Family(
        "folder:PATH[:label=NAME][:kbps=RATE], with no ':' or '=' in PATH",
        Folder,
        Path,
        {"label": str, "kbps": positive},
    )
}
