"""Mel encoder, mel decoder, and the tokens that come of them."""

import math

import pytest
import torch

from speechbrain_flowmac.lobes.convnext import ConvNeXt
from speechbrain_flowmac.lobes.encoder import (
    MelDecoder,
    MelEncoder,
    stride_mask,
)
from speechbrain_flowmac.lobes.features import (
    LogMel,
    MelSettings,
    length_mask,
    num_frames,
)
from speechbrain_flowmac.lobes.quantizer import ResidualQuantizer
from speechbrain_flowmac.lobes.transformer import Transformer

TRUNKS = {
    "convnext": lambda: ConvNeXt(16, 2),
    "transformer": lambda: Transformer(16, 2, num_heads=2),
    "windowed": lambda: Transformer(16, 2, num_heads=2, window=3),
}


def noise(seed, *shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.fixture(params=TRUNKS)
def trunk(request):
    torch.manual_seed(0)
    return TRUNKS[request.param]().eval()


@pytest.mark.parametrize("stride", [1, 2, 3])
def test_padding_never_changes_tokens(trunk, stride):
    encoder = MelEncoder(10, trunk, latent_dim=6, stride=stride).eval()
    quantizer = ResidualQuantizer(6, 4, 16, kmeans_iterations=0).eval()
    lengths = torch.tensor([1, 7, 12, 23])
    mel = noise(1, 4, 23, 10)
    mask = length_mask(lengths, 23)
    garbage = torch.where(mask.unsqueeze(-1), mel, 50.0)
    with torch.no_grad():
        batch = quantizer.encode(encoder(garbage, mask))
        for tokens, item, length in zip(batch, mel, lengths, strict=True):
            latents = encoder(item[None, :length])
            single = quantizer.encode(latents)[0]
            assert len(single) == math.ceil(length / stride)
            assert torch.equal(tokens[: len(single)], single)


@pytest.mark.parametrize("samples", [1, 256, 257, 512, 513, 1024, 1025, 7000])
def test_two_frames_of_half_the_hop_make_one_token_frame(samples):
    """100 bands at hop 256, stride 2: the token rate of hop 512."""
    settings = MelSettings(
        n_fft=1024, hop_length=256, win_length=1024, n_mels=100
    )
    encoder = MelEncoder(100, ConvNeXt(8, 1), latent_dim=4, stride=2)
    decoder = MelDecoder(4, ConvNeXt(8, 1), n_mels=100, stride=2)
    mel = LogMel(settings)(noise(0, 1, samples))
    latents = encoder(mel)
    expected = math.ceil(samples / 512)
    assert latents.shape == (1, expected, 4)
    assert num_frames(mel.shape[1], 2) == expected
    assert num_frames(samples, 512) == expected
    assert decoder(latents).shape == (1, 2 * expected, 100)


@pytest.mark.parametrize("stride", [1, 2, 3])
def test_decoder_mirrors_the_encoder(trunk, stride):
    encoder = MelEncoder(10, trunk, latent_dim=6, stride=stride)
    decoder = MelDecoder(6, trunk, n_mels=10, stride=stride)
    mel = noise(0, 2, 4 * stride, 10)
    latents = encoder(mel)
    assert latents.shape == (2, 4, 6)
    assert decoder(latents).shape == mel.shape
    assert encoder.receptive_field == trunk.receptive_field
    assert decoder.receptive_field == trunk.receptive_field


@pytest.mark.parametrize("stride", [1, 2])
def test_padding_never_changes_the_decoded_mel(trunk, stride):
    decoder = MelDecoder(6, trunk, n_mels=10, stride=stride).eval()
    lengths = torch.tensor([1, 5, 12])
    latents = noise(0, 3, 12, 6)
    batch = decoder(latents, length_mask(lengths, 12))
    for mel, item, length in zip(batch, latents, lengths, strict=True):
        single = decoder(item[None, :length])[0]
        torch.testing.assert_close(
            mel[: len(single)], single, atol=1e-5, rtol=1e-5
        )


def test_a_token_frame_is_valid_if_any_of_its_mel_frames_is():
    mask = length_mask(torch.tensor([0, 1, 2, 3, 6]), 6)
    assert stride_mask(mask, 2).sum(1).tolist() == [0, 1, 1, 2, 3]
    assert stride_mask(mask, 1) is mask
    assert stride_mask(None, 2) is None


def test_gradients_reach_all_parameters(trunk):
    encoder = MelEncoder(10, trunk, latent_dim=6, stride=2)
    decoder = MelDecoder(6, TRUNKS["convnext"](), n_mels=10, stride=2)
    decoder(encoder(noise(0, 2, 9, 10))).square().sum().backward()
    modules = torch.nn.ModuleList([encoder, decoder])
    for name, parameter in modules.named_parameters():
        assert parameter.grad.abs().sum() > 0, name
