"""Search of residual codes: against all paths there are, and against greed."""

import itertools

import pytest
import torch

from speechbrain_flowmac.lobes import quantizer as module
from speechbrain_flowmac.lobes.quantizer import ResidualQuantizer
from speechbrain_flowmac.lobes.residual_search import search_codes

K, C, H = 4, 5, 3


def noise(seed, *shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.fixture
def codebooks():
    scale = 0.6 ** torch.arange(K)
    return noise(0, K, C, H) * scale[:, None, None]


def path_cost(x, codebooks, tokens):
    """Square errors of all beginnings, summed, in float64; shape [N]."""
    rest, cost = x.double(), 0.0
    for codes, column in zip(codebooks.double(), tokens.T, strict=True):
        rest = rest - codes[column]
        cost = cost + rest.square().sum(-1)
    return cost


def all_paths(x, codebooks):
    """The best of all C^K paths of each vector."""
    paths = torch.tensor(list(itertools.product(range(C), repeat=K)))
    costs = [path_cost(v.expand(len(paths), -1), codebooks, paths) for v in x]
    return paths[torch.stack(costs).argmin(1)]


def test_a_beam_that_keeps_all_finds_the_best_of_all_paths(codebooks):
    x = noise(1, 40, H)
    found = search_codes(x, codebooks, beam_size=C ** (K - 1))
    assert found.dtype == torch.int64
    assert torch.equal(found, all_paths(x, codebooks))


def test_a_beam_of_one_is_greedy(codebooks):
    x = noise(2, 50, H)
    rest, expected = x.clone(), []
    for codes in codebooks:
        expected.append(torch.cdist(rest, codes).argmin(1))
        rest = rest - codes[expected[-1]]
    found = search_codes(x, codebooks, beam_size=1)
    assert torch.equal(found, torch.stack(expected, 1))


def test_wider_beams_come_nearer(codebooks):
    x = noise(3, 500, H)
    costs = [
        path_cost(x, codebooks, search_codes(x, codebooks, beam)).mean()
        for beam in (1, 2, 8, C ** (K - 1))
    ]
    assert costs[0] > 1.02 * costs[1] > 1.02 * costs[2] >= 1.02 * costs[3]
    assert costs[2] < 1.01 * costs[3]


@pytest.fixture
def quantizer():
    torch.manual_seed(0)
    made = ResidualQuantizer(H, K, 16, kmeans_iterations=5, beam_size=8)
    made(noise(4, 4, 100, H))
    return made.eval()


def test_a_wider_beam_of_the_quantizer_codes_nearer(quantizer):
    latents = noise(5, 3, 90, H)

    def error(beam_size, count):
        quantizer.beam_size = beam_size
        decoded = quantizer.decode(quantizer.encode(latents, count))
        return (decoded - latents).square().mean()

    assert error(8, K) < 0.95 * error(1, K)
    for count in range(2, K + 1):
        assert error(8, count) < 1.01 * error(1, count)


def test_codes_depend_on_no_other_frame(quantizer, monkeypatch):
    latents = noise(6, 3, 40, H)
    together = quantizer.encode(latents)
    for item, expected in zip(latents, together, strict=True):
        for n in (0, 17, 39):
            alone = quantizer.encode(item[None, n : n + 1])
            assert torch.equal(alone[0, 0], expected[n])
    monkeypatch.setattr(module, "SEARCHED_FRAMES", 7)
    assert torch.equal(quantizer.encode(latents), together)


def test_no_frames_have_no_codes(quantizer):
    assert quantizer.encode(torch.zeros(2, 0, H)).shape == (2, 0, K)


def test_frames_that_are_not_finite_have_codes_of_the_codebook(quantizer):
    latents = noise(7, 1, 5, H)
    expected = quantizer.encode(latents)
    latents[0, 2] = float("nan")
    found = quantizer.encode(latents)
    assert found.min() >= 0 and found.max() < 16
    kept = torch.tensor([0, 1, 3, 4])
    assert torch.equal(found[0, kept], expected[0, kept])


def test_a_beam_of_none_is_refused():
    with pytest.raises(
        ValueError, match="beam_size must be 1 or more, found 0"
    ):
        ResidualQuantizer(H, beam_size=0)
