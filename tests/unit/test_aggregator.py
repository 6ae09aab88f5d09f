"""Query tokens over runs of frames: places, masks, batches, learning."""

import pytest
import torch
from torch import nn

from speechbrain_flowmac.lobes.aggregator import QueryAggregator
from speechbrain_flowmac.lobes.frame_merging import merge_frames
from speechbrain_flowmac.lobes.transformer import Transformer

D = 8
RUNS = torch.tensor([[2, 1, 3, 1], [4, 1, 0, 0], [1, 0, 0, 0]])


def noise(seed, *shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def make(window=None, trunk=None):
    torch.manual_seed(0)
    if trunk is None:
        trunk = Transformer(D, 2, num_heads=2, window=window)
    return QueryAggregator(trunk).double().eval()


class Watched(nn.Module):
    """A trunk that keeps what it is given and hands it on."""

    dim = D

    def forward(self, x, mask):
        self.seen = x, mask
        return x


def test_queries_stand_behind_their_frames():
    aggregator = make(trunk=Watched())
    frames = noise(0, 3, 7, D).double()
    y = aggregator(frames, RUNS)
    queries = merge_frames(frames, RUNS) + aggregator.query
    x, mask = aggregator.trunk.seen
    for i, runs in enumerate(RUNS.tolist()):
        expected, start = [], 0
        for r, run in enumerate(runs):
            if run:
                expected += [*frames[i, start : start + run], queries[i, r]]
                start += run
        length = len(expected)
        assert torch.equal(x[i, :length], torch.stack(expected))
        assert mask[i].tolist() == [n < length for n in range(x.shape[1])]
    # the trunk changes nothing, so the queries come back
    valid = (RUNS > 0).unsqueeze(-1)
    assert torch.equal(y, torch.where(valid, queries, 0))


@pytest.mark.parametrize("window", [None, 3])
@pytest.mark.parametrize("padding", [0.0, 1e4, float("nan")])
def test_a_batch_is_its_items_whatever_the_padding(window, padding):
    aggregator = make(window)
    frames = noise(1, 3, 9, D).double()  # longer than the longest item
    for i, length in enumerate(RUNS.sum(1).tolist()):
        frames[i, length:] = padding
    batch = aggregator(frames, RUNS)
    for i, runs in enumerate(RUNS):
        own = runs[runs > 0].unsqueeze(0)
        single = aggregator(frames[i : i + 1, : int(own.sum())], own)
        count = own.shape[1]
        torch.testing.assert_close(
            batch[i : i + 1, :count], single, rtol=0, atol=1e-12
        )
        assert not batch[i, count:].any()


def test_padding_gets_no_gradient():
    frames = noise(2, 3, 7, D).double().requires_grad_()
    aggregator = make()
    aggregator(frames, RUNS).square().sum().backward()
    for grad, length in zip(frames.grad, RUNS.sum(1), strict=True):
        assert grad[:length].any(-1).all() and not grad[length:].any()
    assert all(p.grad.isfinite().all() for p in aggregator.parameters())


def test_an_item_without_frames_gives_nothing():
    runs = torch.tensor([[2, 1], [0, 0]])
    y = make()(noise(3, 2, 3, D).double(), runs)
    assert y[0].isfinite().all() and not y[1].any()


def test_runs_of_one_frame_are_aggregated_too():
    runs = torch.ones(1, 5, dtype=torch.int64)
    frames = noise(4, 1, 5, D).double()
    y = make()(frames, runs)
    assert y.shape == frames.shape and not torch.equal(y, frames)


def test_it_learns_what_a_mean_cannot_tell():
    """The first frame of each run, from runs of three."""
    torch.manual_seed(0)
    aggregator = QueryAggregator(Transformer(D, 1, num_heads=2))
    head = nn.Linear(D, 1)
    parameters = [*aggregator.parameters(), *head.parameters()]
    optimizer = torch.optim.Adam(parameters, 1e-2)
    runs = torch.full((32, 2), 3)
    for step in range(150):
        frames = noise(step, 32, 6, D)
        target = frames[:, ::3, :1]
        error = (head(aggregator(frames, runs)) - target).square().mean()
        optimizer.zero_grad()
        error.backward()
        optimizer.step()
    # the best that a mean tells of one of three has 2/3 of its variance left
    assert error < 0.4
