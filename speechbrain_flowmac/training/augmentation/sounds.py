"""Sounds that a corpus of clean speech lacks: noise and tones.

They are made, not recorded, so that training needs no other corpus.
"""

import math

import numpy as np

from speechbrain_flowmac.training.augmentation.base import (
    Augmentation,
    log_uniform,
)

LOWEST_TONE, HIGHEST_TONE = 60.0, 2000.0  # fundamentals, in Hz


class SoundMixer(Augmentation):
    """Noise or tones, mixed with the speech or in its place.

    Half of these crops hold nothing else, at a random level; in the others
    the sound is mixed with the speech at a random ratio.

    Arguments
    ---------
    share : float
        Of the crops that get a sound.
    level_db : tuple of float
        Range of the RMS level of a sound alone, relative to full scale.
    snr_db : tuple of float
        Range of the ratio of speech to sound.
    """

    def __init__(self, share=0.2, level_db=(-60, -12), snr_db=(0, 30)):
        super().__init__(share)
        self.level_db = level_db
        self.snr_db = snr_db

    def apply(self, signal, sample_rate, rng):
        """Mixes a sound into a crop [T]."""
        if rng.random() < 0.5:
            sound = coloured_noise(len(signal), rng)
        else:
            sound = tones(len(signal), sample_rate, rng)
        if rng.random() < 0.5:
            return sound * 10 ** (rng.uniform(*self.level_db) / 20)
        speech_level = math.sqrt(np.square(signal).mean())
        ratio = rng.uniform(*self.snr_db)
        return signal + sound * speech_level * 10 ** (-ratio / 20)


def coloured_noise(num_samples, rng):
    """Gaussian noise of random colour and unit RMS.

    The spectrum falls by 0 (white) to 6 dB per octave (brown). Half of the
    noises are cut to a band, at least an octave wide.

    Arguments
    ---------
    num_samples : int
        Length.
    rng : numpy.random.Generator
        Source of the choices.

    Returns
    -------
    numpy.ndarray
        Shape [num_samples].

    Example
    -------
    >>> noise = coloured_noise(4000, np.random.default_rng(0))
    >>> round(float(np.square(noise).mean()), 3)
    1.0
    """
    bins = num_samples // 2 + 1
    spectrum = rng.standard_normal((2, bins)).T.copy().view(complex)[:, 0]
    frequency = np.maximum(np.arange(bins) / bins, 0.002)
    spectrum *= frequency ** -rng.uniform(0, 1)
    if rng.random() < 0.5:
        low = rng.uniform(0, 0.5)
        high = rng.uniform(2 * low, 1)
        spectrum[(frequency < low) | (frequency > high)] = 0
    spectrum[0] = 0
    return unit_rms(np.fft.irfft(spectrum, num_samples))


def tones(num_samples, sample_rate, rng):
    """One to five notes with harmonics, of unit RMS.

    Each starts somewhere in the first half, and stays or dies away.

    Arguments
    ---------
    num_samples : int
        Length.
    sample_rate : int
        In Hz.
    rng : numpy.random.Generator
        Source of the choices.

    Returns
    -------
    numpy.ndarray
        Shape [num_samples].

    Example
    -------
    >>> notes = tones(4000, 24000, np.random.default_rng(0))
    >>> round(float(np.square(notes).mean()), 3)
    1.0
    """
    time = np.arange(num_samples) / sample_rate
    mixed = np.zeros(num_samples)
    for _ in range(rng.integers(1, 6)):
        f0 = log_uniform(LOWEST_TONE, HIGHEST_TONE, rng)
        fall = rng.uniform(0.5, 2)  # of the amplitudes of harmonics
        decay = rng.choice([0.0, log_uniform(1, 20, rng)])
        since = time - rng.uniform(0, 0.5) * time[-1]
        count = min(int(sample_rate / 2 / f0), 24)
        phases = rng.uniform(0, 2 * math.pi, count)
        amplitudes = np.arange(1, count + 1) ** -fall * np.exp(1j * phases)
        # harmonics are powers of the first: a polynomial, by Horner's rule
        wave = np.exp(2j * math.pi * f0 * since).astype(np.complex64)
        note = np.zeros_like(wave)
        for amplitude in amplitudes[::-1].astype(np.complex64):
            note += amplitude
            note *= wave
        envelope = np.exp(-decay * since.clip(0)) * (since >= 0)
        mixed += note.imag * envelope
    return unit_rms(mixed)


def unit_rms(signal):
    """Scales a signal to a root mean square of 1."""
    return signal / max(math.sqrt(np.square(signal).mean()), 1e-9)
