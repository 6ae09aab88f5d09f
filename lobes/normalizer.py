"""Normalisation of log-mels by the statistics of the training data."""

import math

import torch
from torch import nn


class MelNormalizer(nn.Module):
    """Global mean and standard deviation of log-mels, saved with the model.

    Arguments
    ---------
    mean : float
        Mean over all bands and frames of the training data.
    std : float
        Standard deviation over the same, above 0.

    Example
    -------
    >>> normalizer = MelNormalizer(mean=-5.0, std=2.0)
    >>> normalizer(torch.tensor([-5.0, -3.0]))
    tensor([0., 1.])
    """

    per_band = False
    """Whether the statistics are of each band."""

    def __init__(self, mean=0.0, std=1.0):
        super().__init__()
        self.register_buffer("mean", torch.zeros(()))
        self.register_buffer("std", torch.ones(()))
        self.set_statistics(mean, std)

    def set_statistics(self, mean, std):
        """Replaces the statistics; both finite, `std` above 0."""
        if not (math.isfinite(mean) and math.isfinite(std) and std > 0):
            raise ValueError(
                f"need a finite mean and std > 0, found {mean} and {std}"
            )
        self.mean.fill_(mean)
        self.std.fill_(std)

    def forward(self, mel):
        """Log-mel to unit scale; any shape."""
        return (mel - self.mean) / self.std

    def denormalize(self, mel):
        """Inverse of `forward`."""
        return mel * self.std + self.mean


class RunningStatistics:
    """Mean and standard deviation of a stream, in float64.

    Arguments
    ---------
    per_band : bool
        Whether each entry of the last axis has its own.

    Example
    -------
    >>> statistics = RunningStatistics()
    >>> statistics.update(torch.tensor([1.0, 2.0]))
    >>> statistics.update(torch.tensor([3.0]))
    >>> statistics.mean, round(statistics.std, 4)
    (2.0, 0.8165)
    """

    def __init__(self, per_band=False):
        self.per_band = per_band
        self.count = 0
        self._mean = torch.zeros((), dtype=torch.float64)
        self._squares = torch.zeros((), dtype=torch.float64)

    def update(self, values):
        """Adds values of any shape, by Chan, Golub and LeVeque's update."""
        values = values.double()
        values = values.flatten(0, -2) if self.per_band else values.flatten()
        count = len(values)
        if count == 0:
            return
        delta = values.mean(0) - self._mean
        total = self.count + count
        self._squares = (
            self._squares
            + values.var(0, correction=0) * count
            + delta**2 * (self.count * count / total)
        )
        self._mean = self._mean + delta * (count / total)
        self.count = total

    @property
    def mean(self):
        """Mean of all values so far: a number, or a list of one for each
        band."""
        return self._mean.tolist()

    @property
    def std(self):
        """Standard deviation of all values so far, as `mean`."""
        if self.count == 0:
            raise ValueError("no values yet")
        return (self._squares / self.count).sqrt().tolist()
