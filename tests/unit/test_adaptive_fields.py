"""MLP, Mixer and ConvNeXt v2 as fields: what they see and what they do not."""

import pytest
import torch

from speechbrain_flowmac.lobes.adaptive_norm import AdaptiveField, AdaptiveNorm
from speechbrain_flowmac.lobes.convnext_v2 import ConvNeXtV2, GlobalResponseNorm
from speechbrain_flowmac.lobes.mean_flow import value_and_slope
from speechbrain_flowmac.lobes.mixer import Mixer
from speechbrain_flowmac.lobes.mlp import MLP, FlatField

M, N = 4, 9
FIELDS = {
    "mlp": lambda **k: AdaptiveField(M, MLP(8, 2, condition_dim=6), **k),
    "flat-mlp": lambda **k: FlatField(
        AdaptiveField(M * N, MLP(8, 2, condition_dim=6), **k), N
    ),
    "mixer": lambda **k: AdaptiveField(M, Mixer(N, 8, 2, condition_dim=6), **k),
    "convnext-v2": lambda **k: AdaptiveField(
        M, ConvNeXtV2(8, 2, kernel_size=3, condition_dim=6), **k
    ),
}


def noise(seed, *shape):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator, dtype=torch.float64)


def awake(module):
    """Seeded random weights everywhere, also where they start at zero."""
    generator = torch.Generator().manual_seed(0)
    for parameter in module.parameters():
        fan_in = parameter[0].numel() if parameter.ndim > 1 else 10
        parameter.data.normal_(0, fan_in**-0.5, generator=generator)
    return module.double().eval()


@pytest.fixture(params=FIELDS)
def make_field(request):
    return FIELDS[request.param]


def test_fields_depend_on_state_time_and_condition(make_field):
    field = awake(make_field())
    x, mu, t = noise(0, 1, N, M), noise(1, 1, N, M), torch.tensor([0.4])
    v = field(x, t, mu)
    assert v.shape == x.shape
    for other in (
        field(x + noise(2, 1, N, M), t, mu),
        field(x, t + 0.01, mu),
        field(x, t, mu + 0.1),
    ):
        assert (other - v).abs().max() > 1e-4


def test_each_time_matters(make_field):
    field = awake(make_field(num_times=2))
    x = noise(0, 1, N, M)
    v = field(x, torch.tensor([[0.2, 0.7]]), x)
    for times in ([0.2, 0.6], [0.3, 0.7], [0.7, 0.2]):
        assert (field(x, torch.tensor([times]), x) - v).abs().max() > 1e-4


def test_new_fields_are_zero_and_learn(make_field):
    torch.manual_seed(0)
    field = make_field().double()
    x, mu, t = noise(0, 2, N, M), noise(1, 2, N, M), torch.rand(2)
    assert not field(x, t, mu).any()
    awake(field)(x, t, mu).square().sum().backward()
    for name, parameter in field.named_parameters():
        assert parameter.grad.abs().sum() > 0, name


def test_padding_changes_no_valid_frame(make_field):
    field = awake(make_field())
    lengths = [1, 2, 5, N]
    x, mu = noise(0, 4, N, M), noise(1, 4, N, M)
    t = torch.linspace(0.1, 0.9, 4)
    mask = torch.arange(N) < torch.tensor(lengths)[:, None]
    garbage = ~mask.unsqueeze(-1) * 100.0
    batch = field(x + garbage, t, mu - garbage, mask)
    for i, length in enumerate(lengths):
        part = slice(i, i + 1)
        single = field(x[part, :length], t[part], mu[part, :length])
        torch.testing.assert_close(batch[part, :length], single)


def test_whole_signals_are_seen_but_by_perceptrons_of_tokens(make_field):
    field = awake(make_field())
    x, t = noise(0, 1, N, M), torch.tensor([0.3])
    other = x.clone()
    other[0, 0] += 1.0
    change = (field(other, t, x) - field(x, t, x)).abs()[0, -1].max()
    if field.receptive_field is None:
        assert change > 1e-5
    else:
        assert field.receptive_field == 0 and change == 0


def test_slopes_are_those_of_finite_differences(make_field):
    """What mean flows need of a field."""
    field = awake(make_field())
    x, v, mu = noise(0, 3, 2, N, M)
    t = torch.tensor([0.2, 0.6]).double()

    def u(x, t):
        return field(x, t, mu)

    _, slope = value_and_slope(u, (x, t), (v, torch.ones_like(t)))
    h = 1e-6
    expected = (u(x + h * v, t + h) - u(x - h * v, t - h)) / (2 * h)
    torch.testing.assert_close(slope, expected, rtol=1e-4, atol=1e-5)


def test_slopes_of_silence_are_finite(make_field):
    field = awake(make_field())
    x, t = torch.zeros(1, N, M).double(), torch.zeros(1).double()
    _, slope = value_and_slope(
        lambda x, t: field(x, t, x), (x, t), (x + 1, torch.ones_like(t))
    )
    assert slope.isfinite().all()


@pytest.mark.parametrize("name", ["flat-mlp", "mixer"])
def test_signals_that_are_too_long_are_refused(name):
    field, x = FIELDS[name](), torch.zeros(1, N + 1, M)
    with pytest.raises(ValueError, match=f"up to {N} tokens, found {N + 1}"):
        field(x, torch.zeros(1), x)


def test_positions_tell_tokens_apart():
    field = awake(AdaptiveField(M, MLP(8, 1), num_tokens=N))
    same = torch.ones(1, N, M).double()
    v = field(same, torch.zeros(1), same)[0]
    assert (v[1:] - v[0]).abs().amax(1).min() > 1e-3


def test_adaptive_norm_starts_as_layer_norm():
    norm = AdaptiveNorm(8, 4).double()
    x = noise(0, 2, 5, 8)
    expected = torch.nn.functional.layer_norm(x, (8,))
    torch.testing.assert_close(norm(x, noise(1, 2, 1, 4)), expected)


def test_response_norm_is_that_of_the_formula():
    norm = awake(GlobalResponseNorm(6))
    x = noise(0, 2, 5, 6)
    for b in range(2):
        energies = [x[b, :, d].norm() for d in range(6)]
        mean = sum(energies) / 6
        for d in range(6):
            share = energies[d] / (mean + norm.eps)
            expected = norm.gamma[d] * x[b, :, d] * share + norm.beta[d]
            expected = expected + x[b, :, d]
            torch.testing.assert_close(norm(x)[b, :, d], expected)
