"""What systems say of themselves, before they code anything."""

from speechbrain_flowmac.console import UsageError, one_line
from speechbrain_flowmac.evaluation.results import REFERENCE
from speechbrain_flowmac.evaluation.systems import UnavailableError
from speechbrain_flowmac.evaluation.workers import TaskError, Workers


def describe(names, conditions, threads=1):
    """What the results say of each system before anything is coded.

    Each is made once, in another process: some need much memory.

    Arguments
    ---------
    names : iterable of str
        Of the systems.
    conditions : Conditions
        Of the evaluation.
    threads : int
        CPU threads.

    Returns
    -------
    list of dict
        First of the reference, then of each system once; those that can run
        have a fingerprint.

    Raises
    ------
    UsageError
        For a name that means nothing.
    """
    reference = _blank_system(REFERENCE)
    reference |= {"label": "Reference", "kind": "reference"}
    reference |= {"sample_rate": conditions.sample_rate}
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
    return [reference, *found.values()]


def _blank_system(name):
    return {
        "name": name,
        "label": name,
        "kind": "codec",
        "sample_rate": None,
        "unavailable": None,
        "kbps": None,
        "speed": None,
        "tokens": None,
        "options": {},
    }


def _describe(make_system, name):
    about = _blank_system(name)
    try:
        system = make_system(name)
    except UnavailableError as error:
        about["unavailable"] = one_line(error).removeprefix(f"{name}: ")
        return about
    except ValueError as error:
        return UsageError(one_line(error))
    for key in ("label", "kind", "sample_rate", "options", "fingerprint"):
        about[key] = getattr(system, key)
    return about
