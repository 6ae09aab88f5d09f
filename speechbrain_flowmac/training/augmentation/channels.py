"""Other microphones, rooms and levels."""

import math

import numpy as np
from scipy.signal import firwin, lfilter, oaconvolve

from speechbrain_flowmac.training.augmentation.base import (
    Augmentation,
    log_uniform,
)
from speechbrain_flowmac.training.augmentation.filters import (
    bandwidth,
    equalize,
)


class Equalizer(Augmentation):
    """Another microphone: random gains, an octave apart.

    Arguments
    ---------
    share : float
        Of the crops that change.
    gain_db : float
        Most that a frequency is raised or lowered.
    """

    def __init__(self, share=0.5, gain_db=6.0):
        super().__init__(share)
        self.gain_db = gain_db

    def apply(self, signal, sample_rate, rng):
        """Filters a crop [T]."""
        frequencies = sample_rate / 2 / 2.0 ** np.arange(8)
        gains = rng.uniform(-self.gain_db, self.gain_db, len(frequencies))
        return equalize(signal, sample_rate, frequencies, gains)


class Reverberator(Augmentation):
    """A small room: the sound itself, then noise that dies away.

    Arguments
    ---------
    share : float
        Of the crops that change.
    rt60 : tuple of float
        Range of the time in which the noise falls by 60 dB, in seconds.
    direct_db : tuple of float
        Range of the energy of the direct sound over that of the rest.
    """

    def __init__(self, share=0.2, rt60=(0.05, 0.4), direct_db=(3.0, 20.0)):
        super().__init__(share)
        self.rt60 = rt60
        self.direct_db = direct_db

    def response(self, sample_rate, rng):
        """Draws an impulse response, whose first sample is 1."""
        rt60 = log_uniform(*self.rt60, rng)
        time = np.arange(int(rt60 * sample_rate)) / sample_rate
        rest = rng.standard_normal(len(time)) * 10 ** (-3 * time / rt60)
        rest[time < rng.uniform(0.001, 0.005)] = 0  # the way to the first wall
        absorption = rng.uniform(0, 0.7)  # of high frequencies
        rest = lfilter([1 - absorption], [1, -absorption], rest)
        ratio = 10 ** (-rng.uniform(*self.direct_db) / 20)
        response = ratio * rest / max(np.linalg.norm(rest), 1e-9)
        response[0] = 1
        return response

    def apply(self, signal, sample_rate, rng):
        """Puts a crop [T] into a room."""
        response = self.response(sample_rate, rng).astype(np.float32)
        return oaconvolve(signal, response)[: len(signal)]


class BandLimiter(Augmentation):
    """A narrower channel: a low-pass filter below the recording's own limit.

    Arguments
    ---------
    share : float
        Of the crops that change.
    lowest : float
        Lowest limit in Hz; a crop that has less than this is left alone.
    """

    def __init__(self, share=0.1, lowest=3500.0):
        super().__init__(share)
        self.lowest = lowest

    def apply(self, signal, sample_rate, rng):
        """Cuts the upper frequencies of a crop [T]."""
        highest = min(bandwidth(signal, sample_rate), 0.475 * sample_rate)
        if highest <= self.lowest:
            return signal
        limit = log_uniform(self.lowest, highest, rng)
        taps = firwin(255, limit, window=("kaiser", 8.0), fs=sample_rate)
        filtered = oaconvolve(signal, taps.astype(np.float32))
        return filtered[127 : 127 + len(signal)]


class LevelSetter(Augmentation):
    """Speech from near and far.

    Arguments
    ---------
    share : float
        Of the crops that change.
    level_db : tuple of float
        Range of the RMS level, relative to full scale.
    max_gain_db : float
        Most that a crop is raised, so that a pause stays one.
    """

    def __init__(self, share=1.0, level_db=(-40.0, -10.0), max_gain_db=20.0):
        super().__init__(share)
        self.level_db = level_db
        self.max_gain_db = max_gain_db

    def apply(self, signal, sample_rate, rng):
        """Scales a crop [T]."""
        level = math.sqrt(np.square(signal).mean())
        wanted = 10 ** (rng.uniform(*self.level_db) / 20)
        gain = min(wanted / max(level, 1e-9), 10 ** (self.max_gain_db / 20))
        return signal * gain
