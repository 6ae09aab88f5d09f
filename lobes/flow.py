"""What a codec asks of its flow, whatever the objective.

A flow carries noise x_0, at time t = 0, to data x_1, at t = 1, given the
decoded mel mu. A new objective is a subclass of `Flow`; nothing but the flow
itself knows what networks it has and how it takes its steps.
"""

from typing import NamedTuple

from torch import Tensor, nn


class FlowLosses(NamedTuple):
    """What a flow says of a batch.

    Arguments
    ---------
    total : torch.Tensor
        Scalar to minimise.
    mse : torch.Tensor
        Mean square error without weights, for logs, where `total` may be
        weighted by itself until it says nothing; no gradient.
    """

    total: Tensor
    mse: Tensor


class Flow(nn.Module):
    """The interface of all flows."""

    alignment = 1
    """Parts of a signal must start at a multiple of so many frames."""

    extra_field = None
    """Name of a network that only training needs: None may stand in its place,
    and an exported model goes without."""

    def forward(self, mel, mu, mask, generator):
        """Same as `loss`."""
        return self.loss(mel, mu, mask, generator)

    def loss(self, mel, mu, mask, generator):
        """The objective of a batch.

        Arguments
        ---------
        mel : torch.Tensor
            Data x_1, normalised, shape [B, N, M].
        mu : torch.Tensor
            Condition, shape [B, N, M]; gradients flow into it.
        mask : torch.Tensor or None
            Shape [B, N], True where valid; padding may hold anything.
        generator : torch.Generator
            Source of noise, times and dropout, on the tensors' device; one
            per rank, so that ranks do not share noise.

        Returns
        -------
        FlowLosses
        """
        raise NotImplementedError

    def sample(self, noise, mu, mask, sampling):
        """From noise to a mel, without gradients.

        Arguments
        ---------
        noise : torch.Tensor
            White, of deviation 1, shape [B, N, M].
        mu : torch.Tensor
            Condition, shape [B, N, M].
        mask : torch.Tensor or None
            Shape [B, N], True where valid.
        sampling : Sampling
            From `lobes.sampling`, of at least one step.

        Returns
        -------
        torch.Tensor
            Normalised mel, shape [B, N, M].
        """
        raise NotImplementedError

    def evaluations(self, sampling):
        """How often `sample` calls a network; None if that depends on the
        signal."""
        raise NotImplementedError

    def receptive_field(self, sampling):
        """Mel frames on each side that a sampled frame depends on, or None
        if there is no bound."""
        raise NotImplementedError

    def adopt(self, state):
        """Weights of another objective as those to start this one from.

        Arguments
        ---------
        state : dict
            State dict of a flow with the same networks.

        Returns
        -------
        dict
            What `load_state_dict` is to take.
        """
        return state


def clear_padding(mask, *tensors):
    """Zeroes what stands outside the mask, even what is not finite.

    Arguments
    ---------
    mask : torch.Tensor or None
        Shape [B, N], True where valid; None changes nothing.
    *tensors : torch.Tensor
        Shapes [B, N, M].

    Returns
    -------
    tuple of torch.Tensor

    Example
    -------
    >>> import torch
    >>> mask = torch.tensor([[True, False]])
    >>> clear_padding(mask, torch.full((1, 2, 1), 3.0))[0].flatten()
    tensor([3., 0.])
    """
    if mask is None:
        return tensors
    padding = ~mask.unsqueeze(-1)
    return tuple(tensor.masked_fill(padding, 0.0) for tensor in tensors)
