"""Distillation of a flow into one step."""

import torch
from small_flows import SmallField, distance_of_samples, train

from speechbrain_flowmac.lobes.distillation import MeanFlowDistillation
from speechbrain_flowmac.lobes.flow_matching import FlowMatching
from speechbrain_flowmac.lobes.residual_field import (
    MeanResidualField,
    ResidualField,
)
from speechbrain_flowmac.lobes.sampling import Sampling


class Known(torch.nn.Module):
    """A network that has nothing to add to the Gaussian's field."""

    def forward(self, x, t, mu, mask=None):
        return torch.zeros_like(x)


def test_the_mean_of_the_teacher_has_no_loss():
    """Whatever the data are: the teacher is the truth."""
    flow = MeanFlowDistillation(
        MeanResidualField(Known(), 0.3), ResidualField(Known(), 0.3), power=0.0
    )
    mel, mu = torch.randn(2, 4, 7, 3)
    losses = flow(mel, mu, None, torch.Generator().manual_seed(0))
    assert losses.mse < 1e-9


def test_one_step_of_the_student_is_many_of_the_teacher():
    plain = train(FlowMatching, num_times=1)
    before = [p.clone() for p in plain.parameters()]
    student = train(
        MeanFlowDistillation, num_times=2, teacher=plain.field, power=0.5
    )
    for a, b in zip(before, plain.parameters(), strict=True):
        assert torch.equal(a, b)
    many = distance_of_samples(plain, Sampling(n_steps=32))
    one = distance_of_samples(student, Sampling(n_steps=1))
    assert one < many + 0.15 < distance_of_samples(plain, Sampling(n_steps=1))


def test_the_teacher_is_the_field_that_it_adopts():
    plain = FlowMatching(SmallField(1))
    student = MeanFlowDistillation(SmallField(1), SmallField(1))
    student.load_state_dict(student.adopt(plain.state_dict()))
    for part in (student.field, student.teacher):
        for a, b in zip(part.parameters(), plain.parameters(), strict=True):
            assert torch.equal(a, b)
    assert not any(p.requires_grad for p in student.teacher.parameters())
    own = student.state_dict()
    assert all(torch.equal(v, own[k]) for k, v in student.adopt(own).items())
