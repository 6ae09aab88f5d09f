"""REPA: what a network computes is to resemble what a recogniser knows.

A small network maps hidden frames to the features of a frozen teacher; the
loss is how far the angle between them is from zero. It is for training alone.

Source: Yu et al., "Representation Alignment for Generation", 2410.06940.
"""

from torch import nn
from torch.nn import functional as F

from speechbrain_flowmac.lobes.flow_matching import masked_mean


class RepresentationAlignment(nn.Module):
    """One minus the mean cosine between hidden frames, projected, and features.

    Arguments
    ---------
    dim : int
        Width H of hidden frames.
    teacher_dim : int
        Width D of the features.
    hidden_dim : int
        Width of the network between them.

    Example
    -------
    >>> import torch
    >>> align = RepresentationAlignment(8, 6, hidden_dim=16)
    >>> align(torch.randn(2, 5, 8), torch.randn(2, 5, 6)).shape
    torch.Size([])
    """

    def __init__(self, dim, teacher_dim, hidden_dim=256):
        super().__init__()
        self.project = nn.Sequential(
            nn.Linear(dim, hidden_dim),
            nn.SiLU(),
            nn.Linear(hidden_dim, teacher_dim),
        )

    def forward(self, hidden, features, mask=None):
        """The loss.

        Arguments
        ---------
        hidden : torch.Tensor
            Shape [B, N, H].
        features : torch.Tensor
            Of the teacher at the same rate, shape [B, N, D].
        mask : torch.Tensor or None
            Shape [B, N], True where valid.

        Returns
        -------
        torch.Tensor
            Scalar in 0..2.
        """
        guess = self.project(hidden).float()
        likeness = F.cosine_similarity(guess, features.detach(), dim=-1)
        return 1 - masked_mean(likeness.unsqueeze(-1), mask)
