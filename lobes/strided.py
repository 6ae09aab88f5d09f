"""An encoder and a decoder of mels at a part of their frame rate.

They wrap a pair that works at the rate of the mels, so that one that was
trained at that rate is a start: frames are pooled behind the encoder, and
spread again before the decoder.
"""

import torch
from torch import nn

from speechbrain_flowmac.lobes.encoder import join_frames
from speechbrain_flowmac.lobes.lengths import num_frames


class PooledEncoder(nn.Module):
    """A mel encoder, then one frame for each few; it starts as their mean.

    Arguments
    ---------
    encoder : MelEncoder
        At the mel's rate.
    latent_dim : int
        Width H of its latents.
    stride : int
        Mel frames per token frame.

    Example
    -------
    >>> from speechbrain_flowmac.lobes.convnext import ConvNeXt
    >>> from speechbrain_flowmac.lobes.encoder import MelEncoder
    >>> encoder = PooledEncoder(MelEncoder(10, ConvNeXt(8, 1), 4), 4, stride=2)
    >>> encoder(torch.randn(1, 5, 10)).shape
    torch.Size([1, 3, 4])
    """

    def __init__(self, encoder, latent_dim, stride):
        super().__init__()
        self.encoder = encoder
        self.stride = stride
        self.pool = nn.Linear(stride * latent_dim, latent_dim)
        mean = torch.eye(latent_dim).repeat(1, stride) / stride
        self.pool.weight.data.copy_(mean)
        self.pool.bias.data.zero_()

    @property
    def receptive_field(self):
        """Token frames seen on each side, or None if unbounded."""
        reach = self.encoder.receptive_field
        return None if reach is None else num_frames(reach, self.stride)

    def forward(self, mel, mask=None):
        """[B, N_mel, M] to [B, ceil(N_mel / stride), H], as `MelEncoder`."""
        x = self.encoder(mel, mask)
        if mask is not None:
            x = x * mask.unsqueeze(-1)
        return self.pool(join_frames(x, self.stride))


class BottleneckDecoder(nn.Module):
    """A trunk at the token rate, then frames are spread and decoded to a mel.

    Arguments
    ---------
    bottleneck : torch.nn.Module
        `bottleneck(x [B, N, H], mask [B, N]) -> [B, N, H]`, with
        `receptive_field`. A `Transformer` with a window looks beyond what
        was merged, at any length of a signal.
    decoder : MelDecoder
        At the mel's rate.
    latent_dim : int
        H.
    stride : int
        Mel frames per token frame.

    Example
    -------
    >>> from speechbrain_flowmac.lobes.convnext import ConvNeXt
    >>> from speechbrain_flowmac.lobes.encoder import MelDecoder
    >>> from speechbrain_flowmac.lobes.transformer import Transformer
    >>> decoder = BottleneckDecoder(
    ...     Transformer(4, 1, num_heads=2, window=3),
    ...     MelDecoder(4, ConvNeXt(8, 1), 10),
    ...     latent_dim=4,
    ...     stride=2,
    ... )
    >>> decoder(torch.randn(1, 3, 4)).shape, decoder.receptive_field
    (torch.Size([1, 6, 10]), 5)
    """

    def __init__(self, bottleneck, decoder, latent_dim, stride):
        super().__init__()
        self.bottleneck = bottleneck
        self.decoder = decoder
        self.stride = stride
        self.spread = nn.Linear(latent_dim, stride * latent_dim)
        repeat = torch.eye(latent_dim).repeat(stride, 1)
        self.spread.weight.data.copy_(repeat)
        self.spread.bias.data.zero_()

    @property
    def receptive_field(self):
        """Token frames seen on each side, or None if unbounded."""
        reaches = (
            self.bottleneck.receptive_field,
            self.decoder.receptive_field,
        )
        if None in reaches:
            return None
        return reaches[0] + num_frames(reaches[1], self.stride)

    def forward(self, latents, mask=None):
        """[B, N, H], mask [B, N] to [B, N * stride, M]."""
        # the decoder may be cast, what decides tokens never is
        x = self.bottleneck(latents.to(self.spread.weight.dtype), mask)
        x = self.spread(x).unflatten(-1, (self.stride, -1)).flatten(1, 2)
        if mask is not None:
            mask = mask.repeat_interleave(self.stride, dim=1)
        return self.decoder(x, mask)
