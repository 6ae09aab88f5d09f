"""The contract of importers, and the errors of all."""

from abc import ABC, abstractmethod

import torch


class ExportError(ValueError):
    """A source that cannot be exported."""


class Importer(ABC):
    """Reads one kind of source as a part of a model folder.

    A source is a str or Path; a part is "codec" or "vocoder".
    """

    @abstractmethod
    def recognises(self, source, part):
        """Whether this source, which may not exist, is of this kind.

        Arguments
        ---------
        source : str or Path
            Looked at, never fetched.
        part : str
            What is wanted of it.

        Returns
        -------
        bool
        """

    @abstractmethod
    def describe(self, source, part):
        """YAML of the part alone, without references to what is not in it.

        Arguments
        ---------
        source, part
            See `recognises`.

        Returns
        -------
        str
            One key, the part.
        """

    @abstractmethod
    def weights(self, source, part):
        """What is to be stored, without weight norm.

        Arguments
        ---------
        source, part
            See `recognises`.

        Returns
        -------
        dict
            A state dict.
        """

    @abstractmethod
    def credits(self, source, part):
        """What the model card says of the part.

        Arguments
        ---------
        source, part
            See `recognises`.

        Returns
        -------
        list of str
            Lines of Markdown.
        """


def compact(state):
    """Halves the size of a state dict: matrices to float16.

    Vectors (of any number of axes), codebooks and statistics stay as they
    are: they are small, and tokens and filters depend on them.

    Arguments
    ---------
    state : dict
        A state dict.

    Returns
    -------
    dict
    """

    def shrink(name, value):
        vector = value.numel() == max(value.shape, default=1)
        small = vector or "_codebook" in name
        kept = small or value.dtype != torch.float32
        return value.contiguous() if kept else value.half().contiguous()

    return {name: shrink(name, value) for name, value in state.items()}
