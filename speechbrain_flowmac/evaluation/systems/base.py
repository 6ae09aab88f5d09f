"""What an evaluation asks of a system: to encode, to decode, to count bits."""

import hashlib
import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import numpy as np

SAMPLE_RATE = 24000
"""In Hz, of references and scores, and of systems without a rate of theirs."""


class UnavailableError(RuntimeError):
    """A system that cannot run here; the message says what is missing."""


class Recording(NamedTuple):
    """What a system is given to code.

    `name` is relative to the folder of the evaluation, with "/"; `signal` is
    float64 [T] within -1..1 at the rate of the system."""

    name: str
    signal: np.ndarray
    sample_rate: int

    @property
    def seconds(self):
        """Duration."""
        return len(self.signal) / self.sample_rate


class Coded(NamedTuple):
    """What an encoder made: all that the decoder needs, and the bits of it that
    are neither headers nor container; None where there is no bit rate."""

    data: bytes
    payload_bits: int | None


class System(ABC):
    """A codec, an anchor, or files that someone else decoded.

    A system is made by the worker that uses it, and used by that one only.

    Attributes
    ----------
    name, label : str
        As it is asked for, "flowmac:8", and for people, "FlowMAC 3.0 kbps".
    kind : str
        "codec", "anchor" or "folder".
    sample_rate : int
        Of what it codes and decodes, in Hz.
    fingerprint : str
        Changes whenever its output may: versions, weights, options.
    options : dict
        What plots compare systems by: {"codebooks": 8, "steps": 1}.
    """

    name: str
    label: str
    kind: str = "codec"
    sample_rate: int
    fingerprint: str
    options: dict = {}

    @abstractmethod
    def encode(self, recording):
        """Codes a `Recording`; returns `Coded`."""

    @abstractmethod
    def decode(self, coded, recording):
        """Decodes to float64 [about T]; delays are found afterwards.

        Of the recording that was coded, only name and length may be used."""

    def tokens(self, coded):
        """Codebook indices, int [N, K], and the codebook size; None where there
        are none."""
        return None


@dataclass
class Family:
    """Systems that are named alike.

    Arguments
    ---------
    usage : str
        How a name is written, for messages.
    make : Callable
        `make(name, detail, **options) -> System`.
    detail : Callable
        Makes a value of the one part without "=", or raises ValueError.
    options : dict
        What makes a value of each part with "=", or raises ValueError.
    required : bool
        Whether the detail must be given; it is None otherwise.
    """

    usage: str
    make: Callable
    detail: Callable = str
    options: dict = field(default_factory=dict)
    required: bool = True

    def read(self, details, options):
        """Values of what follows the family in a name: the detail's, and
        those of options; ValueError says what is wrong."""
        if len(details) > 1:
            raise ValueError("too many parts")
        if self.required and not details:
            raise ValueError("it says too little")
        for option in options:
            if option not in self.options:
                raise ValueError(f"no option {option!r}")
        values = {
            option: _convert(self.options[option], text)
            for option, text in options.items()
        }
        detail = _convert(self.detail, details[0]) if details else None
        return detail, values


def _convert(function, text):
    try:
        return function(text)
    except ValueError:
        raise ValueError(f"{text!r} cannot be read") from None


def positive(text):
    """A positive, finite number of a text, or ValueError.

    Example
    -------
    >>> positive("3.5")
    3.5
    """
    value = float(text)
    if not (0 < value < math.inf):
        raise ValueError(f"expected a positive number, found {text!r}")
    return value


def one_of(*known):
    """A function that returns a known text, and raises ValueError for others.

    Example
    -------
    >>> one_of("0", "1")("1")
    '1'
    """

    def check(text):
        if text not in known:
            raise ValueError(text)
        return text

    return check


def to_pcm16(signal):
    """Rounds a signal, float [T], to int16; what is beyond -1..1 is clipped,
    never wrapped.

    Example
    -------
    >>> to_pcm16(np.array([-1.5, -1.0, 0.5, 1.0]))
    array([-32768, -32768,  16384,  32767], dtype=int16)
    """
    return np.clip(np.rint(signal * 32768), -32768, 32767).astype(np.int16)


def file_digest(path):
    """SHA-256 of what a file holds, in hex."""
    return hashlib.sha256(Path(path).read_bytes()).hexdigest()


def digest(*parts):
    """SHA-256, in hex, of whatever `repr` tells apart.

    Example
    -------
    >>> digest("a", "b") == digest("ab")
    False
    """
    return hashlib.sha256(repr(parts).encode()).hexdigest()


def first_line(error):
    """The first line of an exception's message.

    Example
    -------
    >>> first_line(OSError("no such file\\nand more"))
    'no such file'
    """
    return (str(error).strip() or type(error).__name__).splitlines()[0]
