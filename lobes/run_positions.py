"""Where in its run a frame stands, for what restores merged frames.

A merged frame is repeated for as long as it lasts, and all repetitions look
the same; what moved within the run can only be restored by who knows that one
frame is the first and another the last.

    tokens  a a a b c c       a run ends where a token changes
    before  0 1 2 0 0 1
    after   2 1 0 0 1 0

Shapes: B items, N frames, K codebooks.
"""

import torch
from torch import nn


def places_in_runs(tokens, mask=None):
    """How many equal frames stand before and after each frame.

    Arguments
    ---------
    tokens : torch.Tensor
        One row for each frame of time, int64 [B, N, K].
    mask : torch.Tensor or None
        Shape [B, N], True where valid.

    Returns
    -------
    tuple of torch.Tensor
        Two of shape [B, N], int64; what they say of padding means nothing.

    Example
    -------
    >>> tokens = torch.tensor([[[7], [7], [7], [1], [4], [4]]])
    >>> before, after = places_in_runs(tokens)
    >>> before.tolist(), after.tolist()
    ([[0, 1, 2, 0, 0, 1]], [[2, 1, 0, 0, 1, 0]])
    """
    changes = (tokens[:, 1:] != tokens[:, :-1]).any(-1)
    if mask is not None:
        changes = changes | ~mask[:, 1:]
    edge = changes.new_ones(len(tokens), 1)
    before = _since(torch.cat([edge, changes], 1))
    after = _since(torch.cat([changes, edge], 1).flip(1)).flip(1)
    return before, after


def _since(starts):
    """Steps since the last start; the first frame is one."""
    steps = torch.arange(starts.shape[1], device=starts.device)
    return steps - (steps * starts).cummax(1).values


class RunPositions(nn.Module):
    """A learnt vector for each place in a run, added to its frames.

    Arguments
    ---------
    dim : int
        Width H of frames.
    max_run : int
        Places from either end that are told apart. They start at zero.

    Example
    -------
    >>> positions = RunPositions(8, max_run=4)
    >>> tokens = torch.zeros(1, 5, 3, dtype=torch.long)
    >>> positions(torch.randn(1, 5, 8), tokens).shape
    torch.Size([1, 5, 8])
    """

    def __init__(self, dim, max_run=8):
        super().__init__()
        self.max_run = max_run
        self.before = nn.Parameter(torch.zeros(max_run, dim))
        self.after = nn.Parameter(torch.zeros(max_run, dim))

    @property
    def receptive_field(self):
        """Frames on each side that a place depends on."""
        return self.max_run - 1

    def forward(self, frames, tokens, mask=None):
        """Adds the places.

        Arguments
        ---------
        frames : torch.Tensor
            Shape [B, N, H].
        tokens, mask
            As for `places_in_runs`.

        Returns
        -------
        torch.Tensor
            Shape [B, N, H].
        """
        before, after = (
            place.clamp(max=self.max_run - 1)
            for place in places_in_runs(tokens, mask)
        )
        return frames + self.before[before] + self.after[after]
