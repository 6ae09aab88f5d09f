"""An encoder and a decoder at a part of the mel's frame rate."""

import pytest
import torch

from speechbrain_flowmac.lobes.convnext import ConvNeXt
from speechbrain_flowmac.lobes.encoder import MelDecoder, MelEncoder
from speechbrain_flowmac.lobes.lengths import length_mask
from speechbrain_flowmac.lobes.strided import BottleneckDecoder, JoinedEncoder
from speechbrain_flowmac.lobes.transformer import Transformer


@pytest.fixture(params=[1, 2, 3])
def count(request):
    torch.manual_seed(0)
    return request.param


@pytest.fixture(params=[1, 2])
def inner_stride(request):
    return request.param


def make(count, inner_stride, bottleneck):
    encoder = JoinedEncoder(
        MelEncoder(10, ConvNeXt(8, 1), 6, inner_stride), 6, 4, count
    )
    decoder = BottleneckDecoder(
        bottleneck, MelDecoder(6, ConvNeXt(8, 1), 10, inner_stride), 6, 4, count
    )
    assert encoder.stride == decoder.stride == count * inner_stride
    return encoder, decoder


def transformer(count, **options):
    return Transformer(4 * count, 2, num_heads=2, **options)


def test_it_starts_as_the_pair_that_it_wraps(count, inner_stride):
    encoder, decoder = make(
        count, inner_stride, transformer(count, identity=True)
    )
    mel = torch.randn(2, 3 * encoder.stride, 10)
    latents = encoder.project(encoder.encoder(mel))
    frames = encoder(mel)
    assert frames.shape == (2, 3, 4 * count)
    assert torch.equal(frames.flatten(1), latents.flatten(1))
    torch.testing.assert_close(
        decoder(frames), decoder.decoder(decoder.project(latents))
    )


def test_padding_changes_nothing(count, inner_stride):
    encoder, decoder = make(count, inner_stride, transformer(count, window=2))
    stride = encoder.stride
    lengths = torch.tensor([13, 7])
    mask = length_mask(lengths, 13)
    mel = torch.randn(2, 13, 10).masked_fill(~mask[..., None], 5.0)
    frames = -(-7 // stride)
    latents = encoder(mel, mask)
    alone = encoder(mel[1:, :7], mask[1:, :7])
    torch.testing.assert_close(latents[1:, :frames], alone)
    token_mask = length_mask(-(-lengths // stride), latents.shape[1])
    out = decoder(latents, token_mask)
    torch.testing.assert_close(
        out[1:, : frames * stride], decoder(alone, token_mask[1:, :frames])
    )


def test_nothing_beyond_the_receptive_field_is_heard(count, inner_stride):
    _, decoder = make(count, inner_stride, transformer(count, window=2))
    reach = decoder.receptive_field
    frames = torch.randn(1, 60, 4 * count)
    changed = frames.clone()
    changed[:, 30] += 1.0
    wrong = (decoder(frames) != decoder(changed)).any(-1)[0]
    where = wrong.nonzero().flatten() // decoder.stride
    assert where.min() >= 30 - reach and where.max() <= 30 + reach
    _, unbounded = make(count, inner_stride, transformer(count))
    assert unbounded.receptive_field is None
