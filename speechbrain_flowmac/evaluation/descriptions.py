"""What systems say of themselves, before they code anything."""

from speechbrain_flowmac.console import UsageError, one_line
from speechbrain_flowmac.evaluation.results import REFERENCE, SystemInfo
from speechbrain_flowmac.evaluation.systems import UnavailableError
from speechbrain_flowmac.evaluation.workers import TaskError, Workers


def describe(names, conditions, threads=1):
    """What the results say of each system before anything is coded: `SystemInfo`
    of the reference, then of each system once; UsageError for a name that means
    nothing.

    Each is made once, in another process: some need much memory.
    """
    names = list(dict.fromkeys(names))
    tasks = [(conditions.make_system, name) for name in names]
    found = {}
    with Workers(1, threads) as workers:
        for number, about in workers.map(_describe, tasks):
            if isinstance(about, UsageError):
                raise about
            if isinstance(about, TaskError):
                raise TaskError(f"{names[number]}: {about}", about.where)
            found[names[number]] = about
    rate = conditions.sample_rate
    reference = SystemInfo(REFERENCE, "Reference", "reference", rate)
    return [reference, *found.values()]


def _describe(make_system, name):
    try:
        system = make_system(name)
    except UnavailableError as error:
        why = one_line(error).removeprefix(f"{name}: ")
        return SystemInfo(name, name, unavailable=why)
    except ValueError as error:
        return UsageError(one_line(error))
    return SystemInfo(
        name,
        system.label,
        system.kind,
        system.sample_rate,
        options=system.options,
        fingerprint=system.fingerprint,
    )
