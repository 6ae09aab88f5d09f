"""An encoder and a decoder at a part of their frame rate.

They wrap a pair that works at a higher rate, so that one that was trained at
that rate is a start: behind the encoder latents are narrowed, and those of a
frame are joined; before the decoder they are parted and widened again.
"""

from torch import nn

from speechbrain_flowmac.lobes.encoder import join_frames, stride_mask
from speechbrain_flowmac.lobes.lengths import num_frames


class JoinedEncoder(nn.Module):
    """A mel encoder, whose latents are narrowed and joined to frames.

    Arguments
    ---------
    encoder : MelEncoder
        With a stride of its own, 1 or more.
    latent_dim : int
        Width of its latents.
    width : int
        What they are narrowed to, W.
    join : int
        Latents per frame.

    Example
    -------
    >>> import torch
    >>> from speechbrain_flowmac.lobes.convnext import ConvNeXt
    >>> from speechbrain_flowmac.lobes.encoder import MelEncoder
    >>> inner = MelEncoder(10, ConvNeXt(8, 1), 6)
    >>> encoder = JoinedEncoder(inner, latent_dim=6, width=4, join=2)
    >>> encoder(torch.randn(1, 5, 10)).shape
    torch.Size([1, 3, 8])
    """

    def __init__(self, encoder, latent_dim, width, join):
        super().__init__()
        self.encoder = encoder
        self.join = join
        self.stride = join * encoder.stride
        self.project = nn.Linear(latent_dim, width)

    @property
    def receptive_field(self):
        """Frames seen on each side, or None if unbounded."""
        reach = self.encoder.receptive_field
        return None if reach is None else num_frames(reach, self.join)

    def forward(self, mel, mask=None):
        """[B, N_mel, M], mask [B, N_mel] to [B, N, join * W]."""
        x = self.project(self.encoder(mel, mask))
        if mask is not None:
            missing = -mask.shape[1] % self.encoder.stride
            mask = nn.functional.pad(mask, (0, missing))
            x = x * stride_mask(mask, self.encoder.stride).unsqueeze(-1)
        return join_frames(x, self.join)


class BottleneckDecoder(nn.Module):
    """A trunk at the frame rate, then frames are parted and decoded to a mel.

    Arguments
    ---------
    bottleneck : torch.nn.Module
        `bottleneck(x [B, N, join * W], mask [B, N])`, of the same shape, with
        `receptive_field`. A `Transformer` with a window looks beyond what
        was merged, at any length of a signal.
    decoder : MelDecoder
        With a stride of its own, 1 or more.
    latent_dim : int
        Width of the latents that it takes.
    width, join
        As for `JoinedEncoder`.

    Example
    -------
    >>> import torch
    >>> from speechbrain_flowmac.lobes.convnext import ConvNeXt
    >>> from speechbrain_flowmac.lobes.encoder import MelDecoder
    >>> from speechbrain_flowmac.lobes.transformer import Transformer
    >>> decoder = BottleneckDecoder(
    ...     Transformer(8, 1, num_heads=2, window=3),
    ...     MelDecoder(6, ConvNeXt(8, 1), 10),
    ...     latent_dim=6,
    ...     width=4,
    ...     join=2,
    ... )
    >>> decoder(torch.randn(1, 3, 8)).shape, decoder.receptive_field
    (torch.Size([1, 6, 10]), 5)
    """

    def __init__(self, bottleneck, decoder, latent_dim, width, join):
        super().__init__()
        self.bottleneck = bottleneck
        self.decoder = decoder
        self.join = join
        self.stride = join * decoder.stride
        self.project = nn.Linear(width, latent_dim)

    @property
    def receptive_field(self):
        """Frames seen on each side, or None if unbounded."""
        reaches = (
            self.bottleneck.receptive_field,
            self.decoder.receptive_field,
        )
        if None in reaches:
            return None
        return reaches[0] + num_frames(reaches[1], self.join)

    def forward(self, frames, mask=None):
        """[B, N, join * W], mask [B, N] to [B, N * stride, M]."""
        return self.render(self.restore(frames, mask), mask)

    def restore(self, frames, mask=None):
        """What the bottleneck makes of them, [B, N, join * W]."""
        # the decoder may be cast, what decides tokens never is
        return self.bottleneck(frames.to(self.project.weight.dtype), mask)

    def render(self, frames, mask=None):
        """What `restore` gave, to [B, N * stride, M]."""
        x = self.project(frames.unflatten(-1, (self.join, -1)).flatten(1, 2))
        if mask is not None:
            mask = mask.repeat_interleave(self.join, dim=1)
        return self.decoder(x, mask)
