"""Turns training folders into the folder that `from_hparams` loads.

    hyperparams.yaml     the codec and the vocoder, nothing else
    codec.safetensors    averaged weights of the best checkpoint
    vocoder.safetensors
    README.md            model card: data, licence, figures, commands

Either part may also come from another model, and the vocoder from a BigVGAN
checkpoint, see `importers`. Weight norm, where a training had it, is folded
into the weights. Their metadata states the mel settings, which are checked on
loading.
"""

import io
import json
import shutil
import tempfile
from dataclasses import asdict
from pathlib import Path

from ruamel.yaml import YAML
from safetensors.torch import save_file

from speechbrain_flowmac.inference import FlowMACCodec
from speechbrain_flowmac.models.importers import find_importer
from speechbrain_flowmac.models.importers.base import ExportError
from speechbrain_flowmac.models.loading import (
    HPARAMS_FILE,
    MODULE_NAMES,
    build_modules,
    read_description,
)

CARD_FILE = "README.md"
EXAMPLE_FILE = "example.wav"
MODEL_FILES = {
    HPARAMS_FILE,
    "codec.safetensors",
    "vocoder.safetensors",
    CARD_FILE,
    EXAMPLE_FILE,
}


def plain_yaml(texts):
    """YAML of a model folder, without the comments of a training's.

    Arguments
    ---------
    texts : list of str
        YAML of the parts, see `Importer.describe`.

    Returns
    -------
    str
    """
    # one document, so that no anchor is there twice
    yaml, blocks, stream = YAML(typ="rt"), {}, io.StringIO()
    for text in texts:
        blocks.update(yaml.load(text))
    yaml.dump(blocks, stream)
    lines = (line.split(" #")[0] for line in stream.getvalue().splitlines())
    kept = [n for n in lines if n.strip() and not n.lstrip().startswith("#")]
    return "\n".join(kept) + "\n"


def check_replaceable(target):
    """Refuses to replace anything but a model folder.

    Arguments
    ---------
    target : Path
        Where a model is to go.
    """
    if not target.exists():
        return
    if not target.is_dir():
        raise ExportError(f"{target} exists and is no folder")
    others = {path.name for path in target.iterdir()} - MODEL_FILES
    if others:
        raise ExportError(
            f"{target} holds more than a model ({sorted(others)[:3]}) and is "
            "not replaced"
        )


def export(codec, vocoder, target, card=None):
    """Writes a model folder.

    Arguments
    ---------
    codec : str or Path
        Output folder of a codec's training, or a model: its folder or name.
    vocoder : str or Path
        Output folder of a vocoder's training, a model, or a BigVGAN
        checkpoint: its folder, its file of weights, or its Hub id.
    target : str or Path
        Folder to make. A model folder that is there is replaced, once all
        is written; its example.wav is kept.
    card : str or Path or None
        Model card; None for a short one.

    Returns
    -------
    FlowMACCodec
        Loaded from `target`.
    """
    sources = dict(zip(MODULE_NAMES, (codec, vocoder), strict=True))
    importers = {n: find_importer(source, n) for n, source in sources.items()}
    texts = [importers[n].describe(sources[n], n) for n in MODULE_NAMES]
    target = Path(target)
    check_replaceable(target)
    target.parent.mkdir(parents=True, exist_ok=True)
    work = Path(tempfile.mkdtemp(dir=target.parent, prefix=".export-"))
    try:
        described = work / HPARAMS_FILE
        described.write_text(plain_yaml(texts), encoding="utf-8")
        _, modules = build_modules(read_description(described))
        front_ends = {n: modules[n].mel_settings for n in MODULE_NAMES}
        # before any weights are fetched
        front_ends["codec"].check_same(
            front_ends["vocoder"], names=MODULE_NAMES
        )
        for name, importer in importers.items():
            settings = asdict(front_ends[name])
            save_file(
                importer.weights(sources[name], name),
                str(work / f"{name}.safetensors"),
                metadata={"format": "pt", "mel_settings": json.dumps(settings)},
            )
        if card is None:
            credits = [importers[n].credits(sources[n], n) for n in sources]
            text = plain_card(target.resolve().name, credits)
            (work / CARD_FILE).write_text(text, encoding="utf-8")
        else:
            shutil.copyfile(card, work / CARD_FILE)
        # loading checks every key, shape and setting
        FlowMACCodec.from_hparams(work, run_opts={"device": "cpu"})
        _publish(work, target)
    finally:
        shutil.rmtree(work, ignore_errors=True)
    return FlowMACCodec.from_hparams(target, run_opts={"device": "cpu"})


def _publish(work, target):
    """Puts a finished folder in the place of the target."""
    # made for the owner alone, but a model is for all
    work.chmod(0o755)
    for path in work.iterdir():
        path.chmod(0o644)
    if (target / EXAMPLE_FILE).is_file():
        shutil.copyfile(target / EXAMPLE_FILE, work / EXAMPLE_FILE)
    if target.exists():
        shutil.rmtree(target)
    work.rename(target)


CARD = """\
---
license: other # yours
library_name: speechbrain
tags: [audio-codec, flow-matching, speechbrain, speechbrain-flowmac]
---

# {name}

A FlowMAC codec for `speechbrain-flowmac`.

```python
from speechbrain_flowmac import FlowMACCodec

codec = FlowMACCodec.from_hparams(source={name!r})
codec.compress("speech.wav", "speech.fmac")
codec.decompress("speech.fmac", "decoded.wav")
```

Data, licence and figures: to be filled in by who trained it.

"""


def plain_card(name, credits):
    """A model card for a model of one's own.

    Arguments
    ---------
    name : str
        Of the model's folder.
    credits : list of list of str
        Lines on each part, see `Importer.credits`.

    Returns
    -------
    str
    """
    return CARD.format(name=name) + "\n".join(sum(credits, []))
