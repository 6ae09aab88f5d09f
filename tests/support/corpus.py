"""Synthetic speech-like audio and corpora, made with numpy alone."""

from pathlib import Path

import numpy as np
import soundfile

# Centre frequencies and bandwidths in Hz of a few vowels.
_VOWELS = np.array(
    [
        [(730, 90), (1090, 110), (2440, 170)],
        [(270, 60), (2290, 120), (3010, 190)],
        [(300, 60), (870, 100), (2240, 160)],
        [(530, 80), (1840, 110), (2480, 170)],
    ],
    dtype=float,
)


def speech_like(duration, seed, sample_rate=24000):
    """Voiced glides with formants, noise bursts and pauses.

    Arguments
    ---------
    duration : float
        Duration in seconds.
    seed : int
        Seed of the utterance; the same seed gives the same samples.
    sample_rate : int
        Sampling rate in Hz.

    Returns
    -------
    numpy.ndarray
        Samples as float32 [T], T = round(duration * sample_rate), with an
        absolute peak below 0.9.

    Example
    -------
    >>> speech_like(0.5, seed=1).shape
    (12000,)
    """
    rng = np.random.default_rng(seed)
    total = round(duration * sample_rate)
    pitch = rng.uniform(90.0, 240.0)
    pieces, length = [], 0
    while length < total:
        seconds = rng.uniform(0.08, 0.3)
        kind = rng.choice(["voiced", "noise", "pause"], p=[0.7, 0.2, 0.1])
        count = round(seconds * sample_rate)
        # An utterance starts with its voice, so that none is silent.
        if kind == "voiced" or not pieces:
            piece = _voiced(count, pitch, sample_rate, rng)
        elif kind == "noise":
            piece = 0.2 * np.diff(rng.standard_normal(count + 1))
        else:
            piece = np.zeros(count)
        pieces.append(piece * np.hanning(count))
        length += count
    signal = np.concatenate([np.zeros(0), *pieces])[:total]
    signal += 1e-4 * rng.standard_normal(total)
    peak = np.abs(signal).max(initial=1e-9)
    return (signal * (rng.uniform(0.4, 0.85) / peak)).astype(np.float32)


def _voiced(count, pitch, sample_rate, rng):
    """Harmonics of a gliding pitch, shaped by the formants of a vowel."""
    glide = np.linspace(*(pitch * rng.uniform(0.8, 1.25, 2)), count)
    phase = 2 * np.pi * np.cumsum(glide) / sample_rate
    harmonics = np.arange(1, int(0.4 * sample_rate / glide.max()))
    frequency = harmonics * glide.mean()
    vowel = _VOWELS[rng.integers(len(_VOWELS))]
    envelope = sum(
        1.0 / (1.0 + ((frequency - centre) / width) ** 2)
        for centre, width in vowel
    )
    weights = envelope / np.sqrt(harmonics)
    return weights @ np.sin(harmonics[:, None] * phase)


def make_libritts(folder, splits=None, duration=1.0, seed=0):
    """Write a small corpus in the layout of LibriTTS.

    Arguments
    ---------
    folder : str
        Folder of the corpus; splits become folders in it.
    splits : dict
        Number of utterances of each split. Two utterances share a speaker.
        By default 4 of train-clean-100, 2 of dev-clean and 2 of test-clean.
    duration : float
        Duration of every utterance in seconds.
    seed : int
        Seed of the first utterance.

    Returns
    -------
    pathlib.Path
        The folder.
    """
    if splits is None:
        splits = {"train-clean-100": 4, "dev-clean": 2, "test-clean": 2}
    folder = Path(folder)
    for index, (split, count) in enumerate(splits.items()):
        for i in range(count):
            speaker, chapter = str(10 * (index + 1) + i // 2), "100"
            name = f"{speaker}_{chapter}_{i:06d}_000000"
            path = folder / split / speaker / chapter / f"{name}.wav"
            path.parent.mkdir(parents=True, exist_ok=True)
            signal = speech_like(duration, seed + 1000 * index + i)
            soundfile.write(path, signal, 24000, subtype="PCM_16")
            path.with_suffix(".normalized.txt").write_text(
                f"Utterance {i} of {split}.\n", encoding="utf-8"
            )
    return folder
