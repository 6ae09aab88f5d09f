"""Delay and level of what a codec returned, found and removed.

A codec that keeps the waveform is found by cross-correlation, to the sample.
A vocoder makes up its phases: its waveform correlates with the reference's
best at some multiple of a pitch period, but its spectral envelope moves along
with the reference's. So the waveform is believed where its correlation has a
sharp peak, and band energies decide otherwise, to a millisecond or two.

For the peak to be sharp in spite of the pitch, the spectrum is made flatter
first: generalised cross-correlation (Knapp and Carter, 1976) with the phase
transform's weight to a power below one, which keeps noise from counting as
much as speech.
"""

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from scipy import fft

FLATTENING = 0.75  # 0: plain correlation, 1: phase transform
# Peak over RMS, within +-300 ms. Opus at 6 kbps has 25 and more (5th
# percentile over 60 sentences), vocoders 10, Codec2 up to 17 (95th).
SHARP = 20.0
# Correlation of band energies. Different sentences reach 0.28 within 300 ms;
# coded speech under as much noise stays above 0.65.
SAME_SPEECH = 0.4

SHORTEST_SECONDS = 0.1  # of what has a delay
SILENCE_DB = -80.0  # RMS relative to full scale
FRAME_SECONDS = 0.040
HOP_SECONDS = 0.004
NUM_BANDS = 32
LOWEST_HZ, HIGHEST_HZ = 80.0, 8000.0
RANGE_DB = 40.0  # below the loudest; what is softer counts as silent


def align(reference, decoded, sample_rate, max_delay_ms=300):
    """Shifts and scales a decoded signal to where its reference is.

    The delay is one number of whole samples for the whole signal. The gain
    makes the RMS equal over the reference's active frames, and is lowered
    where peaks would leave full scale. Polarity stays as it is.

    Arguments
    ---------
    reference, decoded : numpy.ndarray
        What was coded [T] and what came back [any], at one sample rate;
        ValueError if they have another shape or are not finite.
    sample_rate : int
        In Hz.
    max_delay_ms : float
        Delays are looked for from -max_delay_ms to max_delay_ms.

    Returns
    -------
    tuple
        The aligned signal, float64 [T], zeros where `decoded` has nothing;
        the delay in ms, positive where `decoded` came later; the gain in dB
        that it was given. Signals that are silent, shorter than 0.1 s or
        unlike each other are taken for undelayed, silence has a gain of 0.

    Example
    -------
    >>> reference = 0.1 * np.random.default_rng(0).normal(size=24000)
    >>> late = np.concatenate([np.zeros(240), reference / 2])
    >>> aligned, delay_ms, gain_db = align(reference, late, 24000)
    >>> delay_ms, round(gain_db, 2), bool(np.allclose(aligned, reference))
    (10.0, 6.02, True)
    """
    reference = _checked("reference", reference)
    decoded = _checked("decoded", decoded)
    delay = _find_delay(reference, decoded, sample_rate, max_delay_ms)
    total = len(reference)
    kept = decoded[max(delay, 0) : max(total + delay, 0)]
    start = max(-delay, 0)
    aligned = np.zeros(total)
    aligned[start : start + len(kept)] = kept
    heard = np.zeros(total, bool)
    heard[start : start + len(kept)] = True
    gain = _gain(reference, aligned, heard, sample_rate)
    return (
        aligned * gain,
        1000 * delay / sample_rate,
        20 * float(np.log10(gain)),
    )


def _checked(name, signal):
    signal = np.asarray(signal, dtype=np.float64)
    if signal.ndim != 1:
        raise ValueError(f"{name} must be [T], found {list(signal.shape)}")
    if not np.isfinite(signal).all():
        raise ValueError(f"{name} has values that are not finite")
    return signal


def _find_delay(reference, decoded, sample_rate, max_delay_ms):
    """By how many samples `decoded` comes later; negative if earlier."""
    shorter = min(len(reference), len(decoded))
    if shorter < SHORTEST_SECONDS * sample_rate:
        return 0
    if _is_silent(reference) or _is_silent(decoded):
        return 0
    # with less in common than three quarters, chance finds a likeness
    most = min(round(max_delay_ms * sample_rate / 1000), shorter // 4)
    lags = np.abs(_correlation(reference, decoded, most, FLATTENING))
    if lags.max() >= SHARP * np.sqrt(np.mean(np.square(lags))):
        return int(lags.argmax()) - most  # in either polarity
    hop = round(HOP_SECONDS * sample_rate)
    bands = [_band_energies(x, sample_rate) for x in (reference, decoded)]
    scale = np.prod([np.linalg.norm(x - x.mean(0)) for x in bands])
    lags = _correlation(*bands, most // hop)
    if lags.max() <= SAME_SPEECH * scale:
        return 0
    return round((_peak(lags) - most // hop) * hop)


def _is_silent(signal):
    return _power(signal) < 10 ** (SILENCE_DB / 10)


def _power(signal):
    return float(np.mean(np.square(signal))) if len(signal) else 0.0


def _correlation(first, second, most, flattening=0.0):
    """Cross-covariance at lags -most..most, float [2 most + 1].

    first [T, ...] and second [T', ...]; all axes but the first are summed.
    """
    length = fft.next_fast_len(max(len(first), len(second)) + most, real=True)
    spectra = [fft.rfft(x - x.mean(0), length, axis=0) for x in (first, second)]
    cross = np.conj(spectra[0]) * spectra[1]
    if flattening:
        size = np.abs(cross)
        least = max(1e-6 * size.max(), np.finfo(float).tiny)
        cross = cross / np.maximum(size, least) ** flattening
    lags = fft.irfft(cross.reshape(len(cross), -1).sum(1), length)
    return np.concatenate([lags[length - most :], lags[: most + 1]])


def _band_energies(signal, sample_rate):
    """Log energies [N, NUM_BANDS], one each hop.

    Where the signal has nothing, as above a low-pass filter, all are at the
    floor: no variance, no say in a correlation.
    """
    size = round(FRAME_SECONDS * sample_rate)
    hop = round(HOP_SECONDS * sample_rate)
    frames = sliding_window_view(np.pad(signal, size // 2), size)[::hop]
    # mel-spaced; the last edge ends the last band
    highest = min(HIGHEST_HZ, sample_rate / 2)
    ends = np.log1p(np.array([LOWEST_HZ, highest]) / 700)
    mel = 700 * np.expm1(np.linspace(*ends, NUM_BANDS + 1))
    edges = np.searchsorted(fft.rfftfreq(size, 1 / sample_rate), mel)
    window = np.hanning(size)
    # a minute of overlapping frames is large: some at a time
    parts = np.array_split(frames, len(frames) // 1000 + 1)
    spectra = (np.abs(fft.rfft(x * window)) ** 2 for x in parts)
    energy = np.concatenate(
        [np.add.reduceat(x[:, : edges[-1]], edges[:-1], 1) for x in spectra]
    )
    floor = energy.max() * 10 ** (-RANGE_DB / 10)
    return np.log(np.maximum(energy, floor))


def _peak(values):
    """Index of the maximum, between samples by a parabola."""
    i = int(values.argmax())
    if i in (0, len(values) - 1):
        return float(i)
    before, top, after = values[i - 1 : i + 2]
    return i + 0.5 * (before - after) / (before - 2 * top + after)


def _gain(reference, aligned, heard, sample_rate):
    """Factor that makes the RMS equal where the reference is active."""
    if _is_silent(reference):
        return 1.0
    count = max(round(len(reference) / (FRAME_SECONDS * sample_rate)), 1)
    frames = np.array_split(np.square(reference), count)
    power = np.concatenate([np.full(len(x), x.mean()) for x in frames])
    active = heard & (power >= power.max() * 10 ** (-RANGE_DB / 10))
    if _is_silent(aligned[active]):
        return 1.0
    gain = np.sqrt(_power(reference[active]) / _power(aligned[active]))
    highest = max(1.0, np.abs(reference).max())
    return float(min(gain, highest / np.abs(aligned).max()))
