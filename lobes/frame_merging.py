"""Neighbouring frames that are alike become one: a dynamic frame rate.

Frames t and t + 1 are in one run unless the cosine of the angle between them
is at or below a threshold; a run that grows too long is cut. A run becomes
its mean, and its length says how often to repeat that.

    frames  a a b c c c c c      longest run 4
    runs    2   1 4       1      zeros past the last run of an item

Source: FlexiCodec (2510.00981). Shapes: B items, N frames, R runs at most.
"""

import torch
from torch.nn import functional as F

from speechbrain_flowmac.lobes.lengths import length_mask


def neighbour_similarity(frames):
    """Cosine of the angle between each frame and the next.

    In float64, so that the order of a sum hardly ever moves a similarity
    across a threshold. A frame of zeros resembles none.

    Arguments
    ---------
    frames : torch.Tensor
        Shape [B, N, D].

    Returns
    -------
    torch.Tensor
        float64, shape [B, N - 1], in -1..1.

    Example
    -------
    >>> x = torch.tensor([[[1.0, 0.0], [2.0, 0.0], [0.0, 3.0]]])
    >>> neighbour_similarity(x).tolist()
    [[1.0, 0.0]]
    """
    unit = F.normalize(frames.double(), dim=-1)
    return (unit[:, :-1] * unit[:, 1:]).sum(-1).clamp(-1, 1)


def find_runs(similarity, lengths, threshold, max_run=8):
    """Lengths of the runs of frames that are to be merged.

    Arguments
    ---------
    similarity : torch.Tensor
        From `neighbour_similarity`, shape [B, N - 1]. What it says of
        padding does not matter.
    lengths : torch.Tensor
        Exact numbers of frames, int64 [B].
    threshold : float or torch.Tensor
        In -1..1, one or [B]; at 1 no frames are merged.
    max_run : int
        Longest run in frames. 8 fits 3 bits.

    Returns
    -------
    torch.Tensor
        int64, shape [B, R]; the positive ones of an item add up to its
        length.

    Example
    -------
    >>> similarity = torch.tensor([[0.95, 0.2, 0.9, 0.9, 0.99, 0.93]])
    >>> find_runs(similarity, torch.tensor([7]), 0.8, max_run=4).tolist()
    [[2, 4, 1]]
    """
    if max_run < 1:
        raise ValueError(f"max_run must be at least 1, found {max_run}")
    threshold = torch.as_tensor(
        threshold, dtype=torch.float64, device=similarity.device
    )
    if not bool(((threshold >= -1) & (threshold <= 1)).all()):
        raise ValueError(
            f"thresholds must be in -1..1, found {threshold.min().item():g} "
            f"to {threshold.max().item():g}"
        )
    # what is not a number is not alike either
    starts = F.pad(~(similarity > threshold.unsqueeze(-1)), (1, 0), value=True)
    steps = torch.arange(starts.shape[1], device=starts.device)
    last_start = (steps * starts).cummax(1).values
    starts |= (steps - last_start) % max_run == 0
    mask = length_mask(lengths, starts.shape[1])
    run = (starts & mask).cumsum(1) - 1
    # an item without frames has no run either
    runs = run.new_zeros(len(run), int(run.amax()) + 1)
    return runs.scatter_add_(1, run.clamp(min=0), mask.long())


def frame_runs(runs):
    """The run that each frame is in.

    Arguments
    ---------
    runs : torch.Tensor
        Lengths of runs, int64 [B, R].

    Returns
    -------
    tuple of torch.Tensor
        Index of the run, int64 [B, N], 0 where padding; mask [B, N].

    Example
    -------
    >>> index, mask = frame_runs(torch.tensor([[2, 1], [1, 0]]))
    >>> index.tolist(), mask.int().tolist()
    ([[0, 0, 1], [0, 0, 0]], [[1, 1, 1], [1, 0, 0]])
    """
    ends = runs.cumsum(1)
    lengths = runs.sum(1)
    mask = length_mask(lengths, int(lengths.amax()))
    steps = torch.arange(mask.shape[1], device=runs.device)
    index = torch.searchsorted(ends, steps.repeat(len(runs), 1), right=True)
    return index.masked_fill(~mask, 0), mask


def merge_frames(frames, runs):
    """Means of the frames of each run.

    Exact where nothing is merged and where the frames of a run are equal.

    Arguments
    ---------
    frames : torch.Tensor
        Shape [B, N, D].
    runs : torch.Tensor
        Lengths of runs, int64 [B, R].

    Returns
    -------
    torch.Tensor
        Shape [B, R, D], 0 past the last run of an item.

    Example
    -------
    >>> frames = torch.tensor([[[1.0], [3.0], [5.0]]])
    >>> merge_frames(frames, torch.tensor([[2, 1]])).tolist()
    [[[2.0], [5.0]]]
    """
    longest = int(runs.sum(1).amax())
    if longest > frames.shape[1]:
        raise ValueError(
            f"runs of {longest} frames, found {frames.shape[1]} frames"
        )
    valid = runs > 0
    starts = (runs.cumsum(1) - runs).masked_fill(~valid, 0)
    first = _take(frames, starts)
    # a sum of differences from the first frame, in an order of its own: the
    # result is the same in any batch and on any device
    total = torch.zeros_like(first)
    for step in range(1, int(runs.amax())):
        # past its end a run looks at its first frame, which differs by 0
        place = torch.where(step < runs, starts + step, starts)
        total = total + (_take(frames, place) - first)
    count = runs.clamp(min=1).unsqueeze(-1)
    merged = first + total / count
    return torch.where(valid.unsqueeze(-1), merged, 0.0)


def unmerge_frames(merged, runs):
    """Each merged frame as often as its run is long.

    Arguments
    ---------
    merged : torch.Tensor
        Vectors or tokens, shape [B, R, D].
    runs : torch.Tensor
        Lengths of runs, int64 [B, R].

    Returns
    -------
    torch.Tensor
        Shape [B, N, D], 0 where padding.

    Example
    -------
    >>> merged = torch.tensor([[[2.0], [5.0]]])
    >>> unmerge_frames(merged, torch.tensor([[2, 1]])).flatten().tolist()
    [2.0, 2.0, 5.0]
    """
    index, mask = frame_runs(runs)
    return torch.where(mask.unsqueeze(-1), _take(merged, index), 0)


def _take(frames, index):
    """Frames [B, N, D] at index [B, R]."""
    return frames.gather(1, index.unsqueeze(-1).expand(-1, -1, frames.shape[2]))


def average_rate(runs, frame_rate):
    """Merged frames in a second.

    Arguments
    ---------
    runs : torch.Tensor
        Lengths of runs, int64 [B, R].
    frame_rate : float
        Frames in a second before merging, Hz.

    Returns
    -------
    torch.Tensor
        Hz, float64, shape [B].

    Example
    -------
    >>> average_rate(torch.tensor([[2, 3, 0], [1, 1, 2]]), 12.5).tolist()
    [5.0, 9.375]
    """
    return frame_rate * (runs > 0).sum(1).double() / runs.sum(1)


def rate_curve(similarity, lengths, thresholds, frame_rate, max_run=8):
    """The average rate of a corpus as a function of the threshold.

    Arguments
    ---------
    similarity, lengths, max_run
        As in `find_runs`.
    thresholds : sequence of float
        In -1..1.
    frame_rate : float
        Frames in a second before merging, Hz.

    Returns
    -------
    torch.Tensor
        Hz, float64, shape [len(thresholds)]: merged frames of all items over
        their time. It never falls as the threshold rises.

    Example
    -------
    >>> similarity, lengths = torch.tensor([[0.9, 0.5, 0.7]]), torch.tensor([4])
    >>> rate_curve(similarity, lengths, [0.4, 0.6, 0.8, 1.0], 12.5).tolist()
    [3.125, 6.25, 9.375, 12.5]
    """
    counts = [
        (find_runs(similarity, lengths, threshold, max_run) > 0).sum()
        for threshold in thresholds
    ]
    return frame_rate * torch.stack(counts).double() / lengths.sum()


def threshold_for_rate(similarity, lengths, rate, frame_rate, max_run=8):
    """The highest threshold whose rate is not above a target, per item.

    The rate never falls as the threshold rises, and changes only where the
    threshold passes a similarity: bisection over these, log2(N) steps, is
    exact. Thresholds lie in the middle between two similarities.

    Arguments
    ---------
    similarity, lengths, max_run
        As in `find_runs`.
    rate : float
        Target in Hz. One below what `max_run` allows gives the lowest rate
        that there is.
    frame_rate : float
        Frames in a second before merging, Hz.

    Returns
    -------
    torch.Tensor
        Thresholds, float64, shape [B]; 1 if nothing needs to be merged.

    Example
    -------
    >>> similarity, lengths = torch.tensor([[0.9, 0.5, 0.7]]), torch.tensor([4])
    >>> threshold_for_rate(similarity, lengths, 9.9, 12.5)
    tensor([0.8000], dtype=torch.float64)
    """
    if not rate > 0:
        raise ValueError(f"rate must be above 0 Hz, found {rate}")
    transitions = length_mask(lengths - 1, similarity.shape[1])
    known = torch.where(transitions, similarity.double().nan_to_num(-1), 1)
    edges = F.pad(known, (1, 0), value=-1.0).sort(1).values
    upper = F.pad(edges[:, 1:], (0, 1), value=1.0)
    # none above: the last candidate is 1 itself
    candidates = F.pad((edges + upper) / 2, (0, 1), value=1.0)
    allowed = rate * lengths.double() / frame_rate * (1 + 1e-12)
    low = torch.zeros_like(lengths)
    high = torch.full_like(lengths, candidates.shape[1])
    # invariant: low fits, or is the first; high does not fit, or is past all
    while bool((high - low > 1).any()):
        middle = torch.where(high - low > 1, (low + high) // 2, low)
        threshold = candidates.gather(1, middle[:, None])[:, 0]
        counts = (find_runs(similarity, lengths, threshold, max_run) > 0).sum(1)
        fits = (counts <= allowed) | (middle == low)
        low = torch.where(fits, middle, low)
        high = torch.where(fits, high, middle)
    return candidates.gather(1, low[:, None])[:, 0]
