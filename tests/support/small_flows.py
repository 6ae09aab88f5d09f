"""Flows of one number each, which train in seconds."""

import torch
from torch import nn

COUNT = 2000
DISTRIBUTION = torch.tensor([-1.0, 1.0]).repeat(COUNT // 2) + 0.1 * torch.randn(
    COUNT, generator=torch.Generator().manual_seed(0)
)
"""Data: two narrow modes at -1 and 1, shape [COUNT]."""


class SmallField(nn.Module):
    """A multilayer perceptron of the state and its times."""

    receptive_field = 0
    alignment = 1

    def __init__(self, num_times, width=64):
        super().__init__()
        self.net = nn.Sequential(
            nn.Linear(2 + num_times, width),
            nn.SiLU(),
            nn.Linear(width, width),
            nn.SiLU(),
            nn.Linear(width, 1),
        )

    def forward(self, x, t, mu, mask=None):
        """x, mu [B, 1, 1], t [B] or [B, num_times]."""
        times = t.reshape(len(t), 1, -1)
        return self.net(torch.cat([x, mu, times], dim=-1))


def train(objective, num_times, steps=400, batch=400, **options):
    """A flow of `DISTRIBUTION`.

    Arguments
    ---------
    objective : type
        Class of the flow.
    num_times : int
        Of its field.
    steps, batch : int
        Of the training.
    **options
        Of the flow.

    Returns
    -------
    Flow
        In evaluation mode.
    """
    torch.manual_seed(0)
    flow = objective(SmallField(num_times), **options)
    optimizer = torch.optim.Adam(flow.parameters(), 1e-2)
    schedule = torch.optim.lr_scheduler.LinearLR(optimizer, 1, 0.02, steps)
    chance = torch.Generator().manual_seed(1)
    mu = torch.zeros(batch, 1, 1)
    for _ in range(steps):
        chosen = torch.randint(COUNT, (batch,), generator=chance)
        mel = DISTRIBUTION[chosen, None, None]
        flow(mel, mu, None, chance).total.backward()
        optimizer.step()
        optimizer.zero_grad()
        schedule.step()
    return flow.eval()


def distance_of_samples(flow, sampling):
    """Wasserstein-1 distance of samples from `DISTRIBUTION`.

    Arguments
    ---------
    flow : Flow
        Trained.
    sampling : Sampling
        Its settings.

    Returns
    -------
    float
    """
    chance = torch.Generator().manual_seed(2)
    noise = torch.randn(COUNT, 1, 1, generator=chance)
    x = flow.sample(noise, torch.zeros_like(noise), None, sampling)
    sorted_x, sorted_data = x.flatten().sort()[0], DISTRIBUTION.sort()[0]
    return (sorted_x - sorted_data).abs().mean().item()
