"""Finite scalar quantizer: the grid, masks, gradients, batches."""

import math

import pytest
import torch

from speechbrain_flowmac.lobes.fsq import FiniteScalarQuantizer

H, LEVELS = 6, (8, 5, 3)
C = math.prod(LEVELS)


def noise(seed, *shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def make(dim=H, levels=LEVELS):
    torch.manual_seed(0)
    return FiniteScalarQuantizer(dim, levels)


@pytest.fixture(params=[H, len(LEVELS)], ids=["projected", "plain"])
def dim(request):
    return request.param


def test_the_rounding_is_that_of_the_paper():
    """tanh to the width of the levels, shifted by half a step if even."""
    quantizer = make(dim=3)
    x = 2 * noise(0, 1, 200, 3)
    levels = torch.tensor(LEVELS)
    half = (levels - 1) * (1 + 1e-3) / 2
    offset = torch.where(levels % 2 == 0, 0.5, 0.0)
    bounded = torch.tanh(x + torch.atanh(offset / half)) * half - offset
    expected = bounded.round() / (levels // 2)
    torch.testing.assert_close(quantizer(x).quantized, expected)
    digits = (bounded.round() + levels // 2).long()
    basis = torch.tensor([1, 8, 40])
    assert torch.equal(quantizer.encode(x)[..., 0], (digits * basis).sum(-1))


def test_every_code_is_reached_and_comes_back():
    quantizer = make(dim=3)
    assert quantizer.codebook_size == C
    tokens = torch.arange(C).view(1, C, 1)
    grid = quantizer.decode(tokens)
    assert len(grid[0].unique(dim=0)) == C
    # the bound squeezes: undo it, for codes are not their own pre-images
    levels = torch.tensor(LEVELS)
    half = (levels - 1) * (1 + 1e-3) / 2
    offset = torch.where(levels % 2 == 0, 0.5, 0.0)
    inner = (grid * (levels // 2) + offset) / half
    latents = torch.atanh(inner) - torch.atanh(offset / half)
    assert torch.equal(quantizer.encode(latents), tokens)


def test_vocabulary_is_what_decodes(dim):
    quantizer = make(dim)
    tokens = torch.arange(C).view(1, C, 1)
    assert quantizer.vocabulary.shape == (1, C, dim)
    torch.testing.assert_close(
        quantizer.vocabulary, quantizer.decode(tokens), rtol=0, atol=1e-6
    )


def test_training_agrees_with_coding(dim):
    quantizer = make(dim)
    latents = noise(1, 2, 30, dim)
    out = quantizer(latents)
    assert out.tokens.dtype == torch.int64 and out.tokens.shape == (2, 30, 1)
    assert out.loss == 0
    assert torch.equal(out.tokens, quantizer.encode(latents))
    torch.testing.assert_close(out.quantized, quantizer.decode(out.tokens))


def test_a_batch_is_its_items(dim):
    quantizer = make(dim)
    latents = noise(2, 4, 50, dim)
    tokens = quantizer.encode(latents)
    for i, length in enumerate((50, 1, 17, 33)):
        single = quantizer.encode(latents[i : i + 1, :length])
        assert torch.equal(tokens[i : i + 1, :length], single)


@pytest.mark.parametrize("padding", [0.0, 1e4, float("nan")])
def test_padding_changes_nothing_and_gets_no_gradient(padding):
    quantizer = make()
    mask = torch.arange(20) < torch.tensor([20, 7])[:, None]
    clean = noise(3, 2, 20, H)
    latents = clean.masked_fill(~mask.unsqueeze(-1), padding)
    latents.requires_grad_()
    out = quantizer(latents, mask)
    expected = quantizer(clean)
    assert torch.equal(out.tokens[mask], expected.tokens[mask])
    torch.testing.assert_close(out.quantized[mask], expected.quantized[mask])
    out.quantized[mask].square().sum().backward()
    assert latents.grad.isfinite().all() and not latents.grad[~mask].any()
    assert quantizer.fsq.project_in.weight.grad.isfinite().all()


def test_gradients_pass_the_rounding_alone():
    """They are those of the bound without rounding."""
    quantizer = make(dim=3)
    latents = noise(4, 1, 9, 3).requires_grad_()
    weight = noise(5, 1, 9, 3)
    (quantizer(latents).quantized * weight).sum().backward()
    levels = torch.tensor(LEVELS)
    half = (levels - 1) * (1 + 1e-3) / 2
    offset = torch.where(levels % 2 == 0, 0.5, 0.0)
    x = latents.detach().requires_grad_()
    bounded = torch.tanh(x + torch.atanh(offset / half)) * half
    (bounded / (levels // 2) * weight).sum().backward()
    torch.testing.assert_close(latents.grad, x.grad)


def test_autocast_changes_no_token():
    quantizer = make()
    latents = noise(6, 2, 200, H)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        tokens = quantizer.encode(latents)
        decoded = quantizer.decode(tokens)
    assert torch.equal(tokens, quantizer.encode(latents))
    assert torch.equal(decoded, quantizer.decode(tokens))


def test_its_state_decides_the_tokens():
    latents = noise(7, 1, 200, H)
    first, second = make(), make()
    assert torch.equal(first.encode(latents), second.encode(latents))
    for name in first.token_state():
        torch.testing.assert_close(
            first.token_state()[name], second.token_state()[name]
        )
    assert set(first.token_state()) == {
        "levels",
        "project_in.weight",
        "project_in.bias",
    }
    # what leads back has no say
    torch.nn.init.normal_(second.fsq.project_out.weight)
    assert torch.equal(first.encode(latents), second.encode(latents))


@pytest.mark.parametrize("bad", [-1, C, 1000])
def test_tokens_out_of_range_are_refused(bad):
    tokens = torch.zeros(1, 3, 1, dtype=torch.int64)
    tokens[0, 1] = bad
    with pytest.raises(ValueError, match=rf"0\.\.{C - 1}, found .*{bad}"):
        make().decode(tokens)


@pytest.mark.parametrize("count", [0, 2, -1])
def test_there_is_one_codebook(count):
    with pytest.raises(ValueError, match=f"1..1, found {count}"):
        make().encode(noise(0, 1, 3, H), num_codebooks=count)


@pytest.mark.parametrize("levels", [(), (8, 2), (1,)])
def test_levels_too_few_are_refused(levels):
    with pytest.raises(ValueError, match="levels must be 3 or more"):
        make(levels=levels)
