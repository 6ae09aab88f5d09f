"""Improved mean flow: mean flow as regression of the velocity.

Geng et al., "Improved Mean Flows: On the Challenges of Fastforward Generative
Models" (2512.02012), in the time of `lobes.mean_flow`. The mean velocity u
implies a velocity, which is trained as in flow matching:

    V = u - (r - t) sg(du/dt),     du/dt along v_theta(x_t, t)
    L = |V - v|^2 (+ |v_theta - v|^2)

where v_theta, not the conditional velocity that no network can know at
sampling, moves x: either u at r = t (the boundary condition) or an auxiliary
field, the paper's v-head, that is trained beside and not used in sampling.

Guidance is learnt. With scale omega = 1 + w (w as in `lobes.guidance`), drawn
for every item and told to the field, the velocity to regress is

    v_g = v + (1 - 1 / omega) (v_theta(x_t | mu, omega) - v_theta(x_t | 0, 1))

for t in an interval, drawn and told as well, and v elsewhere. Its fixed point
is omega v(x | mu) - (omega - 1) v(x | 0), in one evaluation.
"""

import math

import torch

from speechbrain_flowmac.lobes.flow import FlowLosses, clear_padding
from speechbrain_flowmac.lobes.guidance import drop_condition
from speechbrain_flowmac.lobes.mean_flow import MeanFlow, item_mean


class ImprovedMeanFlow(MeanFlow):
    """`MeanFlow` with its own velocity and, if wanted, its own guidance.

    Arguments
    ---------
    field : torch.nn.Module
        Mean velocity, of the times (t, r), and with guidance of
        (t, r, 1 - 1 / omega, start, end): `num_times` is 2 or 5.
    v_field : torch.nn.Module or None
        Auxiliary velocity, of t, or (t, 1 - 1 / omega, start, end); None to
        take `field` at r = t.
    sigma_min, time, equal_fraction, power, eps
        As for `MeanFlow`.
    condition_dropout : float
        Probability with which an item is trained without its condition.
    max_guidance : float
        Largest w that is trained, above 0 to learn guidance (the paper's is
        7); omega is drawn log-uniformly up to 1 + w.

    Example
    -------
    >>> from speechbrain_flowmac.lobes.convnext import ConvNeXt
    >>> from speechbrain_flowmac.lobes.sampling import Sampling
    >>> from speechbrain_flowmac.lobes.vector_field import ConvNeXtField
    >>> trunk = ConvNeXt(8, 1, condition_dim=8)
    >>> flow = ImprovedMeanFlow(
    ...     ConvNeXtField(4, trunk, num_times=5),
    ...     condition_dropout=0.1,
    ...     max_guidance=7.0,
    ... )
    >>> mu = torch.randn(2, 5, 4)
    >>> flow.sample(mu, mu, None, Sampling(n_steps=1, guidance=2.0)).shape
    torch.Size([2, 5, 4])
    """

    extra_field = "v_field"

    def __init__(
        self,
        field,
        v_field=None,
        sigma_min=1e-4,
        time=None,
        equal_fraction=0.5,
        power=1.0,
        eps=0.01,
        condition_dropout=0.0,
        max_guidance=0.0,
    ):
        super().__init__(field, sigma_min, time, equal_fraction, power, eps)
        if max_guidance and not condition_dropout:
            raise ValueError(
                "guidance is learnt from a field without condition: "
                "max_guidance > 0 needs condition_dropout > 0"
            )
        self.v_field = v_field
        self.condition_dropout = condition_dropout
        self.max_guidance = max_guidance

    def loss(self, mel, mu, mask, generator):
        """The improved mean-flow loss; see `Flow.loss`."""
        mel, mu = clear_padding(mask, mel, mu)
        noise = torch.randn(mel.shape, generator=generator, device=mel.device)
        t, r = self.times(len(mel), generator)
        ones = torch.ones_like(t)[:, None, None]
        kept = drop_condition(ones, self.condition_dropout, generator)
        mu = mu * kept
        guidance = self.draw_guidance(t == r, kept.flatten(), generator)
        x_t, velocity = self.path(noise, mel, t)
        with torch.set_grad_enabled(
            torch.is_grad_enabled() and self.v_field is not None
        ):
            v = self.velocity(x_t, t, mu, mask, *guidance)
        target = velocity
        if guidance:
            target = self.guided(velocity, v.detach(), x_t, t, mask, guidance)
        implied = self.implied_velocity(
            x_t, t, r, v.detach(), mu, mask, *guidance
        )
        mse = item_mean((implied - target).square(), mask)
        total = self.weighted(mse)
        if self.v_field is not None:
            total = total + self.weighted(
                item_mean((v - target).square(), mask)
            )
        return FlowLosses(total.mean(), mse.mean().detach())

    def velocity(self, x, t, mu, mask, *guidance):
        """v_theta [B, N, M]: the auxiliary field, or u at r = t."""
        if self.v_field is None:
            times, field = [t, t, *guidance], self.field
        else:
            times, field = [t, *guidance], self.v_field
        times = torch.stack(times, dim=1) if len(times) > 1 else t
        return field(x, times, mu, mask).to(x.dtype)

    def draw_guidance(self, equal, kept, generator):
        """Draws 1 - 1 / omega, start and end, each [B]; none without guidance.

        As in the paper, items of flow matching (`equal`) have the whole
        interval. Items without condition have no guidance.
        """
        if not self.max_guidance:
            return ()
        u = torch.rand(
            (3, len(equal)), generator=generator, device=generator.device
        ).to(kept)
        share = 1 - torch.exp(-u[0] * math.log1p(self.max_guidance))
        start = torch.where(equal, 0.0, 0.5 * u[1])
        end = torch.where(equal, 1.0, 0.5 + 0.5 * u[2])
        return share * kept, start, end

    @torch.no_grad()
    def guided(self, velocity, v, x, t, mask, guidance):
        """v_g [B, N, M], of the conditional velocity and v_theta."""
        share, start, end = guidance
        inside = (start <= t) & (t <= end)
        free = self.velocity(
            x, t, torch.zeros_like(x), mask, torch.zeros_like(t), start, end
        )
        return velocity + (share * inside)[:, None, None] * (v - free)

    def check(self, sampling):
        """Refuses settings that mean nothing here."""
        if sampling.guidance > self.max_guidance:
            raise ValueError(
                f"this mean flow was trained with guidance up to "
                f"{self.max_guidance:g}, found {sampling.guidance:g}"
            )
        super().check(sampling.with_changes(guidance=0.0))

    def sampling_conditions(self, sampling):
        """Inputs of the field beside t and r."""
        if not self.max_guidance:
            return ()
        share = sampling.guidance / (1 + sampling.guidance)
        return share, *sampling.guidance_interval
