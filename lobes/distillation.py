"""Distillation of a flow into a mean flow, whose one step is its many.

A trained field, the teacher, carries noise to a mel in many steps, guided or
not. Between any two points of that path the mean velocity is known,

    u(x_t, t, r) = (x_r - x_t) / (r - t)

and the student regresses it: at first the whole way, t = 0 and r = 1, and in
part between random points, so that it samples in any number of steps. Unlike
mean flow it needs no derivative and its targets hold no noise; what the
teacher cannot do, the student will not. Luhman and Luhman, "Knowledge
Distillation in Iterative Generative Models" (2101.02388), for flow maps as in
Boffi et al. (2406.07507), and of guidance as in Meng et al. (2210.03142).
"""

import torch

from speechbrain_flowmac.lobes.flow import FlowLosses, clear_padding
from speechbrain_flowmac.lobes.mean_flow import MeanFlow, item_mean


class FlowDistillation(MeanFlow):
    """`MeanFlow` that learns the paths of a trained field.

    Arguments
    ---------
    field : torch.nn.Module
        As for `MeanFlow`.
    teacher : torch.nn.Module or None
        A trained velocity, of one time; it stays as it is. None in a model
        that is only to sample.
    sampling : Sampling or None
        How the teacher samples: its solver, its steps, its guidance. The
        student is to sample at the same temperature. None without a teacher.
    pairs : int
        Pairs of points to learn from each path.
    whole_fraction : float
        Probability that a pair is the whole path.
    sigma_min, power, eps
        As for `MeanFlow`.

    Example
    -------
    >>> from speechbrain_flowmac.lobes.convnext import ConvNeXt
    >>> from speechbrain_flowmac.lobes.sampling import Sampling
    >>> from speechbrain_flowmac.lobes.vector_field import ConvNeXtField
    >>> field, teacher = (
    ...     ConvNeXtField(4, ConvNeXt(8, 1, condition_dim=8), num_times)
    ...     for num_times in (2, 1)
    ... )
    >>> flow = FlowDistillation(field, teacher, Sampling(n_steps=16))
    >>> mel, mu = torch.randn(2, 5, 4), torch.randn(2, 5, 4)
    >>> flow(mel, mu, None, torch.Generator().manual_seed(0)).total.shape
    torch.Size([])
    """

    extra_field = "teacher"

    def __init__(
        self,
        field,
        teacher=None,
        sampling=None,
        pairs=4,
        whole_fraction=0.5,
        sigma_min=1e-4,
        power=0.0,
        eps=1e-3,
    ):
        super().__init__(field, sigma_min, power=power, eps=eps)
        self.teacher = teacher
        if teacher is not None:
            if sampling is None:
                raise ValueError(
                    "a teacher needs sampling: how it is to sample"
                )
            teacher.requires_grad_(False)
        self.sampling = sampling
        self.pairs = pairs
        self.whole_fraction = whole_fraction

    def train(self, mode=True):
        """The mode of the student; the teacher has no chance in it."""
        super().train(mode)
        if self.teacher is not None:
            self.teacher.eval()
        return self

    def adopt(self, state):
        """Teacher and student from a flow-matching field; see `Flow.adopt`."""
        teacher = {
            f"teacher.{n}": p for n, p in self.teacher.named_parameters()
        }
        if not teacher.keys() & state.keys():
            for name, weight in teacher.items():
                found = state.get(name.replace("teacher", "field", 1), weight)
                if found.shape != weight.shape:
                    raise ValueError(
                        "the teacher must be of flow matching: the field of "
                        f"this model, whose {name} has the shape "
                        f"{list(found.shape)} instead of "
                        f"{list(weight.shape)}, is of a mean flow"
                    )
        return super().adopt(state)

    def loss(self, mel, mu, mask, generator):
        """Square error of u; data count through mu alone. See `Flow.loss`."""
        if self.teacher is None:
            raise ValueError(
                "distillation needs a teacher, which this flow was built "
                "without, as exported models are"
            )
        mel, mu = clear_padding(mask, mel, mu)
        noise = torch.randn(mel.shape, generator=generator, device=mel.device)
        path = self.path_of_teacher(noise, mu, mask)
        first, last = self.draw_pairs(len(mel), generator)
        items = torch.arange(len(mel), device=mel.device).repeat(self.pairs)
        x_t, x_r = path[first, items], path[last, items]
        mask = None if mask is None else mask[items]
        times = self.sampling.grid.to(x_t)[torch.stack([first, last], dim=1)]
        span = (times[:, 1] - times[:, 0])[:, None, None]
        u = self.field(x_t, times, mu[items], mask)
        mse = item_mean((u.float() - (x_r - x_t) / span).square(), mask)
        return FlowLosses(self.weighted(mse).mean(), mse.mean().detach())

    @torch.no_grad()
    def path_of_teacher(self, noise, mu, mask):
        """The states of the teacher's steps, [n_steps + 1, B, N, M]."""
        sampling = self.sampling
        field = sampling.guide(self.teacher)
        path = [sampling.temperature * noise]
        for times in sampling.grid.unfold(0, 2, 1):
            step = sampling.solver(
                lambda x, t: field(x, t, mu, mask), path[-1], times
            )
            path.append(step.x)
        return torch.stack(path)

    def draw_pairs(self, batch_size, generator):
        """Indices of points, the earlier and the later, [pairs * B] each."""
        shape, device = (2, self.pairs * batch_size), generator.device
        u = torch.rand(shape, generator=generator, device=device)
        n_steps = self.sampling.n_steps
        first = (u[0] * n_steps).long()
        last = first + 1 + (u[1] * (n_steps - first)).long()
        whole = torch.rand(shape[1], generator=generator, device=device)
        whole = whole < self.whole_fraction
        return first.masked_fill(whole, 0), last.masked_fill(whole, n_steps)
