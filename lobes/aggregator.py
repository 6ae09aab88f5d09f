"""Query tokens that gather what the frames of a run hold.

Each run gets a query behind its frames: their mean plus a learnt vector. A
trunk sees frames and queries in one sequence, and what it makes of the
queries stands for the runs. More than a mean, it may weigh the frames, and
look around.

    f0 f1 [q0] f2 [q1] f3 f4 f5 [q2]      runs 2 1 3

Source: FlexiCodec (2510.00981).
"""

import torch
from torch import nn

from speechbrain_flowmac.lobes.frame_merging import frame_runs, merge_frames
from speechbrain_flowmac.lobes.lengths import length_mask


class QueryAggregator(nn.Module):
    """One vector for each run of frames.

    Arguments
    ---------
    trunk : torch.nn.Module
        `trunk(x [B, L, D], mask [B, L]) -> [B, L, D]`, with an attribute
        `dim`: frames and queries are the sequence, so its window counts both.

    Example
    -------
    >>> from speechbrain_flowmac.lobes.transformer import Transformer
    >>> aggregator = QueryAggregator(Transformer(8, 2, num_heads=2))
    >>> runs = torch.tensor([[2, 1, 3], [4, 1, 0]])
    >>> aggregator(torch.randn(2, 6, 8), runs).shape
    torch.Size([2, 3, 8])
    """

    def __init__(self, trunk):
        super().__init__()
        self.trunk = trunk
        self.query = nn.Parameter(0.02 * torch.randn(trunk.dim))

    def forward(self, frames, runs):
        """Aggregates.

        Arguments
        ---------
        frames : torch.Tensor
            Shape [B, N, D].
        runs : torch.Tensor
            Lengths of runs, int64 [B, R], as `find_runs` gives them.

        Returns
        -------
        torch.Tensor
            Shape [B, R, D], 0 past the last run of an item.
        """
        index, mask = frame_runs(runs)
        queries = merge_frames(frames, runs) + self.query
        frames = torch.where(
            mask.unsqueeze(-1), frames[:, : mask.shape[1]], 0.0
        )
        valid = runs > 0
        places = _places(index, mask, runs)
        # one stable sort puts queries behind their frames, padding at the end
        order = places.argsort(dim=1, stable=True).unsqueeze(-1)
        both = torch.cat([frames, queries], dim=1)
        x = both.gather(1, order.expand_as(both))
        lengths = mask.sum(1) + valid.sum(1)
        y = self.trunk(x, length_mask(lengths, x.shape[1]))
        at = places[:, mask.shape[1] :].masked_fill(~valid, 0)
        y = y.gather(1, at.unsqueeze(-1).expand_as(queries))
        return torch.where(valid.unsqueeze(-1), y, 0.0)


def _places(index, mask, runs):
    """Where frames, then queries, stand in the sequence, [B, N + R]."""
    steps = torch.arange(mask.shape[1], device=runs.device)
    numbers = torch.arange(runs.shape[1], device=runs.device)
    past = mask.shape[1] + runs.shape[1]
    # before a frame stand earlier frames and the queries of earlier runs
    of_frames = (steps + index).masked_fill(~mask, past)
    of_queries = (runs.cumsum(1) + numbers).masked_fill(runs == 0, past)
    return torch.cat([of_frames, of_queries], dim=1)
