"""The flow that is none."""

import torch

from speechbrain_flowmac.lobes.autoencoder import Autoencoder
from speechbrain_flowmac.lobes.sampling import Sampling


def test_it_regresses_the_condition():
    mel, mu = torch.randn(2, 2, 5, 3)
    mask = torch.arange(5) < torch.tensor([5, 2])[:, None]
    mel[1, 3] = torch.nan
    mu.requires_grad_()
    losses = Autoencoder()(mel, mu, mask, None)
    error = (mu - mel)[mask].square().mean()
    torch.testing.assert_close(losses.total, error)
    torch.testing.assert_close(losses.mse, error.detach())
    losses.total.backward()
    assert mu.grad[mask].any() and not mu.grad[~mask].any()


def test_it_evaluates_nothing_and_gives_the_condition_back():
    flow, sampling = Autoencoder(), Sampling(n_steps=4)
    noise, mu = torch.randn(2, 1, 5, 3)
    assert torch.equal(flow.sample(noise, mu, None, sampling), mu)
    assert flow.evaluations(sampling) == flow.receptive_field(sampling) == 0
    assert flow.alignment == 1 and not list(flow.parameters())
