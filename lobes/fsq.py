"""Finite scalar quantization of latent frames.

Each of a few dimensions is bounded and rounded to a few levels; the codebook
is the grid of all of them, so that nothing needs to be learnt and no code can
die. A thin layer over `vector_quantize_pytorch.FSQ` with the interface of
`ResidualQuantizer`.

Source: Mentzer et al., "Finite Scalar Quantization: VQ-VAE Made Simple",
2309.15505.
"""

import torch
from torch import nn
from vector_quantize_pytorch import FSQ

from speechbrain_flowmac.lobes.quantizer import (
    QuantizerOutput,
    check_codebooks,
    check_tokens,
)


class FiniteScalarQuantizer(nn.Module):
    """One codebook, the grid of the levels of d dimensions.

    Arguments
    ---------
    dim : int
        Width H of latent frames, projected to d dimensions and back where it
        is not d already.
    levels : sequence of int
        Number of levels of each dimension, 3 or more. Five times 8 makes
        C = 32768, 15 bits.

    Example
    -------
    >>> quantizer = FiniteScalarQuantizer(16, levels=[8, 5, 5])
    >>> tokens = quantizer.encode(torch.randn(2, 7, 16))
    >>> tokens.shape, quantizer.decode(tokens).shape
    (torch.Size([2, 7, 1]), torch.Size([2, 7, 16]))
    >>> quantizer.codebook_size
    200
    """

    num_codebooks = 1
    synchronized = True
    """There are no statistics that ranks would have to share."""

    def __init__(self, dim, levels=(8, 8, 8, 8, 8)):
        super().__init__()
        if not levels or min(levels) < 3:
            raise ValueError(
                f"levels must be 3 or more per dimension, found {levels}"
            )
        self.fsq = FSQ(list(levels), dim=dim)
        self.codebook_size = self.fsq.codebook_size

    @property
    def codebook_sizes(self):
        """Entries of each codebook, which is one."""
        return (self.codebook_size,)

    @property
    def vocabulary(self):
        """Code vectors after projection, shape [1, C, H]."""
        return self.fsq.project_out(self.fsq.implicit_codebook).unsqueeze(0)

    def token_state(self):
        """Tensors by name that decide which tokens a frame has."""
        state = {"levels": self.fsq._levels}
        for name, tensor in self.fsq.project_in.state_dict().items():
            state[f"project_in.{name}"] = tensor
        return state

    def forward(self, latents, mask=None):
        """Quantizes in training (or validation).

        Arguments
        ---------
        latents : torch.Tensor
            Shape [B, N, H].
        mask : torch.Tensor or None
            Shape [B, N], True where valid. Latents elsewhere get no gradient.

        Returns
        -------
        QuantizerOutput
            Tokens [B, N, 1]; the loss is 0, there is nothing to commit to.
        """
        # one frame that is not finite would spoil the projection for good
        known = latents.detach().isfinite().all(-1)
        known = known if mask is None else mask & known
        latents = torch.where(known.unsqueeze(-1), latents, 0.0)
        quantized, tokens = self._code(latents)
        return QuantizerOutput(quantized, tokens, quantized.new_zeros(()))

    def _code(self, latents):
        with torch.autocast(latents.device.type, enabled=False):
            quantized, index = self.fsq(latents.float())
        return quantized, index.long().unsqueeze(-1)

    def encode(self, latents, num_codebooks=None):
        """Latents [B, N, H] to tokens, int64 [B, N, 1]."""
        self.check_num_codebooks(num_codebooks)
        return self._code(latents)[1]

    def decode(self, tokens):
        """Tokens [B, N, 1] in 0..C-1 to latents, float32 [B, N, H]."""
        self.check_num_codebooks(tokens.shape[-1])
        check_tokens(tokens, self.codebook_size)
        with torch.autocast(tokens.device.type, enabled=False):
            return self.fsq.indices_to_codes(tokens.squeeze(-1))

    def check_num_codebooks(self, num_codebooks):
        """The number to use, always 1; ValueError if asked for another."""
        return check_codebooks(num_codebooks, self.num_codebooks)
