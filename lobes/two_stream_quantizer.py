"""Two streams of tokens: what was said, then how.

The semantic stream is one codebook, finite scalar quantization of what a
recogniser knows; the acoustic one is a residual quantizer of what the first
leaves of the codec's own latents. Each code stands for a vector, and their sum
is the frame, so that tokens decode frame by frame.

Source: FlexiCodec (2510.00981). H latents, D semantic features, K codebooks.
"""

from typing import NamedTuple

import torch
from torch import Tensor, nn

from speechbrain_flowmac.lobes.flow_matching import masked_mean
from speechbrain_flowmac.lobes.quantizer import check_codebooks


class TwoStreamOutput(NamedTuple):
    """What a training step needs of the quantizer.

    Arguments
    ---------
    quantized : torch.Tensor
        Shape [B, N, H]; gradients pass straight through.
    tokens : torch.Tensor
        int64, shape [B, N, K]; -1 where dropout left a codebook out.
    loss : torch.Tensor
        Commitment loss of the acoustic stream, and mean square of what the
        semantic one leaves to it.
    distillation : torch.Tensor
        Mean square error of the features as the semantic codes have them.
    """

    quantized: Tensor
    tokens: Tensor
    loss: Tensor
    distillation: Tensor


class TwoStreamQuantizer(nn.Module):
    """Semantic codes, and acoustic codes of the rest.

    Arguments
    ---------
    semantic : FiniteScalarQuantizer
        Of width H.
    acoustic : ResidualQuantizer
        Of width H.
    semantic_dim : int
        D.
    dim : int
        H.
    semantic_share : float
        Share of the training batches without acoustic codes, 0..1, so that
        the first codebook decodes alone.

    Example
    -------
    >>> from speechbrain_flowmac.lobes.fsq import FiniteScalarQuantizer
    >>> from speechbrain_flowmac.lobes.quantizer import ResidualQuantizer
    >>> quantizer = TwoStreamQuantizer(
    ...     FiniteScalarQuantizer(8, levels=[4, 4]),
    ...     ResidualQuantizer(8, 2, 256, kmeans_iterations=0),
    ...     semantic_dim=6,
    ...     dim=8,
    ... ).eval()
    >>> tokens = quantizer.encode(torch.randn(1, 5, 6), torch.randn(1, 5, 8))
    >>> tokens.shape, quantizer.decode(tokens[..., :1]).shape
    (torch.Size([1, 5, 3]), torch.Size([1, 5, 8]))
    >>> quantizer.codebook_sizes
    (16, 256, 256)
    """

    def __init__(
        self, semantic, acoustic, semantic_dim, dim, semantic_share=0.125
    ):
        super().__init__()
        self.semantic = semantic
        self.acoustic = acoustic
        self.semantic_share = semantic_share
        self.enter = _mlp(semantic_dim, dim)
        # on a grid of a few dimensions a linear layer could say little
        self.leave = _mlp(dim, dim)
        self.teach = nn.Linear(dim, semantic_dim)
        # the acoustic stream may have been trained to say it all
        nn.init.zeros_(self.leave[-1].weight)
        nn.init.zeros_(self.leave[-1].bias)

    @property
    def codebook_sizes(self):
        """Entries of each codebook, K of them."""
        rest = self.acoustic.codebook_sizes
        return (self.semantic.codebook_size, *rest)

    @property
    def num_codebooks(self):
        """K."""
        return 1 + self.acoustic.num_codebooks

    @property
    def codebook_size(self):
        """Entries of the largest codebook."""
        return max(self.codebook_sizes)

    @property
    def synchronized(self):
        """Whether codebook updates are summed over ranks."""
        return self.acoustic.synchronized

    @property
    def initialised(self):
        """Whether every codebook has been started; the grid always is."""
        return self.acoustic.initialised

    @property
    def frozen(self):
        """Whether training leaves the codebooks as they are."""
        return self.acoustic.frozen

    @frozen.setter
    def frozen(self, value):
        """Of the acoustic ones: the semantic ones are a grid."""
        self.acoustic.frozen = value

    @property
    def vocabularies(self):
        """Code vectors, a list of K tensors [C_k, H] whose sum is decoded."""
        semantic = self.leave(self.semantic.vocabulary[0])
        return [semantic, *self.acoustic.vocabulary]

    @property
    def vocabulary(self):
        """ValueError: codebooks of two sizes have no table in common."""
        raise ValueError(
            f"codebooks of {self.codebook_sizes[:2]} entries have no table "
            "[K, C, H] in common: see codec.quantizer.vocabularies"
        )

    def token_state(self):
        """Tensors by name that decide which tokens a frame has."""
        state = {
            f"acoustic.{name}": tensor
            for name, tensor in self.acoustic.token_state().items()
        }
        # all of it: what the semantic codes say is taken off before the rest
        for part in ("enter", "semantic", "leave"):
            for name, tensor in getattr(self, part).state_dict().items():
                state[f"{part}.{name}"] = tensor
        return state | {"levels": self.semantic.token_state()["levels"]}

    def forward(self, features, latents, mask=None):
        """Quantizes in training (or validation).

        Arguments
        ---------
        features : torch.Tensor
            Semantic, shape [B, N, D].
        latents : torch.Tensor
            Shape [B, N, H].
        mask : torch.Tensor or None
            Shape [B, N], True where valid.

        Returns
        -------
        TwoStreamOutput
        """
        coded = self.semantic(self.enter(features), mask)
        semantic = self.leave(coded.quantized).float()
        # without its gradient, which would cancel that of the sum
        rest = self.acoustic(latents - semantic.detach(), mask)
        left = masked_mean((latents.detach() - semantic).square(), mask)
        quantized, tokens = rest.quantized, rest.tokens
        if self.training and torch.rand(()) < self.semantic_share:
            quantized = 0.0 * quantized
            tokens = torch.full_like(tokens, -1)
        return TwoStreamOutput(
            semantic + quantized,
            torch.cat([coded.tokens, tokens], -1),
            rest.loss + left,
            masked_mean((self.teach(semantic) - features).square(), mask),
        )

    def encode(self, features, latents, num_codebooks=None):
        """Features [B, N, D] and latents [B, N, H] to tokens, int64 [B, N, k].

        The first is the semantic one; None for all.
        """
        count = self.check_num_codebooks(num_codebooks)
        with torch.autocast(latents.device.type, enabled=False):
            tokens = self.semantic.encode(self.enter(features.float()))
            if count == 1:
                return tokens
            rest = latents.float() - self._decode_semantic(tokens)
            others = self.acoustic.encode(rest, count - 1)
        return torch.cat([tokens, others], dim=-1)

    def decode(self, tokens):
        """Tokens [B, N, k], k <= K, to latents, float32 [B, N, H]."""
        count = self.check_num_codebooks(tokens.shape[-1])
        with torch.autocast(tokens.device.type, enabled=False):
            latents = self._decode_semantic(tokens[..., :1])
            if count > 1:
                latents = latents + self.acoustic.decode(tokens[..., 1:])
        return latents

    def _decode_semantic(self, tokens):
        return self.leave(self.semantic.decode(tokens))

    def check_num_codebooks(self, num_codebooks):
        """The number to use, K for None; ValueError if it is not in 1..K."""
        return check_codebooks(num_codebooks, self.num_codebooks)


def _mlp(dim_in, dim):
    return nn.Sequential(
        nn.Linear(dim_in, 2 * dim), nn.GELU(), nn.Linear(2 * dim, dim)
    )
