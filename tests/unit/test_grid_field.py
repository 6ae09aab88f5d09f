"""The field over frames and frequencies: what it sees, and what it leaves."""

import pytest
import torch

from speechbrain_flowmac.lobes.flow_matching import FlowMatching
from speechbrain_flowmac.lobes.gain_shape import MDCTSettings
from speechbrain_flowmac.lobes.grid_field import GridField, ShapeFlow
from speechbrain_flowmac.lobes.improved_mean_flow import ImprovedMeanFlow
from speechbrain_flowmac.lobes.mean_flow import MeanFlow, value_and_slope
from speechbrain_flowmac.lobes.residual_field import (
    MeanResidualField,
    ResidualField,
)
from speechbrain_flowmac.lobes.sampling import Sampling

SETTINGS = MDCTSettings(24000, 64, n_bands=16)
WIDTH = SETTINGS.width
BINS = slice(16, 16 + 32)


def make(**options):
    """Random weights that let signals through."""
    torch.manual_seed(0)
    options = {"dim": 8, "num_layers": 2, "n_bins": 32, **options}
    field = GridField(SETTINGS, **options).eval()
    torch.nn.init.normal_(field.project_out.weight, std=0.5)
    return field


def inputs(frames=20, items=2):
    generator = torch.Generator().manual_seed(1)
    x, mu = torch.randn(2, items, frames, WIDTH, generator=generator)
    return x, torch.rand(items, generator=generator), mu


@torch.no_grad()
def test_it_is_silent_about_gains_and_the_other_bins():
    v = make()(*inputs())
    assert v.shape == (2, 20, WIDTH)
    assert v[..., BINS].abs().min() > 0
    assert not v[..., : BINS.start].any() and not v[..., BINS.stop :].any()


def test_it_starts_at_zero():
    assert not GridField(SETTINGS, dim=8, n_bins=32)(*inputs()).any()


@torch.no_grad()
@pytest.mark.parametrize("layers, kernel", [(1, (3, 5)), (2, (5, 3))])
def test_it_sees_as_far_as_it_says(layers, kernel):
    field, (x, t, mu) = make(num_layers=layers, kernel=kernel), inputs()
    reach = field.receptive_field
    assert reach == layers * (kernel[0] // 2)
    changed = x.clone()
    changed[:, 10] += 1
    moved = (field(changed, t, mu) - field(x, t, mu)).abs().amax((0, 2)) > 1e-6
    frames = moved.nonzero().flatten().tolist()
    assert frames == list(range(10 - reach, 10 + reach + 1))


@torch.no_grad()
def test_an_item_moves_as_if_it_were_alone():
    field, (x, t, mu) = make(), inputs()
    mask = torch.arange(20) < torch.tensor([[20], [13]])
    batch = field(x, t, mu, mask)
    alone = field(x[1:, :13], t[1:], mu[1:, :13])
    torch.testing.assert_close(batch[1:, :13], alone, rtol=0, atol=1e-5)


@torch.no_grad()
def test_frequencies_are_alike():
    """Without the positions and away from the edges, a move by four bins
    moves what comes out."""
    field, (x, t, mu) = make(num_layers=1, kernel=(3, 3)), inputs()
    field.position.zero_()
    mu[..., :16] = 0.0
    moved_x, moved_mu = x.clone(), mu.clone()
    for moved, before in ((moved_x, x), (moved_mu, mu)):
        moved[..., 20:48] = before[..., 16:44]
    one, two = field(x, t, mu), field(moved_x, t, moved_mu)
    torch.testing.assert_close(
        two[..., 24:44], one[..., 20:40], rtol=0, atol=1e-5
    )


def test_it_hears_of_time_gains_and_of_both_signals():
    field, (x, t, mu) = make(), inputs()
    torch.nn.init.normal_(field.blocks[0].condition.weight)
    before = field(x, t, mu)
    gains = mu.clone()
    gains[..., :16] += 1
    for now in (field(x, 1 - t, mu), field(x, t, gains), field(x, t, mu + 1)):
        assert (now - before).abs().max() > 1e-3


def test_a_mean_flow_can_have_its_slope():
    field, (x, _, mu) = make(num_times=2).double(), inputs()
    x, mu = x.double(), mu.double()
    times = torch.tensor([[0.2, 0.7]], dtype=torch.float64).expand(2, 2)

    def along(s):
        return field(x + s * mu, times, mu)

    zero = torch.zeros((), dtype=torch.float64)
    _, slope = value_and_slope(along, (zero,), (torch.ones_like(zero),))
    h = 1e-6
    expected = (along(zero + h) - along(zero - h)) / (2 * h)
    torch.testing.assert_close(slope, expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize("bins", [0, 30, 68])
def test_bins_must_be_whole_groups(bins):
    with pytest.raises(ValueError, match=f"multiple of 4 up to 64.*{bins}"):
        GridField(SETTINGS, n_bins=bins)


def flows():
    """One of each kind that has a field."""
    one = ResidualField(make(), tau=1.0)
    two = MeanResidualField(make(num_times=2), tau=1.0)
    return [FlowMatching(one), MeanFlow(two), ImprovedMeanFlow(two)]


@pytest.mark.parametrize("flow", flows(), ids=lambda flow: type(flow).__name__)
@pytest.mark.parametrize("steps", [1, 4])
def test_gains_stay_and_shapes_are_sampled(flow, steps):
    (noise, _, mu), sampling = inputs(), Sampling(n_steps=steps)
    found = ShapeFlow(flow, 16).sample(noise, mu, None, sampling)
    torch.testing.assert_close(found[..., :16], mu[..., :16], rtol=0, atol=1e-5)
    expected = flow.sample(noise, mu, None, sampling)
    torch.testing.assert_close(found[..., 16:], expected[..., 16:])
    # many steps of the Gaussian field are noise around mu
    assert (expected - mu)[..., BINS.stop :].std() > (0.1 if steps > 1 else 0)


def test_the_rest_is_the_flow_itself():
    flow = flows()[0]
    wrapped, sampling = ShapeFlow(flow, 16), Sampling(n_steps=3)
    x, _, mu = inputs()
    losses = [
        each(x, mu, None, torch.Generator().manual_seed(0)).total
        for each in (flow, wrapped)
    ]
    assert torch.equal(*losses)
    assert wrapped.evaluations(sampling) == flow.evaluations(sampling) == 3
    assert wrapped.receptive_field(sampling) == 3 * 2
    assert wrapped.alignment == flow.alignment == 1


def test_a_mean_flow_of_shapes_adopts_flow_matching():
    first, second, _ = flows()
    source, target = ShapeFlow(first, 16), ShapeFlow(second, 16)
    target.load_state_dict(target.adopt(source.state_dict()))
    x, t, mu = inputs()
    # where r = t, it is the same field
    times = torch.stack([t, t], dim=1)
    torch.testing.assert_close(
        second.field(x, times, mu), first.field(x, t, mu)
    )
