"""Audio files in and out, in blocks: any rate, any length, pipes too."""

import os
import re
import tempfile
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import soundfile
import soxr
import torch

from speechbrain_flowmac.admission import check_samples
from speechbrain_flowmac.bitstream.source import Source
from speechbrain_flowmac.lobes.lengths import num_frames
from speechbrain_flowmac.wav_pipe import (
    UNKNOWN_BYTES,
    UNKNOWN_FRAMES,
    open_wav,
)

BLOCK_SAMPLES = 1 << 18
MAX_FILL = 2
SIZES = re.compile(r"(\d+) \(should be (\d+)\)")


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

    How long a file is shows when it has been read: some formats do not say,
    and a header may claim what is not there.

    Arguments
    ---------
    file : soundfile.SoundFile or WavPipe
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
        self.num_samples = 0
        self._claimed = claimed_frames(file)
        self._read = 0

    @property
    def expected_samples(self):
        """Samples that the header claims, or None."""
        return None if self._claimed is None else self._at_rate(self._claimed)

    @property
    def shortfall(self):
        """What is missing of a file that has been read, or None."""
        if self._claimed is None or self._read >= self._claimed:
            return None
        claimed, found = (
            frames / self.file.samplerate
            for frames in (self._claimed, self._read)
        )
        return f"its header claims {claimed:.3f} s, {found:.3f} s are there"

    def blocks(self):
        """Yields float32 tensors [channels, n], `num_samples` in all."""
        for block, last in self._resampled():
            if last:
                left = self._at_rate(self._read) - self.num_samples
                block = fit(block, left)
            self.num_samples += len(block)
            if len(block):
                yield torch.from_numpy(np.ascontiguousarray(block.T))
        if not self.num_samples:
            raise AudioFileError("the file holds no samples")

    def _at_rate(self, frames):
        """Samples that so many of the file become."""
        return num_frames(frames * self.sample_rate, self.file.samplerate)

    def _resampled(self):
        """Yields blocks at the wanted rate, and whether there is no other."""
        rate = self.file.samplerate
        resampler = None
        if rate != self.sample_rate:
            resampler = soxr.ResampleStream(
                rate, self.sample_rate, self.num_channels, dtype="float32"
            )
        last = False
        while not last:
            block, last = read_block(self.file)
            check_samples(torch.from_numpy(block.T), self._read, "channel")
            self._read += len(block)
            if self.mix:
                block = block.mean(1, keepdims=True)
            if resampler is not None:
                block = resampler.resample_chunk(block, last=last)
            yield block, last


def read_block(file):
    """The next samples of a file, and whether there are no others.

    libsndfile reports an error for a block that ends too early, as in a cut
    file or in a FLAC whose header states no length, and soundfile drops what
    came before it. That is told by what it did not write.

    Arguments
    ---------
    file : soundfile.SoundFile
        Open for reading.

    Returns
    -------
    tuple
        float32 [n, channels], and a bool.
    """
    block = np.full((BLOCK_SAMPLES, file.channels), np.nan, np.float32)
    try:
        block = file.read(out=block)
    except soundfile.LibsndfileError:
        written = ~np.isnan(block).all(1)
        return block[: np.count_nonzero(written)], True
    return block, len(block) < BLOCK_SAMPLES


def claimed_frames(file):
    """Frames that the header of a file claims, or None if it states none.

    libsndfile takes the lengths of most formats from what is there, and
    notes in its log what the header says.

    Arguments
    ---------
    file : soundfile.SoundFile
        Open for reading.

    Returns
    -------
    int or None
    """
    if file.frames >= UNKNOWN_FRAMES:
        return None
    claims = [
        round(file.frames * int(claim) / int(found))
        for claim, found in SIZES.findall(file.extra_info)
        # what programs write that do not know yet
        if int(claim) < UNKNOWN_BYTES and int(found)
    ]
    return max([file.frames, *claims])


def fit(block, length):
    """The last block of a resampler, at its length.

    A resampler may end a sample early or late.

    Arguments
    ---------
    block : numpy.ndarray
        Shape [n, channels].
    length : int
        Wanted n.

    Returns
    -------
    numpy.ndarray
        Shape [length, channels].
    """
    missing = length - len(block)
    if abs(missing) > MAX_FILL:
        raise AudioFileError(
            f"resampling gave {len(block)} samples for the last {length}"
        )
    return np.pad(block[:length], ((0, max(missing, 0)), (0, 0)))


def resample(signal, rate, sample_rate):
    """A whole signal at another rate, as a file of it would be read.

    Arguments
    ---------
    signal : torch.Tensor
        float32, shape [T, channels].
    rate : int
        Its rate, in Hz.
    sample_rate : int
        Wanted, in Hz.

    Returns
    -------
    torch.Tensor
        Shape [ceil(T * sample_rate / rate), channels], on the same device.

    Example
    -------
    >>> resample(torch.zeros(101, 2), 16000, 24000).shape
    torch.Size([152, 2])
    """
    resampler = soxr.ResampleStream(
        rate, sample_rate, signal.shape[1], dtype="float32"
    )
    block = resampler.resample_chunk(signal.cpu().numpy(), last=True)
    length = num_frames(len(signal) * sample_rate, rate)
    return torch.from_numpy(fit(block, length)).to(signal.device)


@contextmanager
def open_audio(path, sample_rate, mix=True):
    """Opens an audio file for coding.

    Arguments
    ---------
    path : str or binary file object
        Anything that libsndfile reads; an object need not be seekable. WAV
        is read as it comes, what else an object brings is kept on disk.
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
            # names that are not UTF-8 go through as they are
            opened = os.fsencode(path) if os.name == "posix" else str(path)
        else:
            source = Source(path)
            head, wav = open_wav(source)
            if wav is not None:
                yield AudioReader(wav, sample_rate, mix)
                return
            # libsndfile must seek
            spool.write(head)
            while block := source.read(1 << 20):
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
