"""What augmentations are: a share of the crops, changed; and their order."""

import math

import numpy as np
import torch


class Augmentation:
    """Changes a share of the crops; how is a subclass's `apply`.

    Arguments
    ---------
    share : float
        Of the crops that change, 0..1.
    """

    reach = 1.0  # samples that it may need for each one that it gives

    def __init__(self, share):
        self.share = share

    def __call__(self, signal, sample_rate, rng):
        """Changes a crop, or not.

        Arguments
        ---------
        signal : torch.Tensor
            Shape [T].
        sample_rate : int
            In Hz.
        rng : numpy.random.Generator
            Source of the choices.

        Returns
        -------
        torch.Tensor
            Float32 [T], or another length from a `Resampler`; may exceed 1.
        """
        if rng.random() >= self.share or len(signal) == 0:
            return signal
        changed = self.apply(signal.numpy(), sample_rate, rng)
        return torch.from_numpy(changed.astype(np.float32))

    def apply(self, signal, sample_rate, rng):
        """Changes a crop [T] in numpy."""
        raise NotImplementedError


class Augment:
    """Augmentations one after the other.

    Each has a generator of its own, so that the choices of one do not depend
    on the shares of the others.

    Arguments
    ---------
    augmentations : list of Augmentation
        In their order.

    Example
    -------
    >>> from speechbrain_flowmac.training.augmentation import LevelSetter
    >>> augment = Augment([LevelSetter(level_db=(-20, -20))])
    >>> crop = augment(torch.ones(9), 24000, np.random.default_rng(0))
    >>> round(float(crop.mean()), 3)
    0.1
    """

    def __init__(self, augmentations):
        self.augmentations = augmentations

    @property
    def reach(self):
        """Samples that it may need for each one that it gives."""
        return math.prod(part.reach for part in self.augmentations)

    def __call__(self, signal, sample_rate, rng):
        """Changes a crop [T]; see `Augmentation`."""
        own = rng.spawn(len(self.augmentations))
        for augmentation, choices in zip(self.augmentations, own, strict=True):
            signal = augmentation(signal, sample_rate, choices)
        return signal


def log_uniform(low, high, rng):
    """A number whose logarithm is uniformly distributed."""
    return math.exp(rng.uniform(math.log(low), math.log(high)))
