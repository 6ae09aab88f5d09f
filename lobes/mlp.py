"""Residual multilayer perceptrons: the plainest trunk."""

from torch import nn
from torch.nn import functional as F

from speechbrain_flowmac.lobes.adaptive_norm import AdaptiveNorm


class MLPBlock(nn.Module):
    """x + W_2 gelu(W_1 norm(x)), for each token alone.

    Arguments
    ---------
    dim : int
        Channels D.
    hidden_dim : int
        Width between the two layers.
    condition_dim : int
        Width C of what the norm adapts to.

    Example
    -------
    >>> import torch
    >>> block = MLPBlock(8, 16, 4)
    >>> block(torch.randn(2, 5, 8), torch.randn(2, 5, 4)).shape
    torch.Size([2, 5, 8])
    """

    def __init__(self, dim, hidden_dim, condition_dim):
        super().__init__()
        self.norm = AdaptiveNorm(dim, condition_dim)
        self.expand = nn.Linear(dim, hidden_dim)
        self.reduce = nn.Linear(hidden_dim, dim)

    def forward(self, x, condition):
        """x [B, N, D], condition [B, N or 1, C] to [B, N, D]."""
        h = self.norm(x, condition)
        return x + self.reduce(F.gelu(self.expand(h)))


class MLP(nn.Module):
    """A stack of blocks, which sees each token alone.

    `FlatField` makes it see whole signals.

    Arguments
    ---------
    dim : int
        Channels D.
    num_layers : int
        Blocks.
    hidden_dim : int or None
        Width of the blocks; None is 2 D.
    condition_dim : int or None
        Width C of the condition; None is D.

    Example
    -------
    >>> import torch
    >>> trunk = MLP(8, 2, condition_dim=4)
    >>> trunk(torch.randn(2, 5, 8), None, torch.randn(2, 5, 4)).shape
    torch.Size([2, 5, 8])
    """

    receptive_field = 0

    def __init__(self, dim, num_layers, hidden_dim=None, condition_dim=None):
        super().__init__()
        hidden_dim = 2 * dim if hidden_dim is None else hidden_dim
        self.dim = dim
        self.condition_dim = dim if condition_dim is None else condition_dim
        self.blocks = nn.ModuleList(
            MLPBlock(dim, hidden_dim, self.condition_dim)
            for _ in range(num_layers)
        )

    def forward(self, x, mask, condition):
        """x [B, N, D], mask (unused: tokens are alone), condition [B, N, C]."""
        for block in self.blocks:
            x = block(x, condition)
        return x


class FlatField(nn.Module):
    """A field of whole signals: all their tokens are one.

    Arguments
    ---------
    field : AdaptiveField
        Of width `num_tokens` * M.
    num_tokens : int
        Most tokens of a signal; shorter ones end with zeros.

    Example
    -------
    >>> import torch
    >>> from speechbrain_flowmac.lobes.adaptive_norm import AdaptiveField
    >>> field = FlatField(AdaptiveField(5 * 4, MLP(8, 2)), num_tokens=5)
    >>> x = torch.randn(2, 5, 4)
    >>> field(x, torch.rand(2), x).shape
    torch.Size([2, 5, 4])
    """

    alignment = 1
    receptive_field = None

    def __init__(self, field, num_tokens):
        super().__init__()
        self.field = field
        self.num_tokens = num_tokens

    def forward(self, x, t, mu, mask=None):
        """The field at (x, t), given mu."""
        flat = [
            pad_tokens(part, mask, self.num_tokens).flatten(1).unsqueeze(1)
            for part in (x, mu)
        ]
        whole = self.field(flat[0], t, flat[1])
        return whole.reshape(len(x), self.num_tokens, -1)[:, : x.shape[1]]


def pad_tokens(x, mask, num_tokens):
    """Zeros where a signal has ended, up to a number of tokens.

    Arguments
    ---------
    x : torch.Tensor
        Shape [B, N, D].
    mask : torch.Tensor or None
        Shape [B, N], True where valid.
    num_tokens : int
        At least N.

    Returns
    -------
    torch.Tensor
        Shape [B, num_tokens, D].

    Example
    -------
    >>> import torch
    >>> mask = torch.tensor([[True, False]])
    >>> pad_tokens(torch.ones(1, 2, 1), mask, 3).flatten()
    tensor([1., 0., 0.])
    """
    missing = num_tokens - x.shape[1]
    if missing < 0:
        raise ValueError(
            f"made for up to {num_tokens} tokens, found {x.shape[1]}"
        )
    if mask is not None:
        x = x.masked_fill(~mask.unsqueeze(-1), 0.0)
    return F.pad(x, (0, 0, 0, missing))
