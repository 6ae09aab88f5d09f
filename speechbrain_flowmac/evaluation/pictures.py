"""Waveforms and spectrograms of what the report plays, as compact pictures.

All versions of an utterance have the same scales, those of the first, which is
the reference, for levels; so what a codec lost or added can be seen.
"""

import io

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

COLUMNS = 600  # of every picture
WAVE_ROWS = 97  # the middle one is at zero
WAVE_COLOUR = (0.29, 0.53, 0.85)  # seen on white and on black
MAX_FREQUENCY = 12000  # Hz, at the top of a spectrogram
WINDOW_SECONDS = 0.04
RANGE_DB = 80  # below the reference's maximum, are still seen
FLOOR_DB = -120
QUALITY = 30  # of WebP, 0..100: a spectrogram has some 20 kB


def draw(versions):
    """Draws all versions of an utterance.

    Arguments
    ---------
    versions : list of tuple
        Signal [T] and sample rate in Hz of each, the reference first.

    Returns
    -------
    list of tuple
        Of each its waveform, PNG, and its spectrogram, WebP; bytes.
    """
    peak = max(np.abs(signal).max() for signal, _ in versions) or 1.0
    spectra = [spectrogram(*version) for version in versions]
    top = spectra[0].max()
    return [
        (
            _image(_waveform(signal, peak), "png"),
            _image(
                levels,
                "webp",
                origin="lower",
                cmap="inferno",  # dark to bright, also in grey
                vmin=top - RANGE_DB,
                vmax=top,
                pil_kwargs={"quality": QUALITY},
            ),
        )
        for (signal, _), levels in zip(versions, spectra, strict=True)
    ]


def spectrogram(signal, sample_rate):
    """Levels in dB of a signal [T], from 0 to 12 kHz: [rows, COLUMNS].

    By Hann windows of 40 ms. Above half of a low sample rate is nothing.

    Example
    -------
    >>> tone = np.sin(2 * np.pi * 3000 * np.arange(24000) / 24000)
    >>> levels = spectrogram(tone, 24000)
    >>> levels.shape, int(levels[:, 300].argmax())  # rows are 25 Hz apart
    ((480, 600), 120)
    """
    size = round(WINDOW_SECONDS * sample_rate)
    middles = (np.arange(COLUMNS) + 0.5) / COLUMNS * len(signal)
    # so padded, a window that begins at a sample has it in its middle
    frames = sliding_window_view(np.pad(signal, size // 2), size)
    frames = frames[middles.astype(int)]
    spectra = np.fft.rfft(frames * np.hanning(size)).T
    rows = round(MAX_FREQUENCY * size / sample_rate)
    levels = np.full((rows, COLUMNS), float(FLOOR_DB))
    found = 20 * np.log10(np.abs(spectra[:rows]) + 10 ** (FLOOR_DB / 20))
    levels[: len(found)] = found
    return levels


def _waveform(signal, peak):
    """From zero to the lowest and highest sample of each column: RGBA."""
    starts = np.arange(COLUMNS) * len(signal) // COLUMNS
    low = np.minimum(np.minimum.reduceat(signal, starts) / peak, 0)
    high = np.maximum(np.maximum.reduceat(signal, starts) / peak, 0)
    rows = np.linspace(1, -1, WAVE_ROWS)[:, None]
    half = 1 / (WAVE_ROWS - 1)  # of a row
    image = np.empty((WAVE_ROWS, COLUMNS, 4))
    image[..., :3] = WAVE_COLOUR
    image[..., 3] = (rows >= low - half) & (rows <= high + half)
    return image


def _image(values, kind, **options):
    from matplotlib.image import imsave

    file = io.BytesIO()
    imsave(file, values, format=kind, **options)
    return file.getvalue()
