"""Models as `from_hparams` takes them: built in, or in a folder."""

from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load_file

from speechbrain_flowmac.models.importers.base import Importer
from speechbrain_flowmac.models.loading import (
    HPARAMS_FILE,
    ModelNotFoundError,
    WeightsMismatchError,
    get_file,
    read_description,
    resolve_source,
)


class ModelFolder(Importer):
    """A model's codec or vocoder, to be joined with another's."""

    def recognises(self, source, part):
        """A folder with weights of the part, or the name of one that ships."""
        try:
            folder = Path(resolve_source(source))
        except ModelNotFoundError:
            return False
        return (folder / f"{part}.safetensors").exists()

    def describe(self, source, part):
        """The part, with what it refers to."""
        return read_description(get_file(source, HPARAMS_FILE)).to_yaml(part)

    def weights(self, source, part):
        """What the file holds, bit by bit: the tokens stay what they are."""
        path = get_file(source, f"{part}.safetensors")
        try:
            return load_file(str(path))
        except SafetensorError as error:
            raise WeightsMismatchError(f"{path}: {error}") from error

    def credits(self, source, part):
        """The model's name."""
        return [
            f"The {part} is that of `{Path(source).name}`, whose licence and",
            "data are those of its own card.",
            "",
        ]
