"""Classifier-free guidance of a conditional vector field.

Training hides the condition of some items (:func:`drop_condition`), so that one
network learns the conditional and the unconditional field; sampling moves away
from the unconditional one (:class:`GuidedField`).

Shapes: B items, N frames, M mel bands.
"""

import torch

__all__ = ["GuidedField", "drop_condition"]


class GuidedField:
    """Vector field with classifier-free guidance.

    With the conditional field v_c and the unconditional v_u (the condition set
    to zero), as in arXiv 2207.12598 with w counted from the conditional field,

        v = v_c + w (v_c - v_u)

    Guidance enlarges the field; the rescaling of arXiv 2305.08891 (section
    3.4) gives a part of it the spread it had before,

        v' = phi v std(v_c) / std(v) + (1 - phi) v

    with the standard deviation over the valid frames and all bands of one item.
    Both fields come from one call with a batch of 2B; w = 0 needs only v_c and
    makes one call with a batch of B.

    Arguments
    ---------
    field : callable
        ``field(x [B, N, M], t [B], mu [B, N, M], mask [B, N])`` returning v
        [B, N, M], trained with :func:`drop_condition`.
    scale : float
        w, at least 0; 0 is no guidance.
    rescale : float
        phi, in [0, 1]; 0 is no rescaling.
    interval : tuple of float
        First and last time with guidance.

    Raises
    ------
    ValueError
        If a number is out of its range.

    Example
    -------
    >>> def field(x, t, mu, mask):
    ...     return mu - x
    >>> x, mu = torch.zeros(1, 4, 2), torch.ones(1, 4, 2)
    >>> mask = torch.ones(1, 4, dtype=torch.bool)
    >>> v = GuidedField(field, scale=0.5)(x, torch.zeros(1), mu, mask)
    >>> v[0, 0]
    tensor([1.5000, 1.5000])
    """

    def __init__(self, field, scale, rescale=0.0, interval=(0.0, 1.0)):
        if not 0.0 <= scale < float("inf"):
            raise ValueError(
                f"scale must be finite and at least 0, found {scale}"
            )
        if not 0.0 <= rescale <= 1.0:
            raise ValueError(f"rescale must be in [0, 1], found {rescale}")
        self.field = field
        self.scale = scale
        self.rescale = rescale
        self.start, self.end = interval

    def __call__(self, x, t, mu, mask=None):
        """The guided field.

        Arguments
        ---------
        x : torch.Tensor
            State, [B, N, M].
        t : torch.Tensor
            Times, [B], all the same.
        mu : torch.Tensor
            Condition, [B, N, M].
        mask : torch.Tensor or None
            Bool, True at valid frames, [B, N]; None if all are.

        Returns
        -------
        torch.Tensor
            v, [B, N, M].
        """
        if self.scale == 0 or not self.start <= float(t[0]) <= self.end:
            return self.field(x, t, mu, mask)
        v_c, v_u = self.field(
            torch.cat([x, x]),
            torch.cat([t, t]),
            torch.cat([mu, torch.zeros_like(mu)]),
            None if mask is None else torch.cat([mask, mask]),
        ).chunk(2)
        v = v_c + self.scale * (v_c - v_u)
        if self.rescale == 0:
            return v
        # A field without spread has nothing to rescale; the clamp keeps the
        # ratio finite there.
        spread = _masked_std(v, mask).clamp(min=1e-8)
        ratio = _masked_std(v_c, mask) / spread
        return (self.rescale * ratio + (1 - self.rescale)).to(v.dtype) * v


def _masked_std(v, mask):
    """Standard deviation over valid frames and bands in float32, [B, 1, 1]."""
    if mask is None:
        mask = torch.ones(v.shape[:2], dtype=torch.bool, device=v.device)
    weight = mask.unsqueeze(-1).float()
    count = (weight.sum((1, 2), keepdim=True) * v.shape[2]).clamp(min=1)
    # Padding is selected away rather than multiplied by zero, so that even
    # infinite values there do no harm.
    v = v.float().masked_fill(weight == 0, 0.0)
    mean = v.sum((1, 2), keepdim=True) / count
    squares = ((v - mean) * weight).square().sum((1, 2), keepdim=True)
    return (squares / count).sqrt()


def drop_condition(mu, probability, generator=None):
    """Hide the condition of whole items at random, for training.

    Arguments
    ---------
    mu : torch.Tensor
        Condition, [B, N, M].
    probability : float
        How likely each item is to be dropped, in [0, 1], independently.
    generator : torch.Generator, optional
        Source of chance, on any device; torch's global one of the CPU if None.

    Returns
    -------
    torch.Tensor
        ``mu`` with the dropped items set to zero, [B, N, M]; ``mu`` itself,
        with no number drawn, if the probability is 0.

    Raises
    ------
    ValueError
        If the probability is outside [0, 1].

    Example
    -------
    >>> mu = torch.ones(1000, 1, 1)
    >>> kept = drop_condition(mu, 0.2, torch.Generator().manual_seed(0))
    >>> 0.75 < kept.mean().item() < 0.85
    True
    """
    if not 0.0 <= probability <= 1.0:
        raise ValueError(f"probability must be in [0, 1], found {probability}")
    if probability == 0:
        return mu
    device = "cpu" if generator is None else generator.device
    chance = torch.rand(mu.shape[0], generator=generator, device=device)
    dropped = (chance < probability).to(mu.device)
    return mu.masked_fill(dropped.view(-1, 1, 1), 0.0)
