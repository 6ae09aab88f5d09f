"""Weight norm (Salimans and Kingma, 1602.07868): put on for training, folded
into plain weights for all else."""

import torch
from torch import nn
from torch.nn.utils.parametrizations import weight_norm

# magnitude and direction, as torch's two forms of weight norm name them
WEIGHT_NORM_NAMES = (
    ("weight_g", "weight_v"),
    ("parametrizations.weight.original0", "parametrizations.weight.original1"),
)


def add_weight_norm(module):
    """Puts weight norm on every convolution, for training.

    Changes the module in place and returns it; to be called before an
    optimizer takes the parameters.

    Example
    -------
    >>> list(add_weight_norm(nn.Conv1d(4, 4, 3)).state_dict())
    ['bias', 'parametrizations.weight.original0', 'parametrizations.weight.original1']
    """
    convolutions = [
        part
        for part in module.modules()
        if isinstance(part, nn.Conv1d | nn.ConvTranspose1d)
    ]
    for convolution in convolutions:
        weight_norm(convolution)
    return module


def fold_weight_norm(state):
    """A state dict without weight norm: magnitude x direction / |direction|.

    Takes either of torch's forms (`weight_g`, `weight_v`, or
    `parametrizations`); all else stays as it is.

    Example
    -------
    >>> state = add_weight_norm(nn.Conv1d(4, 4, 3)).state_dict()
    >>> list(fold_weight_norm(state))
    ['bias', 'weight']
    """
    folded = dict(state)
    for magnitude_name, direction_name in WEIGHT_NORM_NAMES:
        for name in state:
            stem = name.removesuffix(direction_name)
            if stem == name or stem + magnitude_name not in state:
                continue
            direction = folded.pop(name)
            magnitude = folded.pop(stem + magnitude_name)
            # the magnitude has one value for all of those axes
            axes = [i for i, n in enumerate(magnitude.shape) if n == 1]
            exact = direction.double()
            norm = torch.linalg.vector_norm(exact, dim=axes, keepdim=True)
            weight = magnitude.double() * exact / norm
            folded[stem + "weight"] = weight.to(direction.dtype)
    return folded
