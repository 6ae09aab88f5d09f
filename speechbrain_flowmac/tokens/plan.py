"""What an extraction is to do: the utterances of each shard, in files.

The layout of the folder is in `extraction`.
"""

import hashlib
import json
from pathlib import Path

from speechbrain_flowmac.files import atomic_write


class PlanMismatchError(ValueError):
    """A folder was begun with other utterances, another model or store."""


def write_json(path, content):
    """Writes a JSON file whole or not at all."""
    with atomic_write(path, "w") as file:
        json.dump(content, file, ensure_ascii=False)


def read_json(path):
    """Reads a JSON file."""
    return json.loads(Path(path).read_text(encoding="utf-8"))


def make_plan(folder, utterances, shard_size, settings):
    """Divides a corpus into shards, unless that was done before.

    Arguments
    ---------
    folder : str or Path
        Of the extraction.
    utterances : dict
        A SpeechBrain manifest: `wav` and what else shall be kept, by name.
    shard_size : int
        Utterances of a shard.
    settings : dict
        What else the tokens depend on: they must be those of the plan, if
        there is one.

    Returns
    -------
    dict
        Numbers of utterances by shard.
    """
    if not utterances or shard_size < 1:
        raise ValueError(
            "expected utterances and a shard_size of 1 or more, found "
            f"{len(utterances)} utterances and shard_size={shard_size}"
        )
    folder = Path(folder)
    names = list(utterances)
    starts = range(0, len(names), shard_size)
    shards = {
        f"{i:06d}": min(shard_size, len(names) - start)
        for i, start in enumerate(starts)
    }
    digest = hashlib.sha256(json.dumps(utterances).encode()).hexdigest()
    plan = {
        **settings,
        "shard_size": shard_size,
        "shards": shards,
        "utterances": digest,
    }
    if (folder / "plan.json").exists():
        _check_plan(folder, plan)
        return shards
    for part in ("plan", "shards", "done"):
        (folder / part).mkdir(parents=True, exist_ok=True)
    for shard, start in zip(shards, starts, strict=True):
        chosen = names[start : start + shard_size]
        content = {name: utterances[name] for name in chosen}
        write_json(folder / "plan" / f"{shard}.json", content)
    write_json(folder / "plan.json", plan)
    return shards


def _check_plan(folder, plan):
    known = read_json(folder / "plan.json")
    for name, value in plan.items():
        if known.get(name) != value:
            raise PlanMismatchError(
                f"{folder} was begun with {name}={known.get(name)}, now it is "
                f"{value}: give the same, or another output folder"
            )
