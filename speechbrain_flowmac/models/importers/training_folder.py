"""Output folders of this project's trainings."""

import io
from pathlib import Path

import torch
import yaml
from ruamel.yaml import YAML
from speechbrain.utils.checkpoints import Checkpointer

from speechbrain_flowmac.lobes.weight_norm import fold_weight_norm
from speechbrain_flowmac.models.importers.base import (
    ExportError,
    Importer,
    compact,
)
from speechbrain_flowmac.models.loading import HPARAMS_FILE
from speechbrain_flowmac.models.safe_yaml import find_class

AVERAGED_PREFIX = "module."


class TrainingFolder(Importer):
    """The averaged weights of a training's best checkpoint."""

    def recognises(self, source, part):
        """A folder with the YAML of a training."""
        return (Path(source) / HPARAMS_FILE).is_file()

    def describe(self, source, part):
        """The part; SpeechBrain has resolved the references."""
        path = Path(source) / HPARAMS_FILE
        round_trip = YAML(typ="rt")
        settings = round_trip.load(path.read_text(encoding="utf-8"))
        # a vocoder's YAML may name a codec, whose mels it trains on
        if not isinstance(settings.get(part), dict):
            raise ExportError(f"{path} describes no {part}")
        flow = settings[part].get("flow", {})
        flow.pop(extra_field(settings, part), None)
        stream = io.StringIO()
        round_trip.dump({part: settings[part]}, stream)
        return stream.getvalue()

    def weights(self, source, part):
        """Averaged weights, compact; none of a part that was not trained."""
        path = Path(source) / HPARAMS_FILE
        settings = YAML(typ="rt").load(path.read_text(encoding="utf-8"))
        if part not in settings.get("modules", [part]):
            return {}
        state = fold_weight_norm(averaged_weights(source))
        unused = f"flow.{extra_field(settings, part)}."
        kept = {n: v for n, v in state.items() if not n.startswith(unused)}
        return compact(kept)

    def credits(self, source, part):
        """The end of the training's log."""
        path = Path(source) / "train_log.txt"
        log = path.read_text(encoding="utf-8") if path.is_file() else ""
        title = f"## Training log of the {part}"
        return [title, "", "```", *log.splitlines()[-3:], "```", ""]


def extra_field(settings, part):
    """Name of the network that only the training of a flow needs, or None.

    Arguments
    ---------
    settings : dict
        Of the training.
    part : str
        Which of it is exported.

    Returns
    -------
    str or None
        See `Flow.extra_field`.
    """
    flow = settings[part].get("flow")
    if flow is None:
        return None
    # nothing but the codec's own classes is looked up
    mark = yaml.Mark(HPARAMS_FILE, 0, flow.lc.line, 0, None, 0)
    kind = find_class(yaml.MappingNode(flow.tag.value, [], mark))
    return getattr(kind, "extra_field", None)


def averaged_weights(folder):
    """Averaged weights of the best checkpoint of a training.

    Arguments
    ---------
    folder : str or Path
        Output folder of a training.

    Returns
    -------
    dict
        A state dict.
    """
    checkpoints = Checkpointer(Path(folder) / "save")
    best = checkpoints.find_checkpoint(min_key="loss")
    if best is None:
        raise ExportError(f"no validated checkpoint in {folder}/save")
    state = torch.load(best.path / "ema.ckpt", weights_only=True)
    return {
        name.removeprefix(AVERAGED_PREFIX): value
        for name, value in state.items()
        if name.startswith(AVERAGED_PREFIX)
    }
