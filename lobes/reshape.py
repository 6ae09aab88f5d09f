"""Signals cut into patches: the tokens that need no transform."""

import math

import torch
from einops import rearrange
from torch import nn
from torch.nn import functional as F

from speechbrain_flowmac.lobes.lengths import num_frames


class Reshape(nn.Module):
    """Signals to patches and back, with the interface of `lobes.mdct.MDCT`.

    Arguments
    ---------
    pattern : str
        Of `einops.rearrange`, from `b (...)` to `b tokens values`.
    **sizes : int
        Axes of the pattern. All but one must be given; signals are made a
        multiple of their product by zeros at the end.

    Example
    -------
    >>> frames = Reshape("b (n m) -> b n m", m=4)
    >>> frames.to_tokens(torch.arange(6.0)[None])
    tensor([[[0., 1., 2., 3.],
             [4., 5., 0., 0.]]])
    >>> squares = Reshape(
    ...     "b (h p w q) -> b (h w) (p q)", p=2, w=2, q=2
    ... )  # of pictures of width 4
    >>> squares.to_tokens(torch.arange(16)[None])[0, 0]
    tensor([0, 1, 4, 5])
    """

    def __init__(self, pattern, **sizes):
        super().__init__()
        self.pattern = pattern
        self.sizes = sizes
        flat, _, tokens = pattern.partition("->")
        self._inverse = f"{tokens} -> {flat}"
        self._multiple = math.prod(sizes.values())
        # a pattern that does not fit fails here, not in training
        self._tokens_each = self.to_tokens(torch.zeros(1, 1)).shape[1]

    def num_tokens(self, num_samples):
        """Patches of a signal of so many samples."""
        return self._tokens_each * num_frames(num_samples, self._multiple)

    def to_tokens(self, signal):
        """[B, T] to [B, N, M]."""
        padded = F.pad(signal, (0, -signal.shape[1] % self._multiple))
        return rearrange(padded, self.pattern, **self.sizes)

    def from_tokens(self, tokens, num_samples=None):
        """[B, N, M] to [B, T]; the inverse, without what was padded.

        Arguments
        ---------
        tokens : torch.Tensor
            Shape [B, N, M].
        num_samples : int or None
            T; None for all.

        Returns
        -------
        torch.Tensor
            Shape [B, T].
        """
        signal = rearrange(tokens, self._inverse, **self.sizes)
        if num_samples is not None and num_samples > signal.shape[1]:
            raise ValueError(
                f"the tokens hold {signal.shape[1]} samples, found "
                f"num_samples={num_samples}"
            )
        return signal[:, :num_samples]
