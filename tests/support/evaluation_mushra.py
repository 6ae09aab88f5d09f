"""A small evaluation to make listening tests of, and ratings of such tests."""

import csv
import json

import numpy as np
import soundfile
from corpus import speech_like

RATE = 24000


def make_report(folder, seconds=(1.3, 1.2, 1.4, 1.1), rate=RATE):
    """What `flowmac evaluate` writes, as far as a listening test needs it.

    The systems are "faint" (a sixth of the level, noisy), "hoarse" (clipped)
    and "absent" (did not run).
    """
    rng = np.random.default_rng(0)
    files, results = [], []
    for number, duration in enumerate(seconds):
        name = f"speaker/{number}"
        reference = speech_like(duration, number, rate).astype(float)
        noise = 0.02 * rng.standard_normal(len(reference))
        signals = {
            "reference": reference,
            "faint": reference / 6 + noise,
            "hoarse": np.clip(5 * reference, -0.9, 0.9),
        }
        paths = {}
        for system, signal in signals.items():
            paths[system] = f"audio/{name}/{system}.flac"
            path = folder / paths[system]
            path.parent.mkdir(parents=True, exist_ok=True)
            soundfile.write(path, signal, rate)
        files.append(
            {
                "name": f"{name}.wav",
                "seconds": len(reference) / rate,
                "audio": paths.pop("reference"),
            }
        )
        results += [
            {
                "file": f"{name}.wav",
                "system": system,
                "audio": path,
                "error": None,
            }
            for system, path in paths.items()
        ]
    kinds = {
        "reference": ("Reference", "reference", None),
        "lowpass:3.5": ("Low-pass 3.5 kHz", "anchor", None),
        "faint": ("Faint codec", "codec", None),
        "hoarse": ("Hoarse codec", "codec", None),
        "absent": ("Absent codec", "codec", "no such program: absent"),
    }
    systems = [
        {"name": name, "label": label, "kind": kind, "unavailable": why}
        for name, (label, kind, why) in kinds.items()
    ]
    text = json.dumps(
        {"version": 1, "systems": systems, "files": files, "results": results}
    )
    (folder / "results.json").write_text(text, encoding="utf-8")
    return folder


def change_report(folder, change):
    """Changes results.json by a function of its contents."""
    path = folder / "results.json"
    results = json.loads(path.read_text(encoding="utf-8"))
    change(results)
    path.write_text(json.dumps(results), encoding="utf-8")


HEADER = (
    "session_test_id",
    "listener",
    "session_uuid",
    "trial_id",
    "rating_stimulus",
    "rating_score",
    "rating_time",
    "rating_comment",
)


def write_ratings(path, ratings, test_id="test"):
    """A mushra.csv as write.php of 2022 and later writes it.

    `ratings` are (listener, item, stimulus, score).
    """
    with open(path, "w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(HEADER)
        for listener, item, stimulus, score in ratings:
            uuid = f"uuid-of-{listener}"
            writer.writerow(
                [test_id, listener, uuid, item, stimulus, score, 9000, ""]
            )
    return path
