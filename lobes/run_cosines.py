"""A run of latents as its slowest cosines, so that it can move.

One vector that is repeated for a run says nothing of what moves within it. The
first J coefficients of a cosine transform along the run do: they are all there
is where a run has no more than J latents, and the slowest part where it has
more. The first is the mean.

    c_j = mean_t phi_j(t) x_t,     x_t = sum_j phi_j(t) c_j,
    phi_0 = 1,   phi_j(t) = sqrt(2) cos(pi j (t + 1/2) / n),   j < n

Shapes: B items, N frames of `join` latents of width W, n latents in a run, R
runs, K codebooks.
"""

import math

import torch
from torch import nn

from speechbrain_flowmac.lobes.frame_merging import frame_runs, merge_frames
from speechbrain_flowmac.lobes.run_positions import places_in_runs


def run_basis(places, counts, num_coefficients):
    """phi_j(t) for t of n.

    Arguments
    ---------
    places : torch.Tensor
        t in 0..n-1, int64 of any shape [...].
    counts : torch.Tensor
        n, of the same shape.
    num_coefficients : int
        J.

    Returns
    -------
    torch.Tensor
        float32, shape [..., J]; 0 for j >= n.

    Example
    -------
    >>> basis = run_basis(torch.arange(3), torch.tensor([3, 3, 3]), 4)
    >>> (basis.T @ basis / 3).round().tolist()[3]
    [0.0, 0.0, 0.0, 0.0]
    """
    j = torch.arange(num_coefficients, device=places.device)
    places, counts = places.double().unsqueeze(-1), counts.unsqueeze(-1)
    basis = math.sqrt(2) * (math.pi * j * (places + 0.5) / counts).cos()
    basis = basis.masked_fill(j == 0, 1.0).masked_fill(j >= counts, 0.0)
    return basis.float()


class RunAnalysis(nn.Module):
    """The coefficients of each run; an aggregator.

    Arguments
    ---------
    num_coefficients : int
        J.
    join : int
        Latents in a frame.

    Example
    -------
    >>> frames, runs = torch.randn(1, 6, 2 * 5), torch.tensor([[1, 3, 2]])
    >>> RunAnalysis(num_coefficients=4, join=2)(frames, runs).shape
    torch.Size([1, 3, 20])
    """

    def __init__(self, num_coefficients, join=1):
        super().__init__()
        self.num_coefficients = num_coefficients
        self.join = join

    def forward(self, frames, runs):
        """Frames [B, N, join * W] and runs [B, R] to [B, R, J * W]."""
        runs = runs * self.join
        index, mask = frame_runs(runs)
        latents = frames.unflatten(-1, (self.join, -1)).flatten(1, 2)
        starts = (runs.cumsum(1) - runs).gather(1, index)
        steps = torch.arange(mask.shape[1], device=runs.device)
        basis = run_basis(
            steps - starts, runs.gather(1, index), self.num_coefficients
        )
        latents = latents[:, : mask.shape[1]].unsqueeze(-2)
        return merge_frames((basis.unsqueeze(-1) * latents).flatten(2), runs)


class RunSynthesis(nn.Module):
    """Frames from the coefficients of their runs; an expander.

    Arguments
    ---------
    num_coefficients, join
        As for `RunAnalysis`.
    max_run : int
        Longest run in frames. Of equal runs in a row, which look like one
        that is longer, the middle is taken to stand still.

    Example
    -------
    >>> synthesis = RunSynthesis(num_coefficients=4, join=2)
    >>> tokens = torch.tensor([[[7], [7], [1]]])
    >>> synthesis(torch.randn(1, 3, 20), tokens).shape
    torch.Size([1, 3, 10])
    """

    def __init__(self, num_coefficients, join=1, max_run=8):
        super().__init__()
        self.num_coefficients = num_coefficients
        self.join = join
        self.max_run = max_run

    @property
    def receptive_field(self):
        """Frames on each side that the place of a frame depends on."""
        return self.max_run - 1

    def forward(self, coefficients, tokens, mask=None):
        """Restores.

        Arguments
        ---------
        coefficients : torch.Tensor
            Repeated for each frame of a run, shape [B, N, J * W].
        tokens, mask
            As for `places_in_runs`.

        Returns
        -------
        torch.Tensor
            Shape [B, N, join * W].
        """
        before, after = (
            place.clamp(max=self.max_run - 1).unsqueeze(-1)
            for place in places_in_runs(tokens, mask)
        )
        parts = torch.arange(self.join, device=tokens.device)
        basis = run_basis(
            before * self.join + parts,
            (before + after + 1) * self.join + 0 * parts,
            self.num_coefficients,
        )
        vectors = coefficients.unflatten(-1, (self.num_coefficients, -1))
        return (basis.unsqueeze(-1) * vectors.unsqueeze(2)).sum(3).flatten(2)
