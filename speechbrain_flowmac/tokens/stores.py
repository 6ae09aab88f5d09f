"""Where the tokens of a corpus are kept, and how recipes read them.

Three stores, each with a dynamic item for SpeechBrain's manifests:

* `.fmac` files, as the codec writes them: `FmacTokens`;
* one `.npy` an utterance: `NpyStore` writes, `NpyTokens` reads;
* tar shards of WebDataset: `TarStore` writes, `TarTokens` reads any utterance
  by its place in the shard, and the `webdataset` package streams them.

Shapes: N frames, K codebooks. Codes are stored in as few bytes as hold them.
"""

import io
import json
import os
import shutil
import tarfile
from pathlib import Path

import numpy as np
import torch
from speechbrain.utils.data_pipeline import DynamicItem

from speechbrain_flowmac.bitstream import read_tokens
from speechbrain_flowmac.files import atomic_write

MEMBER_ENDING = ".tokens.npy"


class TokenStoreError(ValueError):
    """A store does not hold what was asked of it."""


def smallest_dtype(codebook_size):
    """The unsigned NumPy type with the fewest bytes for codes 0..C-1."""
    return np.min_scalar_type(codebook_size - 1)


# Reading


class StoredTokens(DynamicItem):
    """Base of the items that read tokens: `tokens`, int64 [N, num_codebooks].

    Arguments
    ---------
    num_codebooks : int or None
        Keep the first so many; None for all that are stored.
    """

    provides = ("tokens",)

    def __init__(self, num_codebooks=None):
        self.num_codebooks = num_codebooks

    def _cut(self, tokens, name):
        stored = tokens.shape[-1]
        count = stored if self.num_codebooks is None else self.num_codebooks
        if not 1 <= count <= stored:
            raise TokenStoreError(
                f"{name} holds {stored} codebooks, asked for {count}"
            )
        return torch.from_numpy(tokens[:, :count].astype(np.int64))


class FmacTokens(StoredTokens):
    """Reads mono `.fmac` files: the entry `fmac` of a manifest is a path.

    Example
    -------
    >>> from speechbrain.dataio.dataset import DynamicItemDataset
    >>> dataset = DynamicItemDataset({"utt": {"fmac": "utt.fmac"}})
    >>> dataset.add_dynamic_item(FmacTokens(num_codebooks=4))
    >>> dataset.set_output_keys(["id", "tokens"])
    """

    takes = ("fmac",)

    def __call__(self, path):
        """Returns tokens [N, num_codebooks] of a path."""
        _, tokens, _ = read_tokens(path)
        if len(tokens) != 1:
            raise TokenStoreError(
                f"{path} has {len(tokens)} channels, expected one"
            )
        return self._cut(tokens[0], path)


class NpyTokens(StoredTokens):
    """Reads what `NpyStore` wrote: the entry `npy` is a path."""

    takes = ("npy",)

    def __call__(self, path):
        """Returns tokens [N, num_codebooks] of a path."""
        return self._cut(np.load(path), path)


class TarTokens(StoredTokens):
    """Reads what `TarStore` wrote: the entries `shard`, a path, and `offset`.

    Bytes are read at the offset; the shard is not searched.
    """

    takes = ("shard", "offset")

    def __call__(self, path, offset):
        """Returns tokens [N, num_codebooks] at an offset of a shard."""
        with open(path, "rb") as file:
            file.seek(int(offset))
            return self._cut(np.load(file), f"{path} at {offset}")


# Writing


class NpyStore:
    """One `.npy` an utterance, a folder a shard.

    Example
    -------
    >>> NpyStore().item(num_codebooks=2).takes
    ('npy',)
    """

    item = NpyTokens

    def check(self, names):
        """Takes utterances of any name."""

    def write(self, folder, name, utterances):
        """Writes a shard whole, or not at all.

        Arguments
        ---------
        folder : Path
            The shard becomes `folder/name`.
        name : str
            Of the shard.
        utterances : iterable of tuple
            Name, entry of the manifest, and tokens [N, K] of each.

        Returns
        -------
        dict
            By utterance, what its entry needs to be read again; paths
            relative to `folder`.
        """
        part, target = Path(folder, f".{name}.part"), Path(folder, name)
        for stale in (part, target):
            shutil.rmtree(stale, ignore_errors=True)
        part.mkdir()
        written = {}
        for utterance, _, tokens in utterances:
            np.save(part / f"{utterance}.npy", tokens)
            written[utterance] = {"npy": f"{name}/{utterance}.npy"}
        os.replace(part, target)
        return written


class TarStore:
    """WebDataset's tar shards: `<utterance>.tokens.npy` and `.json`.

    The same utterances make the same bytes.

    Example
    -------
    >>> TarStore().item(num_codebooks=2).takes
    ('shard', 'offset')
    """

    item = TarTokens

    def check(self, names):
        """Raises `TokenStoreError` if WebDataset would cut one of the names."""
        for name in names:
            if "." in name:
                raise TokenStoreError(
                    "WebDataset takes what follows a dot for a file's type: "
                    "no dot may be in the name of an utterance, found "
                    f"{name} (NpyStore takes it)"
                )

    def write(self, folder, name, utterances):
        """As `NpyStore.write`; the shard is `folder/name.tar`."""
        try:
            from webdataset import TarWriter
        except ImportError as error:
            raise ImportError(
                "tar shards need webdataset: pip install "
                "'speechbrain-flowmac[train]'"
            ) from error
        target = Path(folder, f"{name}.tar")
        for stale in Path(folder).glob(f".{name}.tar.*.tmp"):
            stale.unlink()
        with atomic_write(target) as file:
            with TarWriter(file, encoder=False, mtime=0) as writer:
                for utterance, entry, tokens in utterances:
                    writer.write(self._sample(utterance, entry, tokens))
        with tarfile.open(target) as tar:
            return {
                member.name.removesuffix(MEMBER_ENDING): {
                    "shard": target.name,
                    "offset": member.offset_data,
                }
                for member in tar
                if member.name.endswith(MEMBER_ENDING)
            }

    def _sample(self, utterance, entry, tokens):
        self.check([utterance])
        data = io.BytesIO()
        np.save(data, tokens)
        return {
            "__key__": utterance,
            MEMBER_ENDING[1:]: data.getvalue(),
            "json": json.dumps(entry, ensure_ascii=False).encode(),
        }
