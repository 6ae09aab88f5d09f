"""One recording through one system: coded, decoded, aligned, scored.

A reference is a file mixed down, at the rate and level of the evaluation,
rounded to 16 bits: what is coded, compared with, and heard in the report are
the same samples. So are what comes back from a system, brought to that rate,
to the reference's time and level and to 16 bits, what is scored, and what is
heard.
"""

import math
import os
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import lru_cache
from io import BytesIO
from pathlib import Path

import numpy as np
import soundfile
import soxr
import torch

from speechbrain_flowmac.audio import open_audio
from speechbrain_flowmac.console import one_line
from speechbrain_flowmac.evaluation.alignment import align
from speechbrain_flowmac.evaluation.cache import (
    VERSION,
    Cache,
    function_digest,
    signal_digest,
    source_digest,
)
from speechbrain_flowmac.evaluation.results import REFERENCE, File, Result
from speechbrain_flowmac.evaluation.systems import Recording, make_system
from speechbrain_flowmac.evaluation.systems.base import (
    SAMPLE_RATE,
    digest,
    to_pcm16,
)
from speechbrain_flowmac.files import atomic_write
from speechbrain_flowmac.lobes.features import num_frames
from speechbrain_flowmac.metrics import REFERENCE_LEVEL_DB, to_level

CACHE_FOLDER = "cache"


@dataclass(frozen=True)
class Conditions:
    """Under which every recording meets every system.

    Arguments
    ---------
    data, output : Path
        Folders of the recordings and of all that is written.
    metrics : dict
        name: `Metric`.
    sample_rate : int
        Of references and scores, in Hz.
    level_db : float or None
        RMS of references relative to full scale; None for that of the files.
    make_system : Callable
        From a name to a `System`; a function of a module.
    """

    data: Path
    output: Path
    metrics: dict
    sample_rate: int = SAMPLE_RATE
    level_db: float | None = REFERENCE_LEVEL_DB
    make_system: Callable = make_system
    metric_digests: dict = field(init=False)

    def __post_init__(self):
        digests = {
            name: digest(
                function_digest(metric.function, metric.packages),
                source_digest(os.environ.get(metric.variable or "", "")),
            )
            for name, metric in self.metrics.items()
        }
        object.__setattr__(self, "metric_digests", digests)

    @property
    def cache(self):
        """What earlier runs left."""
        return Cache(self.output / CACHE_FOLDER)

    def reference(self, name):
        """What systems are compared with: float64 [T], of 16 bits. AudioFileError
        if the file cannot be read, or has no samples or no numbers."""
        return _reference(self.data / name, self.sample_rate, self.level_db)

    def recording(self, name, sample_rate):
        """What a system of that rate is given: a `Recording`."""
        signal = resample(self.reference(name), self.sample_rate, sample_rate)
        return Recording(name, np.clip(signal, -1.0, 1.0), sample_rate)

    def write_audio(self, path, signal):
        """Writes 16-bit FLAC to a path relative to `output`."""
        packed = BytesIO()
        soundfile.write(
            packed, to_pcm16(signal), self.sample_rate, format="FLAC"
        )
        path = self.output / path
        path.parent.mkdir(parents=True, exist_ok=True)
        with atomic_write(path) as file:
            file.write(packed.getvalue())


# A worker scores what it has coded: it needs a reference, and the system that
# it has loaded, several times on end
@lru_cache(maxsize=1)
def _reference(path, sample_rate, level_db):
    with open_audio(path, sample_rate) as audio:
        signal = torch.cat(list(audio.blocks()), 1)[0].double().numpy()
    if level_db is not None:
        signal = to_level(signal, level_db)
    return round_to_16_bits(signal)


@lru_cache(maxsize=1)
def _system(make, name):
    return make(name)


def round_to_16_bits(signal):
    """The samples that a 16-bit file keeps; what is louder is clipped."""
    return to_pcm16(signal) / 32768


def resample(signal, sample_rate, wanted):
    """A signal [T] at another rate: [ceil(T * wanted / sample_rate)].

    Example
    -------
    >>> len(resample(np.zeros(4), 24000, 8000))
    2
    """
    if wanted == sample_rate:
        return signal
    length = num_frames(len(signal) * wanted, sample_rate)
    resampled = soxr.resample(signal, sample_rate, wanted)[:length]
    # a resampler may end a sample early
    return np.pad(resampled, (0, length - len(resampled)))


def prepare(conditions, name, audio):
    """Reads a recording and writes its reference to `audio`, a path relative to
    the output; returns a `File`."""
    reference = conditions.reference(name)
    conditions.write_audio(audio, reference)
    return File(name, len(reference) / conditions.sample_rate, audio)


def evaluate_one(conditions, system, name, audio):
    """One recording, by name, through one `SystemInfo` that can run.

    The decoded audio is written to `audio`, relative to the output. Returns a
    `Result`; and the tokens with the size of their codebooks, or None.
    """
    reference = conditions.reference(name)
    found = Result(name, system.name, audio=audio)
    tokens = None
    if system.name == REFERENCE:
        signal, found.delay_ms, found.gain_db = reference, 0.0, 0.0
    else:
        decoded = _decoded(conditions, system, name, reference)
        signal, found.delay_ms, found.gain_db = align(
            reference,
            resample(
                decoded["signal"].astype(np.float64),
                system.sample_rate,
                conditions.sample_rate,
            ),
            conditions.sample_rate,
        )
        signal = round_to_16_bits(signal)
        if "payload_bits" in decoded:
            found.payload_bits = int(decoded["payload_bits"])
            seconds = len(reference) / conditions.sample_rate
            found.kbps = found.payload_bits / seconds / 1000
        if "tokens" in decoded:
            tokens = decoded["tokens"], int(decoded["codebook_size"])
    conditions.write_audio(audio, signal)
    found.scores, found.metric_errors = _scores(conditions, reference, signal)
    return found, tokens


def _decoded(conditions, about, name, reference):
    """What a system makes of a recording, as arrays to keep."""
    cache = conditions.cache
    # the name counts: a folder's files are found by it
    key = digest(
        VERSION,
        signal_digest(reference),
        conditions.sample_rate,
        name,
        about.name,
        about.fingerprint,
    )
    kept = cache.get_arrays("decoded", key)
    if kept is not None:
        return kept
    system = _system(conditions.make_system, about.name)
    recording = conditions.recording(name, system.sample_rate)
    coded = system.encode(recording)
    signal = np.asarray(system.decode(coded, recording), np.float32)
    if signal.ndim != 1:
        raise ValueError(f"it decoded to shape {signal.shape}, not [T]")
    if not np.isfinite(signal).all():
        raise ValueError("it decoded to samples that are no numbers")
    kept = {"signal": signal}
    if coded.payload_bits is not None:
        kept["payload_bits"] = np.array(coded.payload_bits)
    tokens = system.tokens(coded)
    if tokens is not None:
        kept["tokens"], kept["codebook_size"] = map(np.asarray, tokens)
    cache.put_arrays("decoded", key, **kept)
    return kept


def _scores(conditions, reference, signal):
    """Scores by metric, None for NaN; and errors of metrics that failed."""
    cache = conditions.cache
    rate = conditions.sample_rate
    key = digest(VERSION, signal_digest(reference), signal_digest(signal), rate)
    kept = cache.get_json("scores", key) or {}
    known = len(kept)
    scores, errors = {}, {}
    for name, metric in conditions.metrics.items():
        entry = f"{name} {conditions.metric_digests[name]}"
        if entry not in kept:
            try:
                score = float(metric.function(reference, signal, rate))
            except Exception as error:
                scores[name], errors[name] = None, one_line(error)
                continue
            kept[entry] = score if math.isfinite(score) else None
        scores[name] = kept[entry]
    if len(kept) > known:
        cache.put_json("scores", key, kept)
    return scores, errors
