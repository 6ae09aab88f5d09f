"""Alignment of hidden frames with a teacher's features."""

import torch

from speechbrain_flowmac.lobes.representation_alignment import (
    RepresentationAlignment,
)


def make():
    torch.manual_seed(0)
    return RepresentationAlignment(8, 6, hidden_dim=16)


def test_it_is_one_less_the_cosine():
    align = make()
    hidden = torch.randn(2, 5, 8)
    guess = align.project(hidden).detach()
    for features, expected in ((3 * guess, 0.0), (-guess, 2.0)):
        torch.testing.assert_close(
            align(hidden, features), torch.tensor(expected), atol=1e-6, rtol=0
        )


def test_padding_does_not_count():
    align = make()
    hidden, features = torch.randn(2, 5, 8), torch.randn(2, 5, 6)
    mask = torch.ones(2, 5, dtype=torch.bool)
    mask[1, 2:] = False
    loss = align(hidden, features, mask)
    hidden[1, 2:], features[1, 2:] = 7.0, torch.nan
    torch.testing.assert_close(align(hidden, features, mask), loss)


def test_the_teacher_gets_no_gradient_and_hidden_frames_learn():
    align = make()
    hidden = torch.randn(1, 9, 8, requires_grad=True)
    features = torch.randn(1, 9, 6, requires_grad=True)
    optimizer = torch.optim.Adam([hidden, *align.parameters()], lr=0.05)
    first = align(hidden, features).item()
    for _ in range(50):
        optimizer.zero_grad()
        align(hidden, features).backward()
        optimizer.step()
    assert features.grad is None
    assert align(hidden, features).item() < 0.2 * first
