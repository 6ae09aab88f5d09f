"""Output folders of this project's trainings."""

import io
from pathlib import Path

import torch
from ruamel.yaml import YAML
from speechbrain.utils.checkpoints import Checkpointer

from speechbrain_flowmac.lobes.weight_norm import fold_weight_norm
from speechbrain_flowmac.models.importers.base import (
    ExportError,
    Importer,
    compact,
)
from speechbrain_flowmac.models.loading import HPARAMS_FILE

AVERAGED_PREFIX = "module."


class TrainingFolder(Importer):
    """The averaged weights of a training's best checkpoint."""

    def recognises(self, source, part):
        """A folder with the YAML of a training."""
        return (Path(source) / HPARAMS_FILE).is_file()

    def describe(self, source, part):
        """The part; SpeechBrain has resolved the references."""
        path = Path(source) / HPARAMS_FILE
        yaml = YAML(typ="rt")
        settings = yaml.load(path.read_text(encoding="utf-8"))
        # a vocoder's YAML may name a codec, whose mels it trains on
        if not isinstance(settings.get(part), dict):
            raise ExportError(f"{path} describes no {part}")
        stream = io.StringIO()
        yaml.dump({part: settings[part]}, stream)
        return stream.getvalue()

    def weights(self, source, part):
        """Averaged weights, compact; none of a part that was not trained."""
        path = Path(source) / HPARAMS_FILE
        settings = YAML(typ="rt").load(path.read_text(encoding="utf-8"))
        if part not in settings.get("modules", [part]):
            return {}
        return compact(fold_weight_norm(averaged_weights(source)))

    def credits(self, source, part):
        """The end of the training's log."""
        path = Path(source) / "train_log.txt"
        log = path.read_text(encoding="utf-8") if path.is_file() else ""
        title = f"## Training log of the {part}"
        return [title, "", "```", *log.splitlines()[-3:], "```", ""]


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
