"""Places of frames in their runs."""

import torch

from speechbrain_flowmac.lobes.frame_merging import unmerge_frames
from speechbrain_flowmac.lobes.run_positions import (
    RunPositions,
    places_in_runs,
)


def runs():
    runs = torch.tensor([[3, 1, 2, 4], [1, 5, 0, 0]])
    tokens = torch.arange(8).reshape(2, 4, 1).repeat(1, 1, 2)
    return unmerge_frames(tokens, runs), torch.tensor([10, 6])


def positions(max_run=8):
    torch.manual_seed(0)
    made = RunPositions(4, max_run)
    for table in made.parameters():
        torch.nn.init.normal_(table)
    return made


def test_places_count_from_both_ends():
    tokens, lengths = runs()
    mask = torch.arange(10) < lengths[:, None]
    before, after = places_in_runs(tokens, mask)
    assert before[0].tolist() == [0, 1, 2, 0, 0, 1, 0, 1, 2, 3]
    assert after[0].tolist() == [2, 1, 0, 0, 1, 0, 3, 2, 1, 0]
    assert before[1, :6].tolist() == [0, 0, 1, 2, 3, 4]
    assert after[1, :6].tolist() == [0, 4, 3, 2, 1, 0]


def test_a_run_ends_where_any_codebook_changes():
    tokens = torch.tensor([[[1, 5], [1, 5], [1, 6], [2, 6]]])
    assert places_in_runs(tokens)[0].tolist() == [[0, 1, 0, 0]]


def test_a_batch_has_the_places_of_its_items():
    tokens, lengths = runs()
    mask = torch.arange(10) < lengths[:, None]
    # padding that goes on like the last frame
    tokens[1, 6:] = tokens[1, 5]
    frames = torch.randn(2, 10, 4)
    both = positions()(frames, tokens, mask)
    alone = positions()(frames[1:, :6], tokens[1:, :6])
    assert torch.equal(both[1, :6], alone[0])


def test_it_starts_as_nothing():
    frames = torch.randn(1, 5, 4)
    tokens = torch.zeros(1, 5, 1, dtype=torch.long)
    assert torch.equal(RunPositions(4)(frames, tokens), frames)


def test_what_lies_beyond_its_reach_does_not_matter():
    made = positions(max_run=4)
    reach = made.receptive_field
    tokens = torch.zeros(1, 30, 1, dtype=torch.long)
    frames = torch.zeros(1, 30, 4)
    whole = made(frames, tokens)
    changed = tokens.clone()
    changed[:, 15] = 1
    where = (made(frames, changed) != whole).any(-1)[0].nonzero()
    assert where.min() == 15 - reach and where.max() == 15 + reach
    part = made(frames[:, 5:20], tokens[:, 5:20])
    assert torch.equal(part[:, reach:-reach], whole[:, 5 + reach : 20 - reach])
