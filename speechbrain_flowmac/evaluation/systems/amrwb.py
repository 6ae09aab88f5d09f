"""AMR-WB (3GPP TS 26.171), through two shared libraries.

Few systems have a program that encodes it, these libraries are common:
VisualOn's encoder (`enc_if.h` of vo-amrwbenc) and OpenCORE's decoder
(`dec_if.h` of opencore-amr).
"""

import ctypes
from ctypes.util import find_library

import numpy as np

from speechbrain_flowmac.evaluation.systems.base import (
    Coded,
    Family,
    Recording,
    System,
    UnavailableError,
    digest,
    to_pcm16,
)

RATES = (
    "6.60",
    "8.85",
    "12.65",
    "14.25",
    "15.85",
    "18.25",
    "19.85",
    "23.05",
    "23.85",
)
"""In kbps; a rate's place is the number of its mode."""
FRAME_SAMPLES = 320
FRAMES_PER_SECOND = 50
LARGEST_FRAME_BYTES = 61


def _load(library, package, **functions):
    """Loads a shared library and declares what its functions return."""
    path = find_library(library)
    if path is None:
        raise UnavailableError(
            f"lib{library} is not installed (Debian package {package})"
        )
    loaded = ctypes.CDLL(path)
    for name, result in functions.items():
        getattr(loaded, name).restype = result
    return loaded


class AmrWb(System):
    """AMR-WB at one of its nine rates, without discontinuous transmission.

    Payload bits are the speech bits of the frames, 132 per 20 ms at 6.60
    kbps. The byte before each frame (RFC 4867, section 5.3) and the bits
    that fill up its last byte are not counted.

    Arguments
    ---------
    name : str
        As the system is asked for.
    mode : int
        0..8, from 6.60 to 23.85 kbps.
    """

    sample_rate = 16_000

    def __init__(self, name, mode):
        self._encoder = _load(
            "vo-amrwbenc",
            "libvo-amrwbenc0",
            E_IF_init=ctypes.c_void_p,
            E_IF_encode=ctypes.c_int,
            E_IF_exit=None,
        )
        self._decoder = _load(
            "opencore-amrwb",
            "libopencore-amrwb0",
            D_IF_init=ctypes.c_void_p,
            D_IF_decode=None,
            D_IF_exit=None,
        )
        self.name = name
        self.label = f"AMR-WB {RATES[mode]} kbps"
        self.mode = mode
        self.frame_bits = round(float(RATES[mode]) * 1000 / FRAMES_PER_SECOND)
        self.frame_bytes = 1 + -(-self.frame_bits // 8)
        # The libraries tell no version: how they code a chirp stands for it.
        chirp = np.sin(np.arange(1600.0) ** 2 / 2000) / 2
        test = Recording("chirp", chirp, self.sample_rate)
        coded = self.encode(test)
        behaviour = digest(coded.data, self.decode(coded, test).tobytes())
        self.fingerprint = f"{self.label} {behaviour[:16]}"

    def encode(self, recording):
        """Codes a `Recording`; RuntimeError if the encoder fails."""
        pcm = to_pcm16(recording.signal)
        pcm = np.pad(pcm, (0, -len(pcm) % FRAME_SAMPLES))
        frames = pcm.reshape(-1, FRAME_SAMPLES)
        state = ctypes.c_void_p(self._encoder.E_IF_init())
        buffer = ctypes.create_string_buffer(LARGEST_FRAME_BYTES)
        coded = []
        try:
            for frame in frames:
                speech = frame.tobytes()
                size = self._encoder.E_IF_encode(
                    state, self.mode, speech, buffer, 0
                )
                if size != self.frame_bytes:
                    raise RuntimeError(
                        f"libvo-amrwbenc made a frame of {size} bytes, "
                        f"{self.label} has {self.frame_bytes}"
                    )
                coded.append(buffer.raw[:size])
        finally:
            self._encoder.E_IF_exit(state)
        return Coded(b"".join(coded), len(coded) * self.frame_bits)

    def decode(self, coded, recording):
        """Decodes."""
        state = ctypes.c_void_p(self._decoder.D_IF_init())
        buffer = ctypes.create_string_buffer(2 * FRAME_SAMPLES)
        speech = []
        try:
            for start in range(0, len(coded.data), self.frame_bytes):
                frame = coded.data[start : start + self.frame_bytes]
                self._decoder.D_IF_decode(state, frame, buffer, 0)
                speech.append(buffer.raw)
        finally:
            self._decoder.D_IF_exit(state)
        return np.frombuffer(b"".join(speech), np.int16) / 32768


FAMILIES = {
    "amrwb": Family(
        f"amrwb:KBPS, KBPS one of {', '.join(RATES)}", AmrWb, RATES.index
    )
}
