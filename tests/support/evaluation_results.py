"""Made-up results of an evaluation, with real sound and drawings."""

import numpy as np
import soundfile
from corpus import speech_like

from speechbrain_flowmac.evaluation.results import Results, parse

SAMPLE_RATE = 24000

METRICS = [
    ("pesq", "PESQ-WB", 2, True, "intrusive"),
    ("estoi", "ESTOI", 3, True, "intrusive"),
    ("visqol", "ViSQOL", 2, True, "intrusive"),
    ("warpq", "WARP-Q", 2, False, "intrusive"),
    ("distillmos", "DistillMOS", 2, True, "reference_free"),
    ("dnsmos", "DNSMOS OVRL", 2, True, "reference_free"),
]

# name, label, kind, rate in kbps, mean of each metric
SYSTEMS = [
    (
        "flowmac:8",
        "FlowMAC 3.0 kbps",
        "codec",
        3.0,
        [2.16, 0.805, 3.03, 1.94, 3.18, 2.96],
    ),
    (
        "flowmac:4",
        "FlowMAC 1.5 kbps",
        "codec",
        1.5,
        [1.91, 0.763, 2.71, 2.08, 3.02, 2.91],
    ),
    (
        "opus:6",
        "Opus 6 kbps",
        "codec",
        6.0,
        [1.92, 0.790, 2.37, 2.32, 2.53, 2.62],
    ),
    (
        "codec2:3200",
        "Codec2 3.2 kbps",
        "codec",
        3.2,
        [1.79, 0.790, 2.66, 2.27, 2.86, 2.79],
    ),
    (
        "lowpass:3.5",
        "Low-pass 3.5 kHz",
        "anchor",
        None,
        [3.90, 0.931, 3.41, 1.62, 3.11, 2.83],
    ),
    (
        "reference",
        "Reference",
        "reference",
        None,
        [4.64, 1.0, 4.59, 0.56, 4.07, 3.14],
    ),
]


def made_up_sound(system, file):
    """A speech-like utterance, damaged in another way for each system.

    Arguments
    ---------
    system : int
        Of `SYSTEMS`; the last one is the reference.
    file : int
        Which utterance.

    Returns
    -------
    numpy.ndarray
        float32 [T] at 24 kHz.
    """
    signal = speech_like(1.0, seed=file)
    if system == len(SYSTEMS) - 1:
        return signal
    spectrum = np.fft.rfft(signal)
    spectrum[round(len(spectrum) * (0.9 - 0.13 * system)) :] = 0
    noise = np.random.default_rng(system).standard_normal(len(signal))
    return np.fft.irfft(spectrum, len(signal)) + 0.002 * system * noise


def make_results(folder, names=("a/1.wav", "a/2.wav"), sound=made_up_sound):
    """Writes sound and drawings; returns results that name them.

    Arguments
    ---------
    folder : pathlib.Path
        Where the files go.
    names : sequence of str
        Of the utterances.
    sound : Callable
        `sound(system, file) -> numpy.ndarray`, [T] at 24 kHz.

    Returns
    -------
    Results
    """
    rng = np.random.default_rng(0)
    results = {
        "version": 1,
        "command": "flowmac evaluate speech -o out --systems flowmac:8 opus:6",
        "machine": {
            "cpu": "Example CPU at 2.5 GHz",
            "threads": 1,
            "platform": "Linux x86-64",
            "versions": {"python": "3.11.2", "torch": "2.11.0"},
        },
        "metrics": [
            dict(
                name=name,
                heading=heading,
                decimals=decimals,
                higher_is_better=higher,
                kind=kind,
            )
            for name, heading, decimals, higher, kind in METRICS
        ],
        "systems": [],
        "files": [],
        "results": [],
        "summary": [],
        "plots": _plots(folder),
    }
    for i, (name, label, kind, kbps, means) in enumerate(SYSTEMS):
        results["systems"].append(_system(i, name, label, kind, kbps))
        for (metric, _, decimals, _, _), mean in zip(
            METRICS, means, strict=True
        ):
            spread = 0.03 * mean * rng.uniform(0.5, 1.5)
            results["summary"].append(
                dict(
                    system=name,
                    metric=metric,
                    mean=mean,
                    low=round(mean - spread, decimals + 1),
                    high=round(mean + spread, decimals + 1),
                    count=len(names),
                )
            )
    results["systems"].append(
        _system(9, "lc3:16000", "LC3 16 kbps", "codec", None)
        | {"unavailable": "elc3 is not installed (package liblc3-tools)"}
        | {"speed": None}
    )
    for j, file in enumerate(names):
        for i, (system, _, _, kbps, means) in enumerate(SYSTEMS):
            path = f"audio/{j}/{system.replace(':', '-')}.flac"
            signal = sound(i, j)
            _write(folder / path, signal)
            seconds = len(signal) / SAMPLE_RATE
            results["results"].append(
                dict(
                    file=file,
                    system=system,
                    payload_bits=kbps and round(1000 * kbps * seconds),
                    kbps=kbps,
                    delay_ms=6.5 if system == "opus:6" else 0.0,
                    gain_db=round(rng.normal(0, 0.3), 2),
                    scores={
                        metric[0]: round(mean * rng.uniform(0.9, 1.1), 4)
                        for metric, mean in zip(METRICS, means, strict=True)
                    },
                    audio=path,
                    error=None,
                )
            )
        # the reference is the last
        results["files"].append(dict(name=file, seconds=seconds, audio=path))
    return parse(Results, results, "it")


def _system(i, name, label, kind, kbps):
    speed = tokens = None
    if kind == "codec":
        speed = dict(
            encode_rtf=0.031 / (i + 1),
            decode_rtf=0.118 / (i + 1) ** 2,
            load_seconds=1.2,
            peak_memory_mb=412.0,
            threads=1,
            seconds_coded=30.0,
        )
    if name.startswith("flowmac"):
        codebooks = 8 if name.endswith("8") else 4
        tokens = dict(
            codebook_size=256,
            usage=[1 - 0.01 * k for k in range(codebooks)],
            entropy_bits=[7.4 + 0.05 * k for k in range(codebooks)],
            bits_spent=8.0,
        )
    return dict(
        name=name,
        label=label,
        kind=kind,
        sample_rate=SAMPLE_RATE,
        unavailable=None,
        kbps=kbps,
        speed=speed,
        tokens=tokens,
        options={},
    )


def _plots(folder):
    drawing = (
        '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 60 40">'
        '<path d="M5 35 L20 20 L55 5" fill="none" stroke="blue"/></svg>'
    )
    plots = []
    for kind in ("Quality against bit rate", "Spread over files"):
        for name, heading, *_ in METRICS:
            path = f"plots/{kind.split()[0].lower()}-{name}.svg"
            (folder / path).parent.mkdir(parents=True, exist_ok=True)
            (folder / path).write_text(drawing)
            plots.append({"title": f"{kind}: {heading}", "path": path})
    return plots


def _write(path, signal):
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, signal, SAMPLE_RATE, subtype="PCM_16")
