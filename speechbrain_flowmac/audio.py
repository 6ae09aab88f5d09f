"""Audio files in and out, in blocks: any rate, any length, pipes too."""

import tempfile
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import soundfile
import soxr
import torch

from speechbrain_flowmac.admission import check_samples
from speechbrain_flowmac.lobes.lengths import num_frames

BLOCK_SAMPLES = 1 << 18


class AudioFileError(ValueError):
    """An audio file that cannot be read, or holds no samples."""


def write_audio(file, suffix, header, blocks):
    """Writes decoded blocks to an open, seekable file.

    Arguments
    ---------
    file : binary file object
        Gets the audio.
    suffix : str
        Such as ".wav".
    header : StreamHeader
        Rate and channels.
    blocks : iterable of numpy.ndarray
        float32, shape [n, channels].
    """
    kind = suffix.lstrip(".").upper() or "WAV"
    if kind not in soundfile.available_formats():
        raise AudioFileError(
            f"cannot write {suffix!r} files; known formats: "
            f"{', '.join(sorted(soundfile.available_formats()))}"
        )
    kept = KeptErrors(file)
    try:
        with soundfile.SoundFile(
            kept, "w", header.sample_rate, header.num_channels, format=kind
        ) as audio:
            for block in blocks:
                audio.write(block)
    except (AssertionError, soundfile.LibsndfileError) as error:
        # what libsndfile makes of a write that failed
        if kept.error is None:
            raise AudioFileError(
                f"cannot write {header.num_channels} channels at "
                f"{header.sample_rate} Hz as {kind}: {error}"
            ) from error
    if kept.error is not None:
        raise kept.error


class KeptErrors:
    """A file for libsndfile, which calls it back and loses its exceptions.

    Arguments
    ---------
    file : binary file object
        Open for writing, can seek.
    """

    def __init__(self, file):
        self.file = file
        self.error = None

    def _call(self, method, *args):
        try:
            return method(*args)
        except BaseException as error:
            self.error = self.error or error
            return 0

    def write(self, data):
        """As the file's."""
        return self._call(self.file.write, data)

    def seek(self, *args):
        """As the file's."""
        return self._call(self.file.seek, *args)

    def tell(self):
        """As the file's."""
        return self._call(self.file.tell)


class AudioReader:
    """An open audio file, read in blocks at the codec's rate.

    Arguments
    ---------
    file : soundfile.SoundFile
        Open for reading.
    sample_rate : int
        Wanted, in Hz.
    mix : bool
        Mix channels down.
    """

    def __init__(self, file, sample_rate, mix=True):
        self.file = file
        self.sample_rate = sample_rate
        self.mix = mix
        self.num_channels = 1 if mix else file.channels
        self.num_samples = num_frames(
            file.frames * sample_rate, file.samplerate
        )

    @property
    def duration(self):
        """In seconds."""
        return self.num_samples / self.sample_rate

    def blocks(self):
        """Yields float32 tensors [channels, n], `num_samples` in all."""
        left = self.num_samples
        for block in self._resampled():
            block = block[:left]
            left -= len(block)
            if len(block):
                yield torch.from_numpy(np.ascontiguousarray(block.T))
        if left:
            # a resampler may end a sample early
            yield torch.zeros(self.num_channels, left)

    def _resampled(self):
        rate = self.file.samplerate
        resampler = None
        if rate != self.sample_rate:
            resampler = soxr.ResampleStream(
                rate, self.sample_rate, self.num_channels, dtype="float32"
            )
        position = 0
        while True:
            block = self.file.read(
                BLOCK_SAMPLES, dtype="float32", always_2d=True
            )
            check_samples(torch.from_numpy(block.T), position, "channel")
            position += len(block)
            if self.mix:
                block = block.mean(1, keepdims=True)
            last = len(block) < BLOCK_SAMPLES
            if resampler is not None:
                block = resampler.resample_chunk(block, last=last)
            yield block
            if last:
                return


@contextmanager
def open_audio(path, sample_rate, mix=True):
    """Opens an audio file for coding.

    Arguments
    ---------
    path : str or binary file object
        Anything that libsndfile reads; an object need not be seekable.
    sample_rate : int
        Wanted, in Hz.
    mix : bool
        Mix channels down.

    Yields
    ------
    AudioReader
    """
    name = path if isinstance(path, (str, Path)) else "the input"
    with tempfile.TemporaryFile() as spool:
        if isinstance(path, (str, Path)):
            if not Path(path).is_file():
                raise FileNotFoundError(f"no such audio file: {path}")
            opened = str(path)
        else:
            # libsndfile must seek: keep what a pipe brings on disk
            while block := path.read(1 << 20):
                spool.write(block)
            spool.seek(0)
            opened = spool
        try:
            file = soundfile.SoundFile(opened)
        except soundfile.LibsndfileError as error:
            raise AudioFileError(f"cannot read {name}: {error}") from error
        with file:
            if file.frames < 1:
                raise AudioFileError(f"{name} holds no samples")
            yield AudioReader(file, sample_rate, mix)
