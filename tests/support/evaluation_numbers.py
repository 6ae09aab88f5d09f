"""Results of an evaluation with numbers alone, of any number of files."""

import numpy as np

from speechbrain_flowmac.evaluation.results import Results, parse
from speechbrain_flowmac.evaluation.statistics import summarise

# name, heading, decimals, higher is better, kind
METRICS = [
    ("pesq", "PESQ-WB", 2, True, "intrusive"),
    ("warpq", "WARP-Q", 2, False, "intrusive"),
    ("distillmos", "DistillMOS", 2, True, "reference_free"),
]

# name, label, kind, kbps, options, the mean of each metric
SYSTEMS = [
    ("flowmac:8", "FlowMAC 3.0 kbps, 1 step", "codec", 3.0)
    + ({"codebooks": 8, "steps": 1}, (2.16, 1.94, 3.18)),
    ("flowmac:8:steps=4", "FlowMAC 3.0 kbps, 4 steps", "codec", 3.0)
    + ({"codebooks": 8, "steps": 4}, (2.1, 1.92, 3.3)),
    ("flowmac:4", "FlowMAC 1.5 kbps, 1 step", "codec", 1.5)
    + ({"codebooks": 4, "steps": 1}, (1.91, 2.08, 3.02)),
    ("opus:6", "Opus 6 kbps", "codec", 6.0, {}, (1.92, 2.32, 2.53)),
    ("opus:12", "Opus 12 kbps", "codec", 12.0, {}, (3.76, 1.55, 3.73)),
    ("lowpass:3.5", "Low-pass 3.5 kHz", "anchor", None, {}, (3.9, 1.62, 3.1)),
    ("reference", "Reference", "reference", None, {}, (4.64, 0.56, 4.07)),
]

MISSING = dict(
    name="lc3:16",
    label="LC3 16 kbps",
    kind="codec",
    sample_rate=16000,
    unavailable="elc3 is not installed (package liblc3-tools)",
    kbps=None,
    speed=None,
    tokens=None,
    options={},
)


def number_results(num_files, systems=SYSTEMS, seed=0):
    """Results with their summary.

    Arguments
    ---------
    num_files : int
        How many files there are; each is harder or easier for all systems.
    systems : list of tuple
        As `SYSTEMS`.
    seed : int
        Of the scores.

    Returns
    -------
    Results
    """
    rng = np.random.default_rng(seed)
    ease = rng.normal(1.0, 0.12, num_files)
    results = {
        "version": 1,
        "command": "flowmac evaluate speech --output out",
        "machine": {},
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
        "systems": [_system(*about[:5]) for about in systems] + [MISSING],
        "files": [
            {"name": f"a/{i}.wav", "seconds": 5.0, "audio": f"{i}.flac"}
            for i in range(num_files)
        ],
        "results": [
            _result(f"a/{i}.wav", name, kbps, means, ease[i], rng)
            for i in range(num_files)
            for name, _, _, kbps, _, means in systems
        ],
        "plots": [],
    }
    results = parse(Results, results, "it")
    results.summary = summarise(results)
    return results


def _system(name, label, kind, kbps, options):
    speed = tokens = None
    if kind == "codec":
        speed = dict(
            encode_rtf=0.0123 * (1 + len(name)),
            decode_rtf=0.05 * (1 + options.get("steps", 0)),
            load_seconds=1.25,
            peak_memory_mb=412.0,
            threads=1,
            seconds_coded=30.0,
        )
    if options:
        tokens = dict(
            codebook_size=256,
            usage=[1.0] * options["codebooks"],
            entropy_bits=[7.5] * options["codebooks"],
            bits_spent=8.0,
        )
    return dict(
        name=name,
        label=label,
        kind=kind,
        sample_rate=24000,
        unavailable=None,
        kbps=kbps,
        speed=speed,
        tokens=tokens,
        options=options,
    )


def _result(file, system, kbps, means, ease, rng):
    scores = {
        metric[0]: float(mean * ease * rng.normal(1, 0.03))
        for metric, mean in zip(METRICS, means, strict=True)
    }
    return dict(
        file=file,
        system=system,
        payload_bits=kbps and round(5000 * kbps),
        kbps=kbps,
        delay_ms=float(rng.normal()),
        gain_db=float(rng.normal()),
        scores=scores,
        audio=None,
        error=None,
    )
