"""How long things are: frames of samples, exact lengths, masks.

One function, `num_frames`, says how many frames a signal has; everything
else calls it. Lengths are rounded up wherever they are rounded, so that
nothing is lost at the end of a signal.
"""

import torch


def num_frames(num_samples, hop_length):
    """Frames of T samples, an int or a tensor of them: N = ceil(T / hop).

    Example
    -------
    >>> num_frames(24000, 512), num_frames(torch.tensor([512, 513]), 512)
    (47, tensor([1, 2]))
    """
    return -(-num_samples // hop_length)


def length_mask(lengths, max_length):
    """Mask [B, N] of integer lengths [B], True where valid; N is `max_length`.

    Example
    -------
    >>> length_mask(torch.tensor([1, 3]), 3).int()
    tensor([[1, 0, 0],
            [1, 1, 1]], dtype=torch.int32)
    """
    steps = torch.arange(max_length, device=lengths.device)
    return steps[None] < lengths[:, None]


def absolute_lengths(relative, max_length):
    """Exact lengths from SpeechBrain's relative ones, rounded up.

    A relative length is itself a rounded quotient, by half a unit of its type
    at most. Less than that above a whole number counts as the whole number:
    lengths that were divided by `max_length` in float32 come back as they
    were, up to 2^23.

    Arguments
    ---------
    relative : torch.Tensor
        Lengths in (0, 1], shape [B].
    max_length : int
        The length that 1.0 stands for.

    Returns
    -------
    torch.Tensor
        int64, shape [B], in 1..max_length.

    Example
    -------
    >>> absolute_lengths(torch.tensor([0.5, 1.0]), 24001)
    tensor([12001, 24001])
    """
    if not bool(((relative > 0) & (relative <= 1)).all()):
        raise ValueError(
            "relative lengths must be in (0, 1], found "
            f"{relative.min().item():g} to {relative.max().item():g}"
        )
    # a wider type does not make a quotient better that was float32 once
    unit = max(torch.finfo(t).eps for t in (relative.dtype, torch.float32))
    exact = relative.double() * (1 - unit / 2) * max_length
    return exact.ceil().long().clamp(1, max_length)
