"""A flow of pictures, given their class: a codec whose token is the label.

label -> decoder -> mu [N, M],   noise -> flow given mu -> tokens -> picture
"""

import torch
from torch import nn

from speechbrain_flowmac.lobes.adaptive_norm import AdaptiveField
from speechbrain_flowmac.lobes.convnext_v2 import ConvNeXtV2
from speechbrain_flowmac.lobes.mixer import Mixer
from speechbrain_flowmac.lobes.mlp import MLP, FlatField
from speechbrain_flowmac.lobes.noise import seeded_noise


def mlp(num_tokens, width, num_times, time_scale, dim, num_layers):
    """A perceptron of whole pictures.

    Arguments
    ---------
    num_tokens, width : int
        N and M.
    num_times : int
        Times that the field hears of.
    time_scale : float
        See `speechbrain_flowmac.lobes.vector_field.TimeEmbedding`.
    dim, num_layers : int
        Channels and blocks.

    Returns
    -------
    torch.nn.Module
        A field.
    """
    trunk = MLP(dim, num_layers)
    field = AdaptiveField(
        num_tokens * width, trunk, num_times, time_scale=time_scale
    )
    return FlatField(field, num_tokens)


def mixer(num_tokens, width, num_times, time_scale, dim, num_layers):
    """An MLP-Mixer of tokens; arguments as for `mlp`."""
    trunk = Mixer(num_tokens, dim, num_layers)
    return AdaptiveField(width, trunk, num_times, time_scale=time_scale)


def convnext(num_tokens, width, num_times, time_scale, dim, num_layers):
    """A ConvNeXt v2 that is told where tokens stand; arguments as for `mlp`."""
    trunk = ConvNeXtV2(dim, num_layers)
    return AdaptiveField(width, trunk, num_times, num_tokens, time_scale)


NETWORKS = {"mlp": mlp, "mixer": mixer, "convnext": convnext}


class LabelledFlow(nn.Module):
    """Decoder and flow over the tokens of pictures.

    Arguments
    ---------
    tokens : MDCT or Reshape
        Pictures to tokens and back.
    num_samples : int
        Pixels T of a picture.
    num_classes : int
        Labels.
    network : callable
        `network(num_tokens, width, num_times)` makes a field.
    objective : callable
        Makes the flow of its field, or of nothing where `num_times` is 0.
    num_times : int
        Times that the field of the objective hears of.
    """

    def __init__(
        self, tokens, num_samples, num_classes, network, objective, num_times
    ):
        super().__init__()
        self.tokens = tokens
        self.num_samples = num_samples
        shape = tokens.to_tokens(torch.zeros(1, num_samples)).shape[1:]
        self.labels = nn.Parameter(torch.randn(num_classes, *shape))
        self.decoder = network(*shape, num_times=1)
        fields = [network(*shape, num_times=num_times)] if num_times else []
        self.flow = objective(*fields)

    def decode(self, labels):
        """mu [B, N, M] of labels [B]: the same network, whose time stands."""
        start = self.labels.new_zeros(len(self.labels))
        change = self.decoder(self.labels, start, self.labels)
        return (self.labels + change)[labels]

    def forward(self, signals, labels, generator):
        """The objective.

        Arguments
        ---------
        signals : torch.Tensor
            Pictures, shape [B, T].
        labels : torch.Tensor
            int64 [B].
        generator : torch.Generator
            Of noise and times.

        Returns
        -------
        FlowLosses
        """
        tokens = self.tokens.to_tokens(signals)
        return self.flow(tokens, self.decode(labels), None, generator)

    @torch.no_grad()
    def sample(self, labels, sampling, seed=0):
        """Pictures of labels.

        Arguments
        ---------
        labels : torch.Tensor
            int64 [B].
        sampling : Sampling
            Steps.
        seed : int
            Of the noise.

        Returns
        -------
        torch.Tensor
            Shape [B, T].
        """
        mu = self.decode(labels)
        # one long signal, so that no two pictures share their noise
        noise = seeded_noise(seed, 0, 0, len(mu) * mu.shape[1], mu.shape[2])
        noise = noise.reshape(mu.shape).to(mu)
        sampled = self.flow.sample(noise, mu, None, sampling)
        return self.tokens.from_tokens(sampled, self.num_samples)
