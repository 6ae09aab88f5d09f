"""Pictures of handwritten digits as signals [T], row after row."""

from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from sklearn.datasets import fetch_openml, load_digits
from torch import Tensor
from torch.utils.data import Dataset

TEST_SHARE = 0.2
PARTS = ("train", "t10k")
MAGIC = {1: 0x801, 3: 0x803}
"""First four bytes of IDX files of so many axes."""


class Images(NamedTuple):
    """Labelled pictures.

    Arguments
    ---------
    signals : torch.Tensor
        Pixels row after row, of deviation 1 over the set, float32 [B, T].
    labels : torch.Tensor
        Classes 0..9, int64 [B].
    """

    signals: Tensor
    labels: Tensor


class ImageDataset(Dataset):
    """Whole batches at once: pictures this small are dear one by one.

    Arguments
    ---------
    images : Images
        The pictures.
    """

    def __init__(self, images):
        self.images = images

    def __len__(self):
        return len(self.images.labels)

    def __getitems__(self, indices):
        """A batch `Images`; for data loaders with `as_they_are`."""
        return Images(*(part[indices] for part in self.images))


def as_they_are(batch):
    """Collates what is a batch already.

    Arguments
    ---------
    batch : Images
        From `ImageDataset`.

    Returns
    -------
    Images
    """
    return batch


def load_images(data_set, data_folder):
    """Training and test pictures.

    Arguments
    ---------
    data_set : str
        `digits`: 1797 of 8 x 8 pixels, which come with scikit-learn.
        `mnist`: 70000 of 28 x 28, read from the folder, else downloaded from
        openml.org.
    data_folder : str
        Where MNIST's own four files are, or downloads are kept.

    Returns
    -------
    tuple of Images
        Training and test set.
    """
    if data_set == "digits":
        pixels, labels = load_digits(return_X_y=True)
        chance = torch.Generator().manual_seed(0)
        order = torch.randperm(len(labels), generator=chance)
        num_test = int(TEST_SHARE * len(labels))
    elif data_set == "mnist":
        files = [
            Path(data_folder, f"{part}-{name}-ubyte")
            for name in ("images-idx3", "labels-idx1")
            for part in PARTS
        ]
        if all(path.is_file() for path in files):
            pixels = np.concatenate([read_idx(p, axes=3) for p in files[:2]])
            pixels = pixels.reshape(len(pixels), -1)
            labels = np.concatenate([read_idx(p, axes=1) for p in files[2:]])
        else:
            pixels, labels = _download_mnist(data_folder)
        order, num_test = torch.arange(len(labels)), 10_000
    else:
        raise ValueError(
            f"data_set must be digits or mnist, found {data_set!r}"
        )
    signals = torch.as_tensor(pixels, dtype=torch.float32)[order]
    signals = (signals - signals.mean()) / signals.std()
    labels = torch.as_tensor(labels.astype("int64"))[order]
    cut = len(labels) - num_test
    return (
        Images(signals[:cut], labels[:cut]),
        Images(signals[cut:], labels[cut:]),
    )


def read_idx(path, axes):
    """An array of MNIST's own files: IDX, of unsigned bytes.

    Arguments
    ---------
    path : Path
        The file, not compressed.
    axes : int
        1 for labels, 3 for pictures.

    Returns
    -------
    numpy.ndarray
        uint8.
    """
    data = np.fromfile(path, dtype=np.uint8)
    start = 4 * (axes + 1)
    header = data[:start].tobytes().ljust(start, b"\0")
    magic, *shape = np.frombuffer(header, ">u4").tolist()
    found, expected = len(data) - start, int(np.prod(shape))
    if magic != MAGIC[axes] or found != expected:
        raise ValueError(
            f"{path} is no IDX file of {axes} axes: expected 0x{MAGIC[axes]:x} "
            f"and {expected} bytes, found 0x{magic:x} and {found}"
        )
    return data[start:].reshape(shape)


def _download_mnist(data_folder):
    """Pixels and labels, from the folder if they are there."""
    try:
        return fetch_openml(
            "mnist_784",
            version=1,
            return_X_y=True,
            as_frame=False,
            data_home=data_folder,
            parser="liac-arff",
        )
    except OSError as error:
        raise OSError(
            f"MNIST is not in {data_folder} (train-images-idx3-ubyte and so "
            f"on) and could not be downloaded from openml.org ({error}); "
            "without a network use --data_set=digits"
        ) from error
