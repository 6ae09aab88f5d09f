"""Distillation of a flow into a mean flow, whose one step is its many.

The mean-flow identity (`lobes.mean_flow`) with the velocity of a trained field
in place of the conditional one. Nothing in the target is random given x_t, so
training sees no noise but that of its batches; what the teacher cannot do, the
student will not. Boffi et al., "Flow map matching" (2406.07507), section 3;
Sabour et al., "Align Your Flow" (2506.14603), Eulerian map distillation.
"""

import torch

from speechbrain_flowmac.lobes.mean_flow import MeanFlow


class MeanFlowDistillation(MeanFlow):
    """`MeanFlow` that learns from a trained field.

    Arguments
    ---------
    field : torch.nn.Module
        As for `MeanFlow`.
    teacher : torch.nn.Module
        A trained velocity, of one time; it stays as it is.
    **options
        Further arguments of `MeanFlow`.

    Example
    -------
    >>> from speechbrain_flowmac.lobes.convnext import ConvNeXt
    >>> from speechbrain_flowmac.lobes.vector_field import ConvNeXtField
    >>> field, teacher = (
    ...     ConvNeXtField(4, ConvNeXt(8, 1, condition_dim=8), num_times)
    ...     for num_times in (2, 1)
    ... )
    >>> flow = MeanFlowDistillation(field, teacher)
    >>> mel, mu = torch.randn(2, 5, 4), torch.randn(2, 5, 4)
    >>> flow(mel, mu, None, torch.Generator().manual_seed(0)).total.shape
    torch.Size([])
    """

    extra_field = "teacher"

    def __init__(self, field, teacher, **options):
        super().__init__(field, **options)
        self.teacher = teacher.requires_grad_(False)

    def train(self, mode=True):
        """The mode of the student; the teacher has no chance in it."""
        super().train(mode)
        self.teacher.eval()
        return self

    @torch.no_grad()
    def target(self, x, t, velocity, mu, mask):
        """The teacher's velocity at (x, t)."""
        return self.teacher(x, t, mu, mask).to(x.dtype)
