"""An encoder and a decoder of mels at a part of their frame rate.

They wrap a pair that works at a higher rate, so that one that was trained at
that rate is a start: frames are pooled behind the encoder, and spread again
before the decoder.
"""

import torch
from torch import nn

from speechbrain_flowmac.lobes.encoder import join_frames, stride_mask
from speechbrain_flowmac.lobes.lengths import num_frames


class PooledEncoder(nn.Module):
    """A mel encoder, then one frame for each few; it starts as their mean.

    Arguments
    ---------
    encoder : MelEncoder
        With a stride of its own, 1 or more.
    latent_dim : int
        Width H of its latents.
    pool : int
        Latents per token frame.

    Example
    -------
    >>> from speechbrain_flowmac.lobes.convnext import ConvNeXt
    >>> from speechbrain_flowmac.lobes.encoder import MelEncoder
    >>> encoder = PooledEncoder(MelEncoder(10, ConvNeXt(8, 1), 4), 4, pool=2)
    >>> encoder(torch.randn(1, 5, 10)).shape
    torch.Size([1, 3, 4])
    """

    def __init__(self, encoder, latent_dim, pool):
        super().__init__()
        self.encoder = encoder
        self.count = pool
        self.stride = pool * encoder.stride
        self.pool = nn.Linear(pool * latent_dim, latent_dim)
        mean = torch.eye(latent_dim).repeat(1, pool) / pool
        self.pool.weight.data.copy_(mean)
        self.pool.bias.data.zero_()

    @property
    def receptive_field(self):
        """Token frames seen on each side, or None if unbounded."""
        reach = self.encoder.receptive_field
        return None if reach is None else num_frames(reach, self.count)

    def forward(self, mel, mask=None):
        """[B, N_mel, M] to [B, ceil(N_mel / stride), H], as `MelEncoder`."""
        x = self.encoder(mel, mask)
        if mask is not None:
            missing = -mask.shape[1] % self.encoder.stride
            mask = nn.functional.pad(mask, (0, missing))
            x = x * stride_mask(mask, self.encoder.stride).unsqueeze(-1)
        return self.pool(join_frames(x, self.count))


class BottleneckDecoder(nn.Module):
    """A trunk at the token rate, then frames are spread and decoded to a mel.

    Arguments
    ---------
    bottleneck : torch.nn.Module
        `bottleneck(x [B, N, H], mask [B, N]) -> [B, N, H]`, with
        `receptive_field`. A `Transformer` with a window looks beyond what
        was merged, at any length of a signal.
    decoder : MelDecoder
        With a stride of its own, 1 or more.
    latent_dim : int
        H.
    spread : int
        Frames of the decoder per token frame.

    Example
    -------
    >>> from speechbrain_flowmac.lobes.convnext import ConvNeXt
    >>> from speechbrain_flowmac.lobes.encoder import MelDecoder
    >>> from speechbrain_flowmac.lobes.transformer import Transformer
    >>> decoder = BottleneckDecoder(
    ...     Transformer(4, 1, num_heads=2, window=3),
    ...     MelDecoder(4, ConvNeXt(8, 1), 10),
    ...     latent_dim=4,
    ...     spread=2,
    ... )
    >>> decoder(torch.randn(1, 3, 4)).shape, decoder.receptive_field
    (torch.Size([1, 6, 10]), 5)
    """

    def __init__(self, bottleneck, decoder, latent_dim, spread):
        super().__init__()
        self.bottleneck = bottleneck
        self.decoder = decoder
        self.count = spread
        self.stride = spread * decoder.stride
        self.spread = nn.Linear(latent_dim, spread * latent_dim)
        repeat = torch.eye(latent_dim).repeat(spread, 1)
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
        return reaches[0] + num_frames(reaches[1], self.count)

    def forward(self, latents, mask=None):
        """[B, N, H], mask [B, N] to [B, N * stride, M]."""
        return self.render(self.restore(latents, mask), mask)

    def restore(self, latents, mask=None):
        """[B, N, H] to what the bottleneck makes of it, [B, N, H]."""
        # the decoder may be cast, what decides tokens never is
        return self.bottleneck(latents.to(self.spread.weight.dtype), mask)

    def render(self, x, mask=None):
        """What `restore` gave, [B, N, H], to [B, N * stride, M]."""
        x = self.spread(x).unflatten(-1, (self.count, -1)).flatten(1, 2)
        if mask is not None:
            mask = mask.repeat_interleave(self.count, dim=1)
        return self.decoder(x, mask)
