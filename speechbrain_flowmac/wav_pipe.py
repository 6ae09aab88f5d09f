"""WAV read and written forward only, for pipes: libsndfile must seek.

A program that does not know yet how long its audio will be states a size
that no file has, or 0; then the audio lasts to the end of the pipe.
"""

import io
import struct

import numpy as np
import soundfile

from speechbrain_flowmac.bitstream.source import write_all

UNKNOWN_FRAMES = 1 << 62
UNKNOWN_BYTES = 0x7FFFF000
"""Sizes from this one on, and 0, stand for one that is not known."""
UNSTATED = 0xFFFFFFFF
MAX_HEAD_BYTES = 1 << 20
MAX_CHANNELS = 1024
"""As libsndfile has it."""

_RIFF = struct.Struct("<4sI4s")
_CHUNK = struct.Struct("<4sI")
_FORMAT = struct.Struct("<HHIIHH")
_PCM, _EXTENSIBLE = 1, 0xFFFE
_SUBTYPES = {
    (_PCM, 8): "PCM_U8",
    (_PCM, 16): "PCM_16",
    (_PCM, 24): "PCM_24",
    (_PCM, 32): "PCM_32",
    (3, 32): "FLOAT",
    (3, 64): "DOUBLE",
    (6, 8): "ALAW",
    (7, 8): "ULAW",
}


class WavPipe:
    """A WAV that is read as it comes, with what `AudioReader` needs of a
    `soundfile.SoundFile`.

    Arguments
    ---------
    source : Source
        Stands where the samples begin.
    form : bytes
        Body of the chunk "fmt ".
    size : int
        Of the chunk "data".

    Raises
    ------
    ValueError
        If only libsndfile may be able to read this.
    """

    extra_info = ""

    def __init__(self, source, form, size):
        if len(form) < _FORMAT.size:
            raise ValueError(f"a format of {len(form)} bytes")
        tag, channels, rate, _, align, bits = _FORMAT.unpack_from(form)
        if tag == _EXTENSIBLE and len(form) >= 26:
            tag = int.from_bytes(form[24:26], "little")
        self.subtype = _SUBTYPES.get((tag, bits))
        fits = 1 <= channels <= MAX_CHANNELS and rate > 0
        if self.subtype is None or not fits or align * 8 != channels * bits:
            raise ValueError(f"format {tag} of {channels} x {bits} bits")
        self.channels, self.samplerate = channels, rate
        known = 0 < size < UNKNOWN_BYTES
        self.frames = size // align if known else UNKNOWN_FRAMES
        self._align = align
        self._left = self.frames
        self._source = source

    def read(self, out):
        """Fills an array [n, channels], or as much of it as there is.

        Returns
        -------
        numpy.ndarray
            The part of `out` that was filled; shorter only at the end.
        """
        wanted = min(len(out), self._left)
        data = self._source.read(wanted * self._align)
        frames = len(data) // self._align
        self._left -= frames
        if frames:
            with soundfile.SoundFile(
                io.BytesIO(data[: frames * self._align]),
                samplerate=self.samplerate,
                channels=self.channels,
                format="RAW",
                subtype=self.subtype,
                endian="LITTLE",
            ) as block:
                block.read(out=out[:frames])
        if frames < len(out):
            # whoever writes the pipe may have more to say
            while self._source.read(1 << 20):
                pass
        return out[:frames]


def open_wav(source):
    """A WAV that a pipe brings, if it can be read as it comes.

    Arguments
    ---------
    source : Source
        At the beginning.

    Returns
    -------
    tuple
        What was read of the source, as bytes, and a `WavPipe` or None.

    Example
    -------
    >>> from speechbrain_flowmac.bitstream.source import Source
    >>> open_wav(Source(io.BytesIO(b"fLaC and more")))
    (b'fLaC and mor', None)
    """
    head, form = source.read(_RIFF.size), b""
    if head[:4] != b"RIFF" or head[8:] != b"WAVE":
        return head, None
    while True:
        start = source.read(_CHUNK.size)
        head += start
        if len(start) < _CHUNK.size:
            return head, None
        name, size = _CHUNK.unpack(start)
        if name == b"data":
            try:
                return head, WavPipe(source, form, size)
            except ValueError:
                return head, None
        if len(head) + size > MAX_HEAD_BYTES:
            return head, None
        body = source.read(size + size % 2)
        head += body
        if name == b"fmt ":
            form = body


def write_wav(file, header, blocks, num_samples=None):
    """Writes decoded blocks as a WAV of 16 bits, each as soon as it is there.

    Nothing is written before the first block.

    Arguments
    ---------
    file : binary file object
        Need not seek.
    header : StreamHeader
        Rate and channels.
    blocks : iterable of numpy.ndarray
        float32, shape [n, channels].
    num_samples : int or None
        Per channel; None if that is not known yet.
    """
    channels, rate = header.num_channels, header.sample_rate
    align = 2 * channels
    size = UNSTATED if num_samples is None else num_samples * align
    form = _FORMAT.pack(_PCM, channels, rate, rate * align, align, 16)
    head = b"WAVE" + _CHUNK.pack(b"fmt ", len(form)) + form
    head += _CHUNK.pack(b"data", min(size, UNSTATED))
    riff = _CHUNK.pack(b"RIFF", min(len(head) + size, UNSTATED))
    data = riff + head
    for block in blocks:
        write_all(file, data + _pcm_16(block, rate))
        file.flush()
        data = b""


def _pcm_16(block, rate):
    """Samples in the bytes that libsndfile makes of them."""
    data = io.BytesIO()
    block = np.ascontiguousarray(block)
    soundfile.write(data, block, rate, "PCM_16", "LITTLE", "RAW")
    return data.getvalue()
