"""What an evaluation asks of a system: to encode, to decode, to count bits."""

import hashlib
import math
from abc import ABC, abstractmethod
from typing import NamedTuple

import numpy as np


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
    name : str
        As it is asked for: "flowmac:8", "opus:6".
    label : str
        For people: "FlowMAC 3.0 kbps".
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
        """Decodes.

        Arguments
        ---------
        coded : Coded
            From `encode`.
        recording : Recording
            What was coded. Only its name and length may be used.

        Returns
        -------
        numpy.ndarray
            float64, shape [about T]; delays are found afterwards.
        """

    def tokens(self, coded):
        """Codebook indices, int [N, K], and the codebook size; None where there
        are none."""
        return None


def read_name(
    name, details, options, usage, detail=str, known=None, required=True
):
    """Checks and converts what follows the family in the name of a system.

    Arguments
    ---------
    name : str
        All of it, for messages.
    details : list of str
        Its parts without "=".
    options : dict
        Its parts with "=".
    usage : str
        How a name is written, for messages.
    detail : Callable
        Makes a value of the one detail, or raises ValueError.
    known : dict or None
        What makes a value of each known option, or raises ValueError.
    required : bool
        Whether the detail must be given.

    Returns
    -------
    tuple
        The detail's value, None if it is not given, and those of options;
        ValueError for what is missing, unknown, too much, or not converted.

    Example
    -------
    >>> usage = "flowmac[:CODEBOOKS][:steps=N]"
    >>> read_name("flowmac:8", ["8"], {}, usage, detail=int)
    (8, {})
    """
    known = known or {}

    def convert(function, text):
        try:
            return function(text)
        except ValueError:
            raise ValueError(
                f"{name!r}: {text!r} cannot be read; write {usage}"
            ) from None

    if len(details) > 1:
        raise ValueError(f"{name!r} has too many parts; write {usage}")
    if required and not details:
        raise ValueError(f"{name!r} says too little; write {usage}")
    for option in options:
        if option not in known:
            raise ValueError(
                f"{name!r} has no option {option!r}; write {usage}"
            )
    return (
        convert(detail, details[0]) if details else None,
        {key: convert(known[key], text) for key, text in options.items()},
    )


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


def to_pcm16(signal):
    """Rounds a signal, float [T], to int16; what is beyond -1..1 is clipped,
    never wrapped.

    Example
    -------
    >>> to_pcm16(np.array([-1.5, -1.0, 0.5, 1.0]))
    array([-32768, -32768,  16384,  32767], dtype=int16)
    """
    return np.clip(np.rint(signal * 32768), -32768, 32767).astype(np.int16)


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
