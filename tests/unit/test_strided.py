"""An encoder and a decoder at a part of the mel's frame rate."""

import pytest
import torch

from speechbrain_flowmac.lobes.convnext import ConvNeXt
from speechbrain_flowmac.lobes.encoder import MelDecoder, MelEncoder
from speechbrain_flowmac.lobes.lengths import length_mask
from speechbrain_flowmac.lobes.strided import BottleneckDecoder, PooledEncoder
from speechbrain_flowmac.lobes.transformer import Transformer


@pytest.fixture(params=[1, 2, 3])
def count(request):
    torch.manual_seed(0)
    return request.param


@pytest.fixture(params=[1, 2])
def inner_stride(request):
    return request.param


def transformer(**options):
    return Transformer(8, 2, num_heads=2, **options)


def test_an_encoder_starts_as_the_mean_of_latents(count, inner_stride):
    inner = MelEncoder(10, ConvNeXt(8, 1), 4, inner_stride)
    encoder = PooledEncoder(inner, 4, count)
    assert encoder.stride == count * inner_stride
    mel = torch.randn(2, 4 * encoder.stride, 10)
    expected = inner(mel).unflatten(1, (-1, count)).mean(2)
    torch.testing.assert_close(encoder(mel), expected)


def test_a_decoder_starts_as_the_frames_repeated(count, inner_stride):
    inner = MelDecoder(8, ConvNeXt(8, 1), 10, inner_stride)
    decoder = BottleneckDecoder(transformer(identity=True), inner, 8, count)
    assert decoder.stride == count * inner_stride
    latents = torch.randn(2, 5, 8)
    expected = inner(latents.repeat_interleave(count, 1))
    torch.testing.assert_close(decoder(latents), expected)


def test_padding_changes_nothing(count, inner_stride):
    encoder = PooledEncoder(
        MelEncoder(10, ConvNeXt(8, 1), 8, inner_stride), 8, count
    )
    decoder = BottleneckDecoder(
        transformer(window=2),
        MelDecoder(8, ConvNeXt(8, 1), 10, inner_stride),
        8,
        count,
    )
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
    inner = MelDecoder(8, ConvNeXt(8, 1), 10, inner_stride)
    decoder = BottleneckDecoder(transformer(window=2), inner, 8, count)
    reach = decoder.receptive_field
    latents = torch.randn(1, 60, 8)
    changed = latents.clone()
    changed[:, 30] += 1.0
    wrong = (decoder(latents) != decoder(changed)).any(-1)[0]
    where = wrong.nonzero().flatten() // decoder.stride
    assert where.min() >= 30 - reach and where.max() <= 30 + reach
    unbounded = BottleneckDecoder(transformer(), inner, 8, count)
    assert unbounded.receptive_field is None
