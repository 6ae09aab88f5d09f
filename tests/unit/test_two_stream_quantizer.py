"""A semantic and an acoustic stream of tokens."""

import pytest
import torch

from speechbrain_flowmac.lobes.fsq import FiniteScalarQuantizer
from speechbrain_flowmac.lobes.quantizer import (
    CodebookUsage,
    ResidualQuantizer,
)
from speechbrain_flowmac.lobes.two_stream_quantizer import TwoStreamQuantizer

D, H = 6, 8


def make(semantic_share=0.0, dropout=False):
    torch.manual_seed(0)
    quantizer = TwoStreamQuantizer(
        FiniteScalarQuantizer(H, levels=[4, 4]),
        ResidualQuantizer(H, 3, 32, kmeans_iterations=0, dropout=dropout),
        semantic_dim=D,
        dim=H,
        semantic_share=semantic_share,
    )
    # it starts at zero
    torch.nn.init.normal_(quantizer.leave[-1].weight)
    return quantizer


def inputs():
    torch.manual_seed(1)
    return torch.randn(2, 50, D), torch.randn(2, 50, H)


def test_tokens_decode_to_what_training_hears():
    quantizer = make().eval()
    features, latents = inputs()
    out = quantizer(features, latents)
    tokens = quantizer.encode(features, latents)
    assert torch.equal(tokens, out.tokens)
    torch.testing.assert_close(quantizer.decode(tokens), out.quantized)


def test_frames_are_sums_of_code_vectors():
    quantizer = make().eval()
    tokens = quantizer.encode(*inputs())
    for count in (1, 2, 4):
        vectors = sum(
            vectors[tokens[..., k]]
            for k, vectors in enumerate(quantizer.vocabularies[:count])
        )
        torch.testing.assert_close(
            quantizer.decode(tokens[..., :count]), vectors
        )


def test_fewer_codebooks_are_the_first_ones():
    quantizer = make().eval()
    tokens = quantizer.encode(*inputs())
    for count in (1, 2, 3):
        fewer = quantizer.encode(*inputs(), num_codebooks=count)
        assert torch.equal(fewer, tokens[..., :count])
    for count in (0, 5):
        with pytest.raises(ValueError, match=r"1\.\.4"):
            quantizer.encode(*inputs(), num_codebooks=count)


def test_a_part_of_the_batches_has_semantic_codes_alone():
    quantizer = make(semantic_share=1.0).train()
    out = quantizer(*inputs())
    assert (out.tokens[..., 1:] == -1).all()
    torch.testing.assert_close(
        out.quantized, quantizer.decode(out.tokens[..., :1])
    )


def test_gradients_reach_both_streams():
    quantizer = make().train()
    features, latents = (x.requires_grad_() for x in inputs())
    quantizer(features, latents).quantized.sum().backward()
    assert features.grad.abs().sum() > 0
    torch.testing.assert_close(latents.grad, torch.ones_like(latents))


def test_the_semantic_codes_learn_to_say_what_they_can():
    quantizer = make().eval()
    features, latents = (x.requires_grad_() for x in inputs())
    out = quantizer(features, latents)
    left = latents - quantizer.decode(out.tokens[..., :1])
    rest = quantizer.acoustic(left).loss
    torch.testing.assert_close(out.loss, rest + left.square().mean())
    (grad,) = torch.autograd.grad(out.loss, features)
    assert grad.abs().sum() > 0


def test_distillation_is_the_error_of_the_features():
    quantizer = make().eval()
    features, latents = inputs()
    mask = torch.ones(2, 50, dtype=torch.bool)
    mask[1, 20:] = False
    semantic = quantizer.decode(quantizer.encode(features, latents, 1))
    error = (quantizer.teach(semantic) - features).square()[mask].mean()
    out = quantizer(features, latents, mask)
    torch.testing.assert_close(out.distillation, error)


def test_sizes_are_those_of_both_streams():
    quantizer = make()
    assert quantizer.codebook_sizes == (16, 32, 32, 32)
    assert (quantizer.num_codebooks, quantizer.codebook_size) == (4, 32)
    with pytest.raises(ValueError, match="vocabularies"):
        quantizer.vocabulary  # noqa: B018


def test_the_state_of_tokens_covers_what_they_depend_on():
    quantizer = make()
    names = set(quantizer.token_state())
    for part in ("enter.0.weight", "leave.2.bias", "acoustic.codebooks"):
        assert part in names
    assert not any(name.startswith("teach") for name in names)


def test_usage_knows_the_size_of_each_codebook():
    usage = CodebookUsage(2, (4, 2))
    usage.update(torch.tensor([[[0, 0], [1, 1], [1, -1]]]))
    assert usage.used.tolist() == [0.5, 1.0]
