"""Voices, microphones, rooms and sounds that a corpus does not have.

A codec that has heard few speakers changes the others, and one that never
heard noise does not know what to do with it. An augmentation changes a share
of the crops; a YAML lists those that it wants in `Augment`. What a crop becomes
is what the model is to reproduce: labels are made from it, not from the file.
"""

from speechbrain_flowmac.training.augmentation.base import (
    Augment,
    Augmentation,
)
from speechbrain_flowmac.training.augmentation.channels import (
    BandLimiter,
    Equalizer,
    LevelSetter,
    Reverberator,
)
from speechbrain_flowmac.training.augmentation.sounds import SoundMixer
from speechbrain_flowmac.training.augmentation.voices import (
    FormantShifter,
    Resampler,
    SpectralTilter,
)

__all__ = [
    "Augment",
    "Augmentation",
    "BandLimiter",
    "Equalizer",
    "FormantShifter",
    "LevelSetter",
    "Resampler",
    "Reverberator",
    "SoundMixer",
    "SpectralTilter",
]
