"""Other voices than those of the speakers."""

import math

import numpy as np
import soxr
import torch

from speechbrain_flowmac.training.augmentation.base import (
    Augmentation,
    log_uniform,
)
from speechbrain_flowmac.training.augmentation.filters import equalize


class Resampler(Augmentation):
    """Another speaker: pitch, formants and pace change together.

    Arguments
    ---------
    share : float
        Of the crops that change.
    factor : tuple of float
        Range of the factor of all frequencies.
    """

    def __init__(self, share=0.5, factor=(0.8, 1.25)):
        super().__init__(share)
        self.factor = factor

    @property
    def reach(self):
        """What is raised by a factor is shortened by it."""
        return max(self.factor[1], 1.0)

    def apply(self, signal, sample_rate, rng):
        """Plays a crop [T] faster or slower."""
        factor = log_uniform(*self.factor, rng)
        return soxr.resample(signal, sample_rate * factor, sample_rate)


class FormantShifter(Augmentation):
    """A longer or shorter vocal tract; pitch and pace stay.

    The envelope of each short-time spectrum, which is the low part of its
    cepstrum, is stretched along the frequency axis.

    Arguments
    ---------
    share : float
        Of the crops that change.
    factor : tuple of float
        Range of the factor of formant frequencies.
    max_gain_db : float
        Most that a frequency is raised or lowered.
    """

    n_fft = 1024
    # seconds, about the shortest pitch period: the envelope ends there, and
    # fades over the second half
    quefrency = 0.003

    def __init__(self, share=0.3, factor=(0.85, 1.18), max_gain_db=20.0):
        super().__init__(share)
        self.factor = factor
        self.max_gain_db = max_gain_db

    def apply(self, signal, sample_rate, rng):
        """Moves the formants of a crop [T]."""
        factor = log_uniform(*self.factor, rng)
        options = {
            "n_fft": self.n_fft,
            "hop_length": self.n_fft // 4,
            "window": torch.hann_window(self.n_fft),
        }
        # a crop of any length has frames, and full ones at its ends
        padded = torch.from_numpy(np.pad(signal, self.n_fft))
        spectrum = torch.stft(padded, **options, return_complex=True)
        envelope = self._envelope(spectrum.abs(), sample_rate)
        top = self.n_fft // 2
        source = (torch.arange(top + 1) / factor).clamp(max=top)
        below = source.long().clamp(max=top - 1)
        moved = torch.lerp(
            envelope[below], envelope[below + 1], (source - below)[:, None]
        )
        limit = self.max_gain_db / 20 * math.log(10)
        spectrum *= (moved - envelope).clamp(-limit, limit).exp()
        shifted = torch.istft(spectrum, **options, length=len(padded))
        return shifted[self.n_fft : -self.n_fft].numpy()

    def _envelope(self, magnitude, sample_rate):
        """Smooth logarithms of spectra [F, N]."""
        # 80 dB below the loudest: the bottom of a band that is empty
        floor = 1e-4 * magnitude.max() + 1e-8
        cepstrum = torch.fft.irfft((magnitude + floor).log(), dim=0)
        count = int(self.quefrency * sample_rate)
        place = torch.linspace(-1, 1, count).clamp(min=0)
        fade = 0.5 + 0.5 * torch.cos(math.pi * place)
        # its negative times mirror the positive ones
        half = cepstrum[:count] * fade[:, None]
        half[1:] *= 2
        return torch.fft.rfft(half, n=self.n_fft, dim=0).real


class SpectralTilter(Augmentation):
    """A brighter or darker voice: a straight line over octaves.

    Arguments
    ---------
    share : float
        Of the crops that change.
    db_per_octave : tuple of float
        Range of the slope; 2 is 6 dB between 1 and 8 kHz.
    """

    def __init__(self, share=0.3, db_per_octave=(-2.0, 2.0)):
        super().__init__(share)
        self.db_per_octave = db_per_octave

    def apply(self, signal, sample_rate, rng):
        """Tilts a crop [T] around 1 kHz."""
        octaves = np.log2(sample_rate / 2 / 1000) - np.arange(8)
        gains = rng.uniform(*self.db_per_octave) * octaves
        return equalize(signal, sample_rate, 1000 * 2**octaves, gains)
