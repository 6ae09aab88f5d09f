"""Sources of a model's parts; another kind is a class in this list."""

from pathlib import Path

from speechbrain_flowmac.models.importers.base import ExportError
from speechbrain_flowmac.models.importers.bigvgan import BigVGANCheckpoint
from speechbrain_flowmac.models.importers.model_folder import ModelFolder
from speechbrain_flowmac.models.importers.training_folder import TrainingFolder

IMPORTERS = (ModelFolder(), TrainingFolder(), BigVGANCheckpoint())


def find_importer(source, part):
    """The importer of a source; the first that recognises it.

    Arguments
    ---------
    source : str or Path
        Where the part comes from.
    part : str
        "codec" or "vocoder".

    Returns
    -------
    Importer
    """
    for importer in IMPORTERS:
        if importer.recognises(source, part):
            return importer
    if not Path(source).exists():
        raise ExportError(f"no such folder: {source}")
    raise ExportError(
        f"{source} is neither a training folder nor a model with a {part}"
    )
