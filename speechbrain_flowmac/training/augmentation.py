"""Sounds that a corpus of clean speech lacks: noise and tones.

A codec that never heard noise does not know what to do with it. These sounds
are made, not recorded, so that training needs no other corpus.
"""

import math

import numpy as np
import torch

LOWEST_TONE, HIGHEST_TONE = 60.0, 2000.0  # fundamentals, in Hz


def coloured_noise(num_samples, chance):
    """Gaussian noise of random colour and unit RMS.

    The spectrum falls by 0 (white) to 6 dB per octave (brown). Half of the
    noises are cut to a band, at least an octave wide.

    Arguments
    ---------
    num_samples : int
        Length.
    chance : numpy.random.Generator
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
    spectrum = chance.standard_normal((2, bins)).T.copy().view(complex)[:, 0]
    frequency = np.maximum(np.arange(bins) / bins, 0.002)
    spectrum *= frequency ** -chance.uniform(0, 1)
    if chance.random() < 0.5:
        low = chance.uniform(0, 0.5)
        high = chance.uniform(2 * low, 1)
        spectrum[(frequency < low) | (frequency > high)] = 0
    spectrum[0] = 0
    return unit_rms(np.fft.irfft(spectrum, num_samples))


def tones(num_samples, sample_rate, chance):
    """One to five notes with harmonics, of unit RMS.

    Each starts somewhere in the first half, and stays or dies away.

    Arguments
    ---------
    num_samples : int
        Length.
    sample_rate : int
        In Hz.
    chance : numpy.random.Generator
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
    for _ in range(chance.integers(1, 6)):
        f0 = log_uniform(LOWEST_TONE, HIGHEST_TONE, chance)
        fall = chance.uniform(0.5, 2)  # of the amplitudes of harmonics
        decay = chance.choice([0.0, log_uniform(1, 20, chance)])
        since = time - chance.uniform(0, 0.5) * time[-1]
        note = np.zeros(num_samples)
        for k in range(1, min(int(sample_rate / 2 / f0), 24) + 1):
            phase = chance.uniform(0, 2 * math.pi)
            note += k**-fall * np.sin(2 * math.pi * k * f0 * since + phase)
        mixed += np.where(since >= 0, note * np.exp(-decay * since.clip(0)), 0)
    return unit_rms(mixed)


def unit_rms(signal):
    """Scales a signal to a root mean square of 1."""
    return signal / max(math.sqrt(np.square(signal).mean()), 1e-9)


def log_uniform(low, high, chance):
    """A number whose logarithm is uniformly distributed."""
    return math.exp(chance.uniform(math.log(low), math.log(high)))


class SoundMixer:
    """Gives a share of the crops noise or tones.

    Half of these crops hold nothing else, at a random level; in the others
    the sound is mixed with the speech at a random ratio.

    Arguments
    ---------
    share : float
        Of the crops that get a sound, 0..1.
    level_db : tuple of float
        Range of the RMS level of a sound alone, relative to full scale.
    snr_db : tuple of float
        Range of the ratio of speech to sound.

    Example
    -------
    >>> mixer = SoundMixer(share=1.0)
    >>> speech = torch.zeros(4000)
    >>> mixer(speech, 24000, np.random.default_rng(1)).shape
    torch.Size([4000])
    """

    def __init__(self, share=0.2, level_db=(-60, -12), snr_db=(0, 30)):
        self.share = share
        self.level_db = level_db
        self.snr_db = snr_db

    def __call__(self, signal, sample_rate, chance):
        """Mixes a sound into a crop, or not.

        Arguments
        ---------
        signal : torch.Tensor
            Shape [T].
        sample_rate : int
            In Hz.
        chance : numpy.random.Generator
            Source of the choices.

        Returns
        -------
        torch.Tensor
            Shape [T]; may exceed 1.
        """
        if chance.random() >= self.share or len(signal) == 0:
            return signal
        if chance.random() < 0.5:
            sound = coloured_noise(len(signal), chance)
        else:
            sound = tones(len(signal), sample_rate, chance)
        sound = torch.from_numpy(sound).to(signal)
        if chance.random() < 0.5:
            return sound * 10 ** (chance.uniform(*self.level_db) / 20)
        speech_level = signal.square().mean().sqrt()
        ratio = chance.uniform(*self.snr_db)
        return signal + sound * speech_level * 10 ** (-ratio / 20)
