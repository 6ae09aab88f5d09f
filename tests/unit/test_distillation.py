"""Distillation of a flow into one step."""

import pytest
import torch
from small_flows import SmallField, distance_of_samples, train

from speechbrain_flowmac.lobes.convnext import ConvNeXt
from speechbrain_flowmac.lobes.distillation import FlowDistillation
from speechbrain_flowmac.lobes.flow_matching import FlowMatching
from speechbrain_flowmac.lobes.mean_flow import MeanFlow
from speechbrain_flowmac.lobes.residual_field import (
    MeanResidualField,
    ResidualField,
)
from speechbrain_flowmac.lobes.sampling import Sampling
from speechbrain_flowmac.lobes.solvers import Midpoint, Sway
from speechbrain_flowmac.lobes.vector_field import ConvNeXtField


class Known(torch.nn.Module):
    """A network that has nothing to add to the Gaussian's field."""

    def forward(self, x, t, mu, mask=None):
        return torch.zeros_like(x)


def conv_field(num_times):
    return ConvNeXtField(4, ConvNeXt(8, 1, condition_dim=8), num_times)


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def test_the_mean_of_the_teacher_has_no_loss():
    """Whatever the data are, up to the error of Euler's steps."""
    errors = []
    for n_steps in (16, 256):
        flow = FlowDistillation(
            MeanResidualField(Known(), 0.3),
            ResidualField(Known(), 0.3),
            Sampling(n_steps),
        )
        mel, mu = torch.randn(2, 4, 7, 3, generator=generator())
        errors.append(flow(mel, mu, None, generator(1)).mse)
    assert errors[1] < 1e-3 and errors[1] < errors[0] / 20


@pytest.mark.parametrize(
    "sampling",
    [
        Sampling(n_steps=8),
        Sampling(n_steps=4, solver=Midpoint(), schedule=Sway()),
        Sampling(n_steps=4, guidance=0.5, rescale=0.75, temperature=0.5),
    ],
)
def test_paths_are_those_of_the_sampler(sampling):
    flow = FlowDistillation(
        MeanResidualField(Known(), 0.3), ResidualField(Known(), 0.3), sampling
    )
    noise, mu = torch.randn(2, 2, 7, 3, generator=generator())
    path = flow.path_of_teacher(noise, mu, None)
    assert torch.equal(path[0], sampling.temperature * noise)
    assert len(path) == sampling.n_steps + 1
    expected = FlowMatching(flow.teacher, condition_dropout=0.1).sample(
        noise, mu, None, sampling
    )
    torch.testing.assert_close(path[-1], expected)


def test_pairs_are_ordered_and_as_often_whole_as_said():
    flow = FlowDistillation(
        SmallField(2), SmallField(1), Sampling(8), whole_fraction=0.4
    )
    first, last = flow.draw_pairs(5000, generator())
    assert (first < last).all() and first.min() == 0 and last.max() == 8
    assert set(first.tolist()) == set(range(8))
    whole = ((first == 0) & (last == 8)).float().mean().item()
    assert 0.4 < whole < 0.45


def test_one_step_of_the_student_is_many_of_the_teacher():
    plain = train(FlowMatching, num_times=1)
    before = [p.clone() for p in plain.parameters()]
    student = train(
        FlowDistillation,
        2,
        steps=300,
        batch=100,
        teacher=plain.field,
        sampling=Sampling(n_steps=16),
    )
    for a, b in zip(before, plain.parameters(), strict=True):
        assert torch.equal(a, b)
    many = distance_of_samples(plain, Sampling(n_steps=16))
    one = distance_of_samples(student, Sampling(n_steps=1))
    assert abs(one - many) < 0.1
    assert one < 0.4 * distance_of_samples(plain, Sampling(n_steps=1))


def test_padding_changes_nothing():
    flow = FlowDistillation(
        MeanResidualField(Known(), 0.3),
        ResidualField(Known(), 0.2),
        Sampling(n_steps=16),
    )
    mel, mu = torch.randn(2, 2, 7, 3, generator=generator())
    mask = torch.arange(7) < torch.tensor([7, 3])[:, None]
    expected = flow(mel, mu, mask, generator(1)).total
    mu = mu.masked_fill(~mask.unsqueeze(-1), torch.nan)
    torch.testing.assert_close(
        flow(mel, mu, mask, generator(1)).total, expected
    )


def test_the_teacher_is_the_field_that_it_adopts():
    plain = FlowMatching(SmallField(1))
    student = FlowDistillation(SmallField(1), SmallField(1), Sampling(16))
    student.load_state_dict(student.adopt(plain.state_dict()))
    for part in (student.field, student.teacher):
        for a, b in zip(part.parameters(), plain.parameters(), strict=True):
            assert torch.equal(a, b)
    assert not any(p.requires_grad for p in student.teacher.parameters())
    own = student.state_dict()
    assert all(torch.equal(v, own[k]) for k, v in student.adopt(own).items())


def test_a_student_is_no_teacher():
    graduate = FlowDistillation(conv_field(2), conv_field(1), Sampling(16))
    state = {
        name: value
        for name, value in graduate.state_dict().items()
        if name.startswith("field.")
    }
    with pytest.raises(ValueError, match="must be of flow matching"):
        graduate.adopt(state)


def test_flow_matching_goes_on_from_a_mean_velocity_where_both_times_are_one():
    mean = MeanFlow(conv_field(2))
    plain = FlowMatching(conv_field(1))
    plain.load_state_dict(plain.adopt(mean.state_dict()))
    x, mu = torch.randn(2, 3, 5, 4, generator=generator())
    t = torch.tensor([0.0, 0.3, 1.0])
    torch.testing.assert_close(
        plain.field(x, t, mu),
        mean.field(x, torch.stack([t, t], dim=1), mu),
    )


def test_without_its_teacher_a_student_samples_and_does_not_learn():
    flow = FlowDistillation(SmallField(2)).train()
    noise = torch.randn(3, 1, 1, generator=generator())
    assert flow.sample(noise, noise, None, Sampling(n_steps=2)).shape == (
        3,
        1,
        1,
    )
    with pytest.raises(ValueError, match="needs a teacher"):
        flow(noise, noise, None, generator())


def test_a_teacher_without_its_sampling_is_refused():
    with pytest.raises(ValueError, match="a teacher needs sampling"):
        FlowDistillation(SmallField(2), SmallField(1))
