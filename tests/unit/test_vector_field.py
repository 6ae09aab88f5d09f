"""Vector fields: time, masks, receptive fields and the residual field."""

import pytest
import torch

from speechbrain_flowmac.lobes.convnext import ConvNeXt
from speechbrain_flowmac.lobes.vector_field import (
    ConvNeXtField,
    TimeEmbedding,
    UNetField,
)

M = 4
FIELDS = {
    "convnext": lambda **k: ConvNeXtField(
        M, ConvNeXt(8, 2, condition_dim=6), **k
    ),
    "unet": lambda **k: UNetField(M, (8, 8), num_heads=2, **k),
    "deep-unet": lambda **k: UNetField(
        M, (8, 8, 8), num_heads=2, num_mid_blocks=1, window=2, **k
    ),
}


def noise(seed, *shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def awake(module, seed=0):
    """Random weights everywhere, also where they start at zero."""
    generator = torch.Generator().manual_seed(seed)
    for parameter in module.parameters():
        if parameter.ndim > 1:
            fan_in = parameter[0].numel()
            parameter.data.normal_(0, fan_in**-0.5, generator=generator)
        else:
            parameter.data.add_(
                0.1 * torch.randn(parameter.shape, generator=generator)
            )
    return module.eval()


@pytest.fixture(params=FIELDS)
def make_field(request):
    return lambda **kwargs: awake(FIELDS[request.param](**kwargs))


def test_times_close_to_each_other_are_told_apart():
    embedding = awake(TimeEmbedding(16))
    t = torch.tensor([0.0, 0.001, 0.5, 0.501, 1.0])
    vectors = embedding(t)
    distances = torch.cdist(vectors, vectors)
    distances.fill_diagonal_(torch.inf)
    assert distances.min() > 0.1 * vectors.norm(dim=1).mean()


def test_times_are_scaled():
    slow = awake(TimeEmbedding(16, scale=10))
    quick = TimeEmbedding(16, scale=1000)
    quick.load_state_dict(slow.state_dict())
    t = torch.rand(4, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(slow(100 * t), quick(t), rtol=0, atol=1e-3)
    assert (slow(t) - quick(t)).abs().max() > 0.1


def test_the_scale_of_times_reaches_the_field(make_field):
    slow, quick = make_field(time_scale=10), make_field()
    quick.load_state_dict(slow.state_dict())
    x, mu, t = noise(0, 4, 5, M), noise(1, 4, 5, M), torch.rand(4)
    torch.testing.assert_close(
        slow(x, t, mu), quick(x, t / 100, mu), rtol=0, atol=1e-4
    )
    assert (slow(x, t, mu) - quick(x, t, mu)).abs().max() > 1e-3


@pytest.mark.parametrize("num_times, given", [(1, 2), (2, 1), (2, 3)])
def test_wrong_numbers_of_times_are_refused(make_field, num_times, given):
    field = make_field(num_times=num_times)
    x = noise(0, 2, 5, M)
    with pytest.raises(ValueError, match=f"{num_times} .*found {given}"):
        field(x, torch.rand(2, given), x)


def test_both_times_matter(make_field):
    field = make_field(num_times=2)
    x, mu = noise(0, 1, 5, M), noise(1, 1, 5, M)
    t = torch.tensor([[0.2, 0.7]])
    v = field(x, t, mu)
    assert v.shape == x.shape
    for other in ([[0.2, 0.6]], [[0.3, 0.7]], [[0.7, 0.2]]):
        assert (field(x, torch.tensor(other), mu) - v).abs().max() > 1e-4


def test_field_depends_on_state_time_and_condition(make_field):
    field = make_field()
    x, mu, t = noise(0, 1, 9, M), noise(1, 1, 9, M), torch.tensor([0.4])
    v = field(x, t, mu)
    for other in (
        field(x + 0.1, t, mu),
        field(x, t + 0.01, mu),
        field(x, t, mu + 0.1),
    ):
        assert (other - v).abs().max() > 1e-4


def test_new_fields_are_zero_and_learn():
    for name in FIELDS:
        torch.manual_seed(0)
        field = FIELDS[name]()
        x, mu, t = noise(0, 2, 5, M), noise(1, 2, 5, M), torch.rand(2)
        v = field(x, t, mu)
        assert not v.any()
        v.sum().backward()
        assert field.project_out.weight.grad.abs().sum() > 0


def test_gradients_reach_all_parameters(make_field):
    field = make_field()
    x, mu = noise(0, 2, 9, M), noise(1, 2, 9, M)
    field(x, torch.rand(2), mu).square().sum().backward()
    for name, parameter in field.named_parameters():
        assert parameter.grad.abs().sum() > 0, name


def test_padding_changes_no_valid_frame(make_field):
    field = make_field()
    lengths = [1, 2, 5, 8, 11]
    x, mu = noise(0, 5, 11, M), noise(1, 5, 11, M)
    t = torch.linspace(0.1, 0.9, 5)
    mask = torch.arange(11) < torch.tensor(lengths)[:, None]
    batch = field(x, t, mu, mask)
    garbage = mask.logical_not().unsqueeze(-1) * 100.0
    other = field(x + garbage, t, mu - garbage, mask)
    for i, length in enumerate(lengths):
        part = slice(i, i + 1)
        single = field(x[part, :length], t[part], mu[part, :length])
        for v in (batch, other):
            torch.testing.assert_close(
                v[part, :length], single, atol=1e-5, rtol=1e-4
            )


@pytest.mark.parametrize("frames", [1, 2, 3, 4, 5, 7, 16, 33])
def test_any_length_works(make_field, frames):
    x = noise(0, 2, frames, M)
    v = make_field()(x, torch.rand(2), x)
    assert v.shape == x.shape and v.isfinite().all()


@pytest.mark.parametrize(
    "field",
    [
        FIELDS["convnext"],
        FIELDS["deep-unet"],
        lambda: UNetField(M, (8,), num_heads=2, window=3),
        lambda: UNetField(M, (8, 8), num_heads=2, window=1),
    ],
)
def test_receptive_field_is_a_bound(field):
    field = awake(field())
    reach = field.receptive_field
    frames = 2 * reach + 44
    x, mu = noise(0, 1, frames, M), noise(1, 1, frames, M)
    t = torch.tensor([0.3])
    with torch.no_grad():
        v = field(x, t, mu)
        # the frame asked about, wherever it falls on the coarsest grid
        for middle in range(frames // 2, frames // 2 + 4):
            outside = (torch.arange(frames) - middle).abs() > reach
            change = outside[None, :, None] * 3.0
            other = field(x + change, t, mu - change)
            assert (other - v)[0, middle].abs().max() < 1e-5
            other = field(x + 3.0 - change, t, mu)
            assert (other - v)[0, middle].abs().max() > 1e-2


def test_without_a_window_the_receptive_field_is_unbounded():
    assert FIELDS["unet"]().receptive_field is None


def test_levels_of_different_widths_are_refused():
    with pytest.raises(ValueError, match=r"\(8, 16\)"):
        UNetField(M, (8, 16), num_heads=2)
