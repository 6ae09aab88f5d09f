"""A MUSHRA listening test of the systems of an evaluation, for webMUSHRA.

ITU-R BS.1534-3 sets the form: a known reference, and hidden among the systems
the reference itself and two low-passed anchors, rated from 0 to 100. webMUSHRA
(Schoeffler et al., 2018, doi:10.5334/jors.187) runs it in browsers.

The anchors are made here, not by webMUSHRA's `createAnchor35` and
`createAnchor70`: those filter in the browser, at the rate of the listener's
device, and stop the test at rates that they have no filter for, such as
96 kHz. So all listeners hear the same anchors, as loud as the reference.
"""

import json
import math
import random
import re
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

import numpy as np
import soundfile
import soxr

from speechbrain_flowmac.evaluation.results import (
    REFERENCE,
    ReportError,
    find,
    load_results,
    parse,
    read_json,
)

LOW_ANCHOR = "lowpass:3.5"
MID_ANCHOR = "lowpass:7"
LABELS = {
    REFERENCE: "Hidden reference",
    LOW_ANCHOR: "Anchor 3.5 kHz",
    MID_ANCHOR: "Anchor 7 kHz",
}
TRAINING = "training"  # id of the page whose ratings do not count

# BS.1534-3 allows 12 signals: nine systems, two anchors, hidden reference
MAX_SYSTEMS = 9
# and stimuli of about 10 s, at most 12; less than one says little
SECONDS = (1.0, 12.0)

SAMPLE_RATE = 48000  # what most devices run at, so that no browser resamples
LOUDNESS = -23.0  # LUFS, of every stimulus (EBU R 128)
PEAK = 10 ** (-1 / 20)  # highest sample, which leaves room for what is between
LENGTH_TOLERANCE = 0.1  # seconds that a decoded file may be longer or shorter
MAX_FILE_RATE = 192000  # in Hz: what a small file may unfold to has an end

TEMPLATES = Path(__file__).with_name("webmushra")


class MushraError(ReportError):
    """An evaluation that no listening test can be made of."""


@dataclass
class Stimulus:
    """What listeners hear under a code: a system, by a file on the server."""

    system: str
    audio: str = ""


@dataclass
class Item:
    """An utterance, and its stimuli by their codes."""

    stimuli: dict[str, Stimulus]
    file: str = ""


@dataclass
class Key:
    """What the stimuli of a test are: labels by system, items by page."""

    test_id: str
    systems: dict[str, str]
    items: dict[str, Item]
    title: str = ""
    seed: int = 0
    version: int = 1


def read_key(path):
    """Reads the key of a test, a `Key`; ReportError if it is none."""
    try:
        return parse(Key, read_json(path), "it")
    except ReportError as error:
        raise ReportError(
            f"{path} is no key of flowmac mushra: {error}"
        ) from error


def systems_under_test(results, names=None):
    """Labels, by name, of the systems that listeners will rate beside reference
    and anchors: those named, or all that ran.

    Example
    -------
    >>> from speechbrain_flowmac.evaluation.results import (
    ...     Results,
    ...     SystemInfo,
    ... )
    >>> systems_under_test(Results([SystemInfo("opus:6", "Opus")], [], []))
    {'opus:6': 'Opus'}
    """
    known = {
        system.name: system
        for system in results.systems
        if system.name not in LABELS
    }
    if names is None:
        names = [n for n, x in known.items() if x.unavailable is None]
    for name in names:
        if name not in known:
            raise MushraError(
                f"no system {name!r} in the evaluation, it has "
                f"{', '.join(known) or 'none'} (reference and anchors are "
                "always in the test)"
            )
        if known[name].unavailable is not None:
            raise MushraError(
                f"system {name} did not run: {known[name].unavailable}"
            )
    if not 1 <= len(set(names)) <= MAX_SYSTEMS:
        raise MushraError(
            f"a MUSHRA test takes 1 to {MAX_SYSTEMS} systems beside reference "
            f"and anchors, not {len(set(names))}; name them"
        )
    return {name: known[name].label for name in names}


def usable_files(results, systems):
    """Files of suitable length that all systems decoded: by name, in order, the
    paths of their audio by system, the reference included."""
    audio = {}
    for result in results.results:
        if result.error is None and result.audio:
            audio[result.file, result.system] = result.audio
    usable = {}
    for file in sorted(results.files, key=lambda file: file.name):
        paths = {REFERENCE: file.audio}
        paths |= {name: audio.get((file.name, name)) for name in systems}
        if SECONDS[0] <= file.seconds <= SECONDS[1] and all(paths.values()):
            usable[file.name] = paths
    return usable


def loudness(signal, sample_rate):
    """Integrated loudness in LUFS (ITU-R BS.1770-4) of a signal [T] of at
    least 0.4 s; minus infinity for silence.

    Example
    -------
    >>> tone = np.sin(2 * np.pi * 997 * np.arange(48000) / 48000)
    >>> round(loudness(tone, 48000), 1)  # BS.1770: -3.01
    -3.1
    """
    import torch
    from torchaudio.functional import loudness as measure

    peak = float(np.abs(signal).max())
    if peak == 0.0:
        return -math.inf
    # torchaudio's filters clip at 1, which the weighting could reach
    scaled = torch.from_numpy(signal[None] * (0.25 / peak))
    return float(measure(scaled, sample_rate)) + 20 * math.log10(4 * peak)


def match_loudness(signals, sample_rate):
    """Brings signals [T], by name, to `LOUDNESS`, or lower together if one had
    clipped."""
    matched = {}
    for name, signal in signals.items():
        level = loudness(signal, sample_rate)
        if not math.isfinite(level):
            raise MushraError(f"{name} is silent")
        matched[name] = signal * 10 ** ((LOUDNESS - level) / 20)
    peak = max(float(np.abs(signal).max()) for signal in matched.values())
    scale = min(1.0, PEAK / peak)
    return {name: signal * scale for name, signal in matched.items()}


def read_signal(path):
    """Reads audio at the rate of the test, float64 [T]; channels are mixed."""
    try:
        info = soundfile.info(path)
        if info.duration > SECONDS[1] + LENGTH_TOLERANCE:
            raise MushraError(f"{path} lasts {info.duration:.2f} s")
        if info.samplerate > MAX_FILE_RATE:
            raise MushraError(f"{path} has {info.samplerate} Hz")
        signal, rate = soundfile.read(path, always_2d=True)
    except soundfile.LibsndfileError as error:
        raise MushraError(f"cannot read {path}: {error}") from error
    return soxr.resample(signal.mean(1), rate, SAMPLE_RATE)


def anchors(reference):
    """The low and the mid anchor of BS.1534-3 of a reference [T] at
    `SAMPLE_RATE`, by name."""
    from speechbrain_flowmac.evaluation.systems import Recording, make_system

    made = {}
    for name in (LOW_ANCHOR, MID_ANCHOR):
        system = make_system(name)
        rate = system.sample_rate
        signal = soxr.resample(reference, SAMPLE_RATE, rate)
        recording = Recording(name, signal, rate)
        signal = system.decode(system.encode(recording), recording)
        made[name] = soxr.resample(signal, rate, SAMPLE_RATE)
    return made


def stimuli(folder, paths):
    """All stimuli of one item, ready to be written: arrays [T] by system, of
    reference, anchors and systems. `paths` are from `usable_files`."""
    signals = {name: read_signal(find(folder, x)) for name, x in paths.items()}
    reference = signals.pop(REFERENCE)
    total = len(reference)
    for name, signal in signals.items():
        if abs(len(signal) - total) > LENGTH_TOLERANCE * SAMPLE_RATE:
            raise MushraError(
                f"{paths[name]} lasts {len(signal) / SAMPLE_RATE:.2f} s, its "
                f"reference {total / SAMPLE_RATE:.2f} s"
            )
    signals = {REFERENCE: reference, **anchors(reference), **signals}
    # webMUSHRA wants the same number of samples everywhere
    signals = {
        name: np.pad(x[:total], (0, max(0, total - len(x))))
        for name, x in signals.items()
    }
    try:
        return match_loudness(signals, SAMPLE_RATE)
    except MushraError as error:
        raise MushraError(f"{paths[REFERENCE]}: {error}") from error


def render(name, **values):
    """A file of a test, of its template, as text."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(
        loader=FileSystemLoader(TEMPLATES),
        undefined=StrictUndefined,
        trim_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters["json"] = partial(json.dumps, ensure_ascii=False)
    return environment.get_template(name).render(values)


def make_test(
    report, target, systems=None, utterances=10, seed=0, title="Listening test"
):
    """Writes a listening test for webMUSHRA.

    The same arguments give the same files. Listeners can tell a system
    neither from the name of a file nor from that of a stimulus: the names of
    files are random, and systems change their stimulus from item to item.

    Arguments
    ---------
    report : str or Path
        Output of `flowmac evaluate`.
    target : str or Path
        Existing, empty folder. Gets `webmushra/`, which goes to the server,
        `key.json`, which must not, and a README.
    systems : list of str or None
        Names of systems; None for all.
    utterances : int
        Items of the test. One more is for practice, or one of them if there
        are no more.
    seed : int
        Of what is drawn at random.
    title : str
        Shown to listeners; its letters and digits name the test.

    Returns
    -------
    Key
    """
    report, target = Path(report), Path(target)
    results = load_results(report)
    labels = systems_under_test(results, systems)
    usable = usable_files(results, labels)
    if len(usable) < utterances:
        raise MushraError(
            f"{utterances} utterances asked for, {len(usable)} of "
            f"{len(results.files)} can be used: {SECONDS[0]:g} to "
            f"{SECONDS[1]:g} s long, with audio of all systems"
        )
    rng = random.Random(seed)
    drawn = rng.sample(list(usable), min(len(usable), utterances + 1))
    test_id = re.sub("[^a-z0-9]+", "-", title.lower()).strip("-") or "test"
    served = target / "webmushra"
    audio = served / "configs" / "resources" / test_id
    audio.mkdir(parents=True)
    items = {}

    def add(page_id, file):
        signals = stimuli(report, usable[file])
        # the reference keeps its name, by which webMUSHRA reports it
        others = rng.sample([*signals][1:], len(signals) - 1)
        codes = {f"C{i + 1}": name for i, name in enumerate(others)}
        paths, what = {}, {}
        for code, name in {REFERENCE: REFERENCE, **codes}.items():
            path = audio / f"{rng.getrandbits(64):016x}.wav"
            soundfile.write(path, signals[name], SAMPLE_RATE, "PCM_16")
            paths[code] = path.relative_to(served).as_posix()
            what[code] = Stimulus(name, paths[code])
        items[page_id] = Item(what, file)
        heading = "Practice" if page_id == TRAINING else "Listening test"
        return {"id": page_id, "heading": heading, "paths": paths}

    training = add(TRAINING, drawn[-1])
    key = Key(test_id, {**LABELS, **labels}, items, title, seed)
    values = {
        "title": title,
        "test_id": test_id,
        "training": training,
        "pages": [
            add(f"item-{number + 1:02}", file)
            for number, file in enumerate(drawn[:utterances])
        ],
        "conditions": len(key.systems),
        "rate": SAMPLE_RATE,
        "loudness": f"{LOUDNESS:g}",
    }
    texts = {
        served / "configs" / f"{test_id}.yaml": render("config.yaml", **values),
        target / "key.json": json.dumps(asdict(key), indent=2) + "\n",
        target / "README.md": render("README.md", **values),
    }
    for path, text in texts.items():
        path.write_text(text, encoding="utf-8")
    return key
