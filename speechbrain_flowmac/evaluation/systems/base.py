"""What an evaluation asks of a system: to encode, to decode, to count bits."""

from abc import ABC, abstractmethod
from typing import NamedTuple

import numpy as np


class UnavailableError(RuntimeError):
    """A system that cannot run here; the message says what is missing."""


class Recording(NamedTuple):
    """What a system is given to code.

    Arguments
    ---------
    name : str
        Of the file, relative to the folder of the evaluation, with "/".
    signal : numpy.ndarray
        float64, shape [T], within -1..1.
    sample_rate : int
        In Hz, that of the system.
    """

    name: str
    signal: np.ndarray
    sample_rate: int

    @property
    def seconds(self):
        """Duration."""
        return len(self.signal) / self.sample_rate


class Coded(NamedTuple):
    """What an encoder made of a recording.

    Arguments
    ---------
    data : bytes
        All that the decoder needs, with its container if there is one.
    payload_bits : int or None
        Without headers and container; None where there is no bit rate.
    """

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
    """

    name: str
    label: str
    kind: str = "codec"
    sample_rate: int
    fingerprint: str

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
        """Codebook indices, or None where there are none.

        Arguments
        ---------
        coded : Coded
            From `encode`.

        Returns
        -------
        tuple or None
            int array [N, K], and the codebook size.
        """
        return None
