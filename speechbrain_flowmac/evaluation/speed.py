"""How fast a system codes, and in how much memory.

A figure is worth something only where a system has a fresh process to itself,
a known number of threads, and nothing else runs. It stands for the machine
that it was taken on.
"""

import platform
import resource
import statistics
import sys
import time
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path

from speechbrain_flowmac.console import bar
from speechbrain_flowmac.evaluation.cache import (
    VERSION,
    package_versions,
    signal_digest,
)
from speechbrain_flowmac.evaluation.results import Machine, Speed, parse
from speechbrain_flowmac.evaluation.systems.base import digest
from speechbrain_flowmac.evaluation.workers import TaskError, Workers

REPEATS = 3
SECONDS = 30.0  # of audio
KIBIBYTE = 1024


def measure_systems(conditions, systems, names, threads, anew, complain):
    """Speeds of the codecs among `systems`, each in a process of its own.

    Arguments
    ---------
    conditions : Conditions
        Of the evaluation.
    systems : list of SystemInfo
        Each codec that can run gets its speed.
    names : list of str
        Of recordings that can be read.
    threads : int
        CPU threads.
    anew : bool
        Also measure what is known of this machine.
    complain : callable
        Told of what fails: `complain(error, what)`.
    """
    codecs = [
        system
        for system in systems
        if system.kind == "codec" and system.unavailable is None
    ]
    with bar(len(codecs), unit="system", desc="speed") as progress:
        for system in codecs:
            found = _known_or_measured(conditions, system, names, threads, anew)
            if isinstance(found, TaskError):
                complain(found, f"speed of {system.name}")
            else:
                system.speed = found
            progress.update()


def _known_or_measured(conditions, system, names, threads, anew):
    rate = system.sample_rate
    recordings = list(
        enough(conditions.recording(name, rate) for name in names)
    )
    key = digest(
        VERSION,
        system.name,
        system.fingerprint,
        threads,
        cpu(),
        platform.platform(),
        [signal_digest(recording.signal) for recording in recordings],
    )
    known = conditions.cache.get_json("speed", key)
    if known is not None and not anew:
        return parse(Speed, known, "cache")
    task = (conditions.make_system, system.name, recordings)
    with Workers(1, threads) as workers:
        ((_, found),) = workers.map(measure, [task])
    if not isinstance(found, TaskError):
        found.threads = threads
        conditions.cache.put_json("speed", key, asdict(found))
    return found


def measure(make_system, name, recordings, repeats=REPEATS):
    """Times a system, see `make_system`; to be called in a fresh process.

    Loading includes importing what the system needs. The first of the
    recordings, at the system's rate, is coded once before, to warm up; then all
    are, several times, and the median counts. Returns `Speed`.
    """
    start = time.perf_counter()
    system = make_system(name)
    load_seconds = time.perf_counter() - start
    system.decode(system.encode(recordings[0]), recordings[0])
    encoding, decoding = [], []
    for _ in range(repeats):
        start = time.perf_counter()
        coded = [system.encode(x) for x in recordings]
        middle = time.perf_counter()
        for code, recording in zip(coded, recordings, strict=True):
            system.decode(code, recording)
        encoding.append(middle - start)
        decoding.append(time.perf_counter() - middle)
    seconds = sum(x.seconds for x in recordings)
    return Speed(
        encode_rtf=statistics.median(encoding) / seconds,
        decode_rtf=statistics.median(decoding) / seconds,
        load_seconds=load_seconds,
        peak_memory_mb=peak_memory() / 1e6,
        seconds_coded=seconds,
    )


def enough(recordings, seconds=SECONDS):
    """Yields the first recordings, as many as make so many seconds; what is
    longer is cut there.

    Example
    -------
    >>> import numpy as np
    >>> from speechbrain_flowmac.evaluation.systems import Recording
    >>> recording = Recording("a.wav", np.zeros(8000), 8000)
    >>> len(list(enough([recording] * 9, seconds=2.5)))
    3
    """
    found = 0.0
    for recording in recordings:
        samples = round(seconds * recording.sample_rate)
        recording = recording._replace(signal=recording.signal[:samples])
        yield recording
        found += recording.seconds
        if found >= seconds:
            return


def peak_memory():
    """Most bytes that this process, or one that it started and that has
    ended, has used, the interpreter included."""
    unit = 1 if sys.platform == "darwin" else KIBIBYTE
    own, children = (
        unit * resource.getrusage(who).ru_maxrss
        for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
    )
    with suppress(OSError, ValueError):
        # in Linux, ru_maxrss starts with that of whoever started the process
        status = Path("/proc/self/status").read_text()
        (line,) = (x for x in status.splitlines() if x.startswith("VmHWM"))
        own = KIBIBYTE * int(line.split()[1])
    return max(own, children)


def cpu():
    """Name of the processor."""
    with suppress(OSError, StopIteration):
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        line = next(x for x in lines if x.startswith("model name"))
        return line.partition(":")[2].strip()
    return platform.processor() or platform.machine() or "unknown"


def machine(threads, packages):
    """What figures were taken on, and with."""
    return Machine(
        cpu(),
        threads,
        platform.platform(),
        {"python": platform.python_version(), **package_versions(packages)},
    )
