"""Mel encoder and its mirror, the mel decoder.

FlowMAC (2409.17635): a 1x1 convolution, then a trunk of attention blocks.
The trunk is given: `Transformer` as in the paper, or `ConvNeXt` for CPUs.
With `stride` above 1 the encoder stacks that many mel frames into one token
frame, so that a mel of twice the frame rate gives the same token rate.
"""

from torch import nn


def join_frames(x, stride):
    """[B, N, M] to [B, ceil(N / stride), stride * M], zeros behind the end."""
    x = nn.functional.pad(x, (0, 0, 0, -x.shape[1] % stride))
    return x.unflatten(1, (-1, stride)).flatten(2)


def stride_mask(mask, stride):
    """Mask [B, N * stride] of mel frames to that of token frames, or None.

    A token frame is valid if any of its mel frames is.
    """
    if mask is None or stride == 1:
        return mask
    return mask.unflatten(1, (-1, stride)).any(-1)


class MelEncoder(nn.Module):
    """Normalised mel to latent frames.

    Arguments
    ---------
    n_mels : int
        Mel bands M.
    trunk : torch.nn.Module
        `trunk(x [B, N, D], mask [B, N]) -> [B, N, D]`, with attributes `dim`
        and `receptive_field` (frames on each side, or None).
    latent_dim : int
        H.
    stride : int
        Mel frames per token frame.

    Example
    -------
    >>> import torch
    >>> from speechbrain_flowmac.lobes.convnext import ConvNeXt
    >>> encoder = MelEncoder(100, ConvNeXt(8, 1), latent_dim=4, stride=2)
    >>> encoder(torch.randn(1, 93, 100)).shape
    torch.Size([1, 47, 4])
    """

    def __init__(self, n_mels, trunk, latent_dim, stride=1):
        super().__init__()
        self.stride = stride
        self.project_in = nn.Linear(n_mels * stride, trunk.dim)
        self.trunk = trunk
        self.norm = nn.LayerNorm(trunk.dim)
        self.project_out = nn.Linear(trunk.dim, latent_dim)

    @property
    def receptive_field(self):
        """Token frames seen on each side, or None if unbounded."""
        return self.trunk.receptive_field

    def forward(self, mel, mask=None):
        """[B, N_mel, M], mask [B, N_mel] to [B, N, H], N = ceil(N_mel / stride).

        Frames that the mask excludes mean nothing.
        """
        if mask is not None:
            mel = mel * mask.unsqueeze(-1)
            mask = nn.functional.pad(mask, (0, -mel.shape[1] % self.stride))
        x = self.project_in(join_frames(mel, self.stride))
        x = self.trunk(x, stride_mask(mask, self.stride))
        return self.project_out(self.norm(x))


class MelDecoder(nn.Module):
    """Latent frames to normalised mel: the encoder mirrored; arguments as there.

    Example
    -------
    >>> import torch
    >>> from speechbrain_flowmac.lobes.convnext import ConvNeXt
    >>> decoder = MelDecoder(4, ConvNeXt(8, 1), n_mels=100, stride=2)
    >>> decoder(torch.randn(1, 47, 4)).shape
    torch.Size([1, 94, 100])
    """

    def __init__(self, latent_dim, trunk, n_mels, stride=1):
        super().__init__()
        self.stride = stride
        self.project_in = nn.Linear(latent_dim, trunk.dim)
        self.trunk = trunk
        self.norm = nn.LayerNorm(trunk.dim)
        self.project_out = nn.Linear(trunk.dim, n_mels * stride)

    @property
    def receptive_field(self):
        """Token frames seen on each side, or None if unbounded."""
        return self.trunk.receptive_field

    def forward(self, latents, mask=None):
        """[B, N, H], mask [B, N] to [B, N * stride, M]."""
        # the decoder may be cast, what decides tokens never is
        latents = latents.to(self.project_in.weight.dtype)
        x = self.trunk(self.project_in(latents), mask)
        x = self.project_out(self.norm(x))
        return x.unflatten(-1, (self.stride, -1)).flatten(1, 2)
