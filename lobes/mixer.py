"""MLP-Mixer: perceptrons over tokens, then over channels.

Tolstikhin et al., "MLP-Mixer: An all-MLP Architecture for Vision"
(2105.01601), with adaptive normalisation.
"""

from torch import nn
from torch.nn import functional as F

from speechbrain_flowmac.lobes.adaptive_norm import AdaptiveNorm
from speechbrain_flowmac.lobes.mlp import MLPBlock, pad_tokens


class MixerBlock(nn.Module):
    """Mixes the tokens of each channel, then the channels of each token.

    Arguments
    ---------
    num_tokens : int
        Most tokens of a signal; beyond the end of shorter ones are zeros.
    dim : int
        Channels D.
    hidden_dim : int
        Width of the perceptron over channels; that over tokens has twice
        their number.
    condition_dim : int
        Width C of what the norms adapt to.

    Example
    -------
    >>> import torch
    >>> block = MixerBlock(5, 8, 16, 4)
    >>> block(torch.randn(2, 3, 8), None, torch.randn(2, 1, 4)).shape
    torch.Size([2, 3, 8])
    """

    def __init__(self, num_tokens, dim, hidden_dim, condition_dim):
        super().__init__()
        self.num_tokens = num_tokens
        self.norm = AdaptiveNorm(dim, condition_dim)
        self.expand = nn.Linear(num_tokens, 2 * num_tokens)
        self.reduce = nn.Linear(2 * num_tokens, num_tokens)
        self.channels = MLPBlock(dim, hidden_dim, condition_dim)

    def forward(self, x, mask, condition):
        """x [B, N, D], mask [B, N], condition [B, N or 1, C] to [B, N, D]."""
        h = pad_tokens(self.norm(x, condition), mask, self.num_tokens)
        h = self.reduce(F.gelu(self.expand(h.mT))).mT
        return self.channels(x + h[:, : x.shape[1]], condition)


class Mixer(nn.Module):
    """A stack of blocks.

    Arguments
    ---------
    num_tokens : int
        Most tokens of a signal.
    dim : int
        Channels D.
    num_layers : int
        Blocks.
    hidden_dim : int or None
        Width of the perceptrons over channels; None is 2 D.
    condition_dim : int or None
        Width C of the condition; None is D.

    Example
    -------
    >>> import torch
    >>> trunk = Mixer(5, 8, 2)
    >>> trunk(torch.randn(2, 5, 8), None, torch.randn(2, 5, 8)).shape
    torch.Size([2, 5, 8])
    """

    receptive_field = None

    def __init__(
        self, num_tokens, dim, num_layers, hidden_dim=None, condition_dim=None
    ):
        super().__init__()
        hidden_dim = 2 * dim if hidden_dim is None else hidden_dim
        self.dim = dim
        self.condition_dim = dim if condition_dim is None else condition_dim
        self.blocks = nn.ModuleList(
            MixerBlock(num_tokens, dim, hidden_dim, self.condition_dim)
            for _ in range(num_layers)
        )

    def forward(self, x, mask, condition):
        """x [B, N, D], mask [B, N] or None, condition [B, N, C]."""
        for block in self.blocks:
            x = block(x, mask, condition)
        return x
