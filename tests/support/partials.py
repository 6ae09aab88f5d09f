"""Whether tones keep their pitch: their strongest partials, before and after.

Frequencies are read off a long Hann-windowed spectrum by a parabola through the
logarithms of each peak and its neighbours, to well under a cent.
"""

import numpy as np

# peaks closer than this belong to one partial (vibrato, noise in the window)
APART_HZ = 25.0
LOWEST_HZ = 50.0
# below the strongest, what is weaker is no partial but the window's skirt
RANGE_DB = 40.0


def strongest_partials(signal, rate, count):
    """Frequencies of the strongest partials, strongest first.

    Arguments
    ---------
    signal : numpy.ndarray
        Shape [T], a second or more of one sound.
    rate : int
        In Hz.
    count : int
        Partials at most; fewer where there are fewer peaks.

    Returns
    -------
    list of float
        In Hz.
    """
    window = np.hanning(len(signal))
    magnitude = np.abs(np.fft.rfft(window * signal, 2 * len(signal)))
    spacing = rate / (2 * len(signal))
    inner = magnitude[1:-1]
    is_peak = (inner > magnitude[:-2]) & (inner >= magnitude[2:])
    peaks = 1 + np.flatnonzero(is_peak)
    floor = magnitude.max() * 10 ** (-RANGE_DB / 20)
    peaks = peaks[(peaks * spacing >= LOWEST_HZ) & (magnitude[peaks] >= floor)]
    found = []
    for peak in peaks[np.argsort(-magnitude[peaks])]:
        left, top, right = np.log(magnitude[peak - 1 : peak + 2] + 1e-12)
        shift = (left - right) / (2 * (left - 2 * top + right))
        frequency = (peak + shift) * spacing
        if all(abs(frequency - other) >= APART_HZ for other in found):
            found.append(float(frequency))
        if len(found) == count:
            break
    return found


def pitch_errors(original, decoded, rate, count=3):
    """How far the strongest partials of a sound have moved.

    Arguments
    ---------
    original : numpy.ndarray
        Shape [T].
    decoded : numpy.ndarray
        Shape [T].
    rate : int
        In Hz.
    count : int
        Partials of the original.

    Returns
    -------
    list of float
        For each, strongest first, cents (0 or more) to the nearest of the
        2 `count` strongest of the decoded sound; infinite if that has none.
    """
    there = strongest_partials(decoded, rate, 2 * count)
    return [
        min((abs(1200 * np.log2(f / wanted)) for f in there), default=np.inf)
        for wanted in strongest_partials(original, rate, count)
    ]


def chord(rate, seconds=2.0, cents=0.0):
    """A major chord on A3, seven harmonics each, off by some cents."""
    time = np.arange(round(seconds * rate)) / rate
    detune = 2 ** (cents / 1200)
    return sum(
        np.sin(2 * np.pi * f * detune * k * time) / k
        for f in (220.0, 277.2, 329.6)
        for k in range(1, 8)
    )


def sung_note(rate, seconds=2.0, f0=196.0):
    """A vowel on one note, with a vibrato of 10 cents at 5 Hz."""
    time = np.arange(round(seconds * rate)) / rate
    cycles = f0 * time
    cycles += (
        f0
        * np.log(2)
        * 10
        / 1200
        / (2 * np.pi * 5)
        * np.sin(2 * np.pi * 5 * time)
    )
    note = np.zeros(len(time))
    for k in range(1, int(5000 / f0) + 1):
        formants = sum(
            gain / (1 + ((k * f0 - centre) / width) ** 2)
            for centre, width, gain in (
                (700, 80, 1.0),
                (1100, 90, 0.5),
                (2600, 150, 0.2),
            )
        )
        note += (0.05 / k + formants) * np.cos(2 * np.pi * k * cycles + k * k)
    return note
