"""Classifier-free guidance and the dropping of conditions."""

import pytest
import torch

from speechbrain_flowmac.lobes.guidance import GuidedField, drop_condition


class StubField:
    """A field that uses all its inputs and remembers its batch sizes."""

    def __init__(self):
        self.batches = []

    def __call__(self, x, t, mu, mask):
        assert x.shape[0] == t.shape[0] == mu.shape[0] == mask.shape[0]
        self.batches.append(x.shape[0])
        v = torch.tanh(x) + t.view(-1, 1, 1) * mu + mu.square()
        return v * mask.unsqueeze(-1)


@pytest.fixture
def inputs():
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(3, 10, 4, generator=generator)
    mu = torch.randn(3, 10, 4, generator=generator)
    t = torch.rand(3, generator=generator)
    mask = torch.arange(10) < torch.tensor([[10], [7], [1]])
    return x, t, mu, mask


@pytest.mark.parametrize("scale", [0.3, 1.0, 2.5])
def test_formula_agrees_with_two_calls(inputs, scale):
    x, t, mu, mask = inputs
    field = StubField()
    v_c = field(x, t, mu, mask)
    v_u = field(x, t, torch.zeros_like(mu), mask)
    found = GuidedField(field, scale)(x, t, mu, mask)
    torch.testing.assert_close(found, (1 + scale) * v_c - scale * v_u)


@pytest.mark.parametrize("rescale", [0.25, 0.75, 1.0])
def test_rescaling_agrees_with_a_reference_of_single_items(inputs, rescale):
    x, t, mu, mask = inputs
    field = StubField()
    found = GuidedField(field, 2.0, rescale)(x, t, mu, mask)
    for i in range(3):
        item = [part[i : i + 1] for part in inputs]
        v_c = field(*item)
        v = GuidedField(field, 2.0)(*item)
        valid = mask[i]
        ratio = v_c[0, valid].std(correction=0) / v[0, valid].std(correction=0)
        expected = rescale * v * ratio + (1 - rescale) * v
        torch.testing.assert_close(found[i : i + 1], expected)


def test_full_rescaling_restores_the_spread(inputs):
    x, t, mu, mask = inputs
    field = StubField()
    v_c = field(*inputs)
    v = GuidedField(field, 3.0, rescale=1.0)(*inputs)
    for item_c, item, valid in zip(v_c, v, mask, strict=True):
        torch.testing.assert_close(item[valid].std(), item_c[valid].std())


@pytest.mark.parametrize("garbage", [1e6, float("inf"), float("nan")])
def test_rescaling_ignores_padding(inputs, garbage):
    x, t, mu, mask = inputs
    clean = StubField()

    def dirty(x, t, mu, mask):
        return clean(x, t, mu, mask).masked_fill(~mask.unsqueeze(-1), garbage)

    expected = GuidedField(clean, 2.0, 0.7)(*inputs)
    found = GuidedField(dirty, 2.0, 0.7)(*inputs)
    torch.testing.assert_close(found[mask], expected[mask])


def test_rescaling_of_a_constant_field_is_finite(inputs):
    x, t, mu, mask = inputs

    def still(x, t, mu, mask):
        return torch.zeros_like(x)

    assert torch.equal(
        GuidedField(still, 2.0, 1.0)(*inputs), torch.zeros(x.shape)
    )


def test_guidance_is_one_call_with_a_double_batch(inputs):
    field = StubField()
    GuidedField(field, 1.5, 0.5)(*inputs)
    assert field.batches == [6]


def test_scale_zero_is_one_plain_call(inputs):
    field = StubField()
    v = GuidedField(field, 0.0, rescale=0.5)(*inputs)
    assert field.batches == [3]
    assert torch.equal(v, field(*inputs))


def test_guidance_keeps_the_type(inputs):
    x, t, mu, mask = inputs
    half = (x.bfloat16(), t.bfloat16(), mu.bfloat16(), mask)
    assert GuidedField(StubField(), 1.0, 0.5)(*half).dtype == torch.bfloat16


def test_guidance_of_a_field_that_ignores_its_condition_changes_nothing(inputs):
    def blind(x, t, mu, mask):
        return torch.tanh(x)

    found = GuidedField(blind, 4.0, 0.5)(*inputs)
    torch.testing.assert_close(found, torch.tanh(inputs[0]))


@pytest.mark.parametrize(
    "scale, rescale, message",
    [
        (-0.1, 0.0, "scale"),
        (float("inf"), 0.0, "scale"),
        (float("nan"), 0.0, "scale"),
        (1.0, -0.1, "rescale"),
        (1.0, 1.1, "rescale"),
    ],
)
def test_guidance_refuses_bad_numbers(scale, rescale, message):
    with pytest.raises(ValueError, match=message):
        GuidedField(StubField(), scale, rescale)


def seeded(seed):
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("probability", [0.1, 0.5, 0.9])
def test_items_are_dropped_at_the_given_rate(probability):
    n = 10_000
    kept = drop_condition(torch.ones(n, 1, 1), probability, seeded(0))
    dropped = (kept == 0).float().mean().item()
    five_sigma = 5 * (probability * (1 - probability) / n) ** 0.5
    assert abs(dropped - probability) < five_sigma


def test_only_whole_items_are_dropped():
    mu = torch.randn(64, 5, 3, generator=seeded(1))
    kept = drop_condition(mu, 0.5, seeded(2))
    gone = (kept == 0).all(dim=(1, 2))
    assert 0 < gone.sum() < 64
    assert torch.equal(kept[~gone], mu[~gone])


def test_dropping_follows_its_generator_only():
    mu = torch.randn(64, 5, 3, generator=seeded(1))
    first = drop_condition(mu, 0.5, seeded(2))
    state = torch.get_rng_state()
    assert torch.equal(first, drop_condition(mu, 0.5, seeded(2)))
    assert not torch.equal(first, drop_condition(mu, 0.5, seeded(3)))
    assert torch.equal(state, torch.get_rng_state())


def test_dropping_at_the_ends_of_the_range():
    mu = torch.ones(8, 2, 2)
    before = mu.clone()
    assert drop_condition(mu, 0.0) is mu
    assert not drop_condition(mu, 1.0, seeded(0)).any()
    assert torch.equal(mu, before)


def test_dropped_garbage_becomes_zero():
    mu = torch.full((4, 2, 2), float("nan"))
    assert not drop_condition(mu, 1.0, seeded(0)).any()


@pytest.mark.parametrize("probability", [-0.1, 1.1, float("nan")])
def test_dropping_refuses_bad_probabilities(probability):
    with pytest.raises(ValueError, match="probability"):
        drop_condition(torch.ones(1, 1, 1), probability)
