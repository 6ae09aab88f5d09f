"""What the codec lets in: signals, lengths and tokens.

Every public call admits what it is given here, before any work is done: it
gets it in the one form that the networks take, or an error that says what was
found and what was expected.

**Signals** are floating-point tensors [B, T] or [B, 1, T] of any precision,
with full scale at 1. Integers are refused: how loud they are is not theirs to
say. **Lengths** are relative, floats in (0, 1] as SpeechBrain has them, or
exact, integers (samples of signals, frames of tokens), one for each item.
**Tokens** are integers [B, N, k] in 0..C-1, one for each frame of time; or of
merged frames, and then their **durations** in frames, integers [B, N], stand in
the place of lengths. What lies past an item's end is nobody's business and
replaced by zeros.
"""

import numpy as np
import torch

from speechbrain_flowmac.lobes.frame_merging import unmerge_frames
from speechbrain_flowmac.lobes.lengths import absolute_lengths, length_mask

# what samples of 32 bits hold that were never scaled; the front end
# overflows float32 at 1e16
MAX_MAGNITUDE = 2.0**31


class SignalError(ValueError):
    """A signal that cannot be coded."""


class TokenError(ValueError):
    """Tokens that cannot be decoded."""


def admit_signals(wavs, lengths=None):
    """Signals as the codec takes them.

    Arguments
    ---------
    wavs : torch.Tensor
        Floating point, shape [B, T] or [B, 1, T].
    lengths : torch.Tensor or None
        Relative or exact, shape [B]; None if all are full.

    Returns
    -------
    tuple of torch.Tensor
        float32 [B, T], zero past an item's end, and exact lengths, int64 [B].

    Example
    -------
    >>> admit_signals(torch.ones(1, 1, 4).double(), torch.tensor([0.5]))
    (tensor([[1., 1., 0., 0.]]), tensor([2]))
    """
    _check_tensor(wavs, "signals [B, T]")
    if not wavs.is_floating_point():
        raise SignalError(
            f"expected floating-point signals in [-1, 1], found {wavs.dtype}: "
            "scale integers by full scale, such as wavs / 32768 for 16 bits"
        )
    if wavs.ndim == 3 and wavs.shape[1] == 1:
        wavs = wavs.squeeze(1)
    if wavs.ndim != 2:
        hint = ": add a batch dimension, wavs[None]" if wavs.ndim == 1 else ""
        raise SignalError(
            "expected signals [B, T] or [B, 1, T], found "
            f"{list(wavs.shape)}{hint}"
        )
    if not wavs.numel():
        raise SignalError(
            "expected at least one signal of at least one sample [B, T], "
            f"found {list(wavs.shape)}"
        )
    num_samples = admit_lengths(lengths, *wavs.shape, wavs.device)
    valid = length_mask(num_samples, wavs.shape[1])
    # no product: padding may hold what is no number
    wavs = wavs.float().masked_fill(~valid, 0.0)
    check_samples(wavs)
    return wavs, num_samples


def check_samples(wavs, first=0, row="item"):
    """Raises `SignalError` at the first sample that cannot be coded.

    Arguments
    ---------
    wavs : torch.Tensor
        Floating point, shape [items or channels, T].
    first : int
        Position of the first sample in the whole signal.
    row : str
        What to call a row in the message.
    """
    wrong = ~(wavs.abs() <= MAX_MAGNITUDE)  # NaN compares as False
    if wrong.any():
        item, position = wrong.nonzero()[0].tolist()
        raise SignalError(
            "expected samples in [-1, 1], found "
            f"{wavs[item, position].item():g} at sample {first + position} "
            f"of {row} {item}"
        )


def admit_lengths(lengths, num_items, longest, device=None):
    """Exact lengths from relative or exact ones.

    Arguments
    ---------
    lengths : torch.Tensor or sequence or None
        Shape [B]: floats in (0, 1] are relative and rounded up, integers in
        1..longest exact; None if all are `longest`.
    num_items : int
        B.
    longest : int
        The length that 1.0 stands for.
    device : torch.device or None
        Where to move them; None to leave them.

    Returns
    -------
    torch.Tensor
        int64, shape [B].

    Example
    -------
    >>> admit_lengths(torch.tensor([0.5, 1.0]), 2, 47)
    tensor([24, 47])
    >>> admit_lengths(torch.tensor([24, 47]), 2, 47)
    tensor([24, 47])
    """
    if lengths is None:
        return torch.full((num_items,), longest, device=device)
    if not isinstance(lengths, torch.Tensor):
        # not by torch, which rounds numbers to its default type
        lengths = torch.from_numpy(np.asarray(lengths))
    lengths = lengths.to(device)
    if lengths.shape != (num_items,):
        raise ValueError(
            f"expected a length for each of {num_items} items, found lengths "
            f"of shape {list(lengths.shape)}"
        )
    if lengths.is_floating_point():
        return absolute_lengths(lengths, longest)
    if not _is_integer(lengths):
        raise ValueError(
            "expected lengths as floats (relative) or integers (exact), found "
            f"{lengths.dtype}"
        )
    lengths = lengths.long()
    low, high = lengths.min().item(), lengths.max().item()
    if low < 1 or high > longest:
        raise ValueError(
            f"exact lengths must be in 1..{longest}, found {low} to {high}"
        )
    return lengths


def admit_tokens(tokens, lengths, codebook_sizes):
    """Tokens as the codec takes them.

    Arguments
    ---------
    tokens : torch.Tensor
        Integers, shape [B, N, k].
    lengths : torch.Tensor or None
        Relative or exact, shape [B]; None if all are N. Or durations of
        merged frames, integers [B, N], 0 past an item's end.
    codebook_sizes : sequence of int
        C of each of K codebooks; tokens are in 0..C-1.

    Returns
    -------
    tuple of torch.Tensor
        int64 [B, N, k], 0 past an item's end, and exact lengths, int64 [B].
        Merged frames are repeated.

    Example
    -------
    >>> admit_tokens(torch.tensor([[[7], [-1]]]), torch.tensor([1]), [256])
    (tensor([[[7],
             [0]]]), tensor([1]))
    >>> admit_tokens(torch.tensor([[[7], [3]]]), torch.tensor([[2, 1]]), [256])
    (tensor([[[7],
             [7],
             [3]]]), tensor([3]))
    """
    _check_tensor(tokens, "tokens [B, N, k]")
    expected = f"integer tokens [B, N, k] with k in 1..{len(codebook_sizes)}"
    shaped = tokens.ndim == 3 and tokens.shape[2] <= len(codebook_sizes)
    if not (shaped and tokens.numel() and _is_integer(tokens)):
        raise TokenError(
            f"expected {expected}, found {tokens.dtype} {list(tokens.shape)}"
        )
    durations = None
    if _is_integer(lengths) and lengths.ndim == 2:
        durations = _admit_durations(lengths, tokens)
        lengths = (durations > 0).sum(1)
    frames = admit_lengths(lengths, *tokens.shape[:2], tokens.device)
    past = ~length_mask(frames, tokens.shape[1]).unsqueeze(-1)
    tokens = tokens.long().masked_fill(past, 0)
    sizes = torch.as_tensor(codebook_sizes, device=tokens.device)
    wrong = (tokens < 0) | (tokens >= sizes[: tokens.shape[2]])
    if wrong.any():
        item, frame, codebook = wrong.nonzero()[0].tolist()
        raise TokenError(
            f"tokens must be in 0..{codebook_sizes[codebook] - 1}, found "
            f"{tokens[item, frame, codebook].item()} at frame {frame}, "
            f"codebook {codebook} of item {item}"
        )
    if durations is not None:
        return unmerge_frames(tokens, durations), durations.sum(1)
    return tokens, frames


def _admit_durations(durations, tokens):
    """int64 [B, N] of which the first ones of each item are positive."""
    shape = tokens.shape[:2]
    if durations.shape != shape:
        raise ValueError(
            "expected a duration in frames for each token, integers "
            f"{list(shape)}, found {list(durations.shape)}"
        )
    durations = durations.to(tokens.device).long()
    lasting = durations > 0
    gaps = (lasting[:, 1:] & ~lasting[:, :-1]).any()
    if gaps or (durations < 0).any() or not lasting[:, 0].all():
        raise ValueError(
            "durations must be 1 or more, and 0 only past an item's end, "
            f"found {durations.tolist()[0][:9]} in the first item"
        )
    return durations


def _check_tensor(value, expected):
    if not isinstance(value, torch.Tensor):
        kind = type(value)
        raise TypeError(
            f"expected a torch.Tensor of {expected}, found "
            f"{kind.__module__}.{kind.__qualname__}: see torch.as_tensor"
        )


def _is_integer(value):
    if not isinstance(value, torch.Tensor) or value.dtype == torch.bool:
        return False
    return not (value.is_floating_point() or value.is_complex())
