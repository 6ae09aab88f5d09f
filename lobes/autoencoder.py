"""No flow: the codec as a plain autoencoder, the baseline of all objectives."""

from speechbrain_flowmac.lobes.flow import Flow, FlowLosses, clear_padding
from speechbrain_flowmac.lobes.flow_matching import masked_mean


class Autoencoder(Flow):
    """Regression: the loss is the square error of the condition itself.

        L = sum(mask (mu - x_1)^2) / (sum(mask) M)

    Example
    -------
    >>> import torch
    >>> mel, mu = torch.zeros(1, 2, 4), torch.ones(1, 2, 4)
    >>> Autoencoder()(mel, mu, None, None).total
    tensor(1.)
    """

    def loss(self, mel, mu, mask, generator):
        """The square error of mu; nothing is drawn. See `Flow.loss`."""
        mel, mu = clear_padding(mask, mel, mu)
        mse = masked_mean((mu - mel).square(), mask)
        return FlowLosses(mse, mse.detach())

    def sample(self, noise, mu, mask, sampling):
        """The condition, mu."""
        return mu.detach()

    def evaluations(self, sampling):
        """None are made: 0."""
        return 0

    def receptive_field(self, sampling):
        """A frame depends on itself alone: 0."""
        return 0
