"""Residual vector quantization of latent frames.

A thin layer over `vector_quantize_pytorch.ResidualVQ` that fixes how it is
used here: padding is masked out of codebooks and losses, tokens of a prefix
of the codebooks decode as they are, and an untrained quantizer never
initialises itself on what it is asked to encode.

Sources: SoundStream (2107.03312) for residual quantization, k-means start,
revival of dead codes and quantizer dropout; Yu et al. (2110.04627) for
factorised codes.
"""

from typing import NamedTuple

import torch
from torch import Tensor, nn
from vector_quantize_pytorch import ResidualVQ

from speechbrain_flowmac.lobes.residual_search import search_codes

SEARCHED_FRAMES = 1024
"""Frames whose codes are searched at once."""


class QuantizerOutput(NamedTuple):
    """What a training step needs of the quantizer.

    Arguments
    ---------
    quantized : torch.Tensor
        Shape [B, N, H]; gradients pass straight through.
    tokens : torch.Tensor
        int64, shape [B, N, K]; -1 where quantizer dropout left a codebook
        out.
    loss : torch.Tensor
        Commitment loss, mean over valid frames and used codebooks.
    """

    quantized: Tensor
    tokens: Tensor
    loss: Tensor


class QuantizerNotTrainedError(RuntimeError):
    """The codebooks have not been initialised."""


class ResidualQuantizer(nn.Module):
    """Residual VQ: K codebooks of C entries, each coding what is left.

    Codebooks follow an exponential moving average of the frames assigned to
    them (summed over ranks under DDP). The process group must exist before
    the quantizer is made for that; `synchronized` tells.

    Arguments
    ---------
    dim : int
        Width H of latent frames.
    num_codebooks : int
        K.
    codebook_size : int
        C.
    codebook_dim : int or None
        Width in which codes live (factorised codes); None for H itself.
    decay : float
        Share of the old value that the moving average keeps per step.
    dead_code_threshold : float
        A code whose moving count falls below this is replaced by a frame of
        the batch.
    kmeans_iterations : int
        Start the codebooks from k-means of the first batch with this many
        iterations; 0 for a random start.
    dropout : float
        Share of the training batches, 0..1, in which only a random number of
        codebooks is used, so that any prefix of them decodes.
    beam_size : int
        In coding, how many beginnings of a frame's codes are kept while the
        others are searched; see `lobes.residual_search`. Training and
        validation take the nearest code, as the codebooks are made.

    Example
    -------
    >>> quantizer = ResidualQuantizer(8, kmeans_iterations=0).eval()
    >>> tokens = quantizer.encode(torch.randn(2, 5, 8))
    >>> tokens.shape, quantizer.decode(tokens[..., :3]).shape
    (torch.Size([2, 5, 8]), torch.Size([2, 5, 8]))
    """

    def __init__(
        self,
        dim,
        num_codebooks=8,
        codebook_size=256,
        codebook_dim=None,
        decay=0.99,
        dead_code_threshold=1.0,
        kmeans_iterations=10,
        dropout=1.0,
        beam_size=1,
    ):
        super().__init__()
        if beam_size < 1:
            raise ValueError(f"beam_size must be 1 or more, found {beam_size}")
        self.num_codebooks = num_codebooks
        self.codebook_size = codebook_size
        self.dropout = dropout
        self.beam_size = beam_size
        self.frozen = False
        """Whether training leaves the codebooks as they are."""
        width = dim if codebook_dim is None else codebook_dim
        factorised = width != dim
        self.project_in = nn.Linear(dim, width) if factorised else None
        self.project_out = nn.Linear(width, dim) if factorised else None
        self.rvq = ResidualVQ(
            dim=width,
            num_quantizers=num_codebooks,
            codebook_size=codebook_size,
            decay=decay,
            threshold_ema_dead_code=dead_code_threshold,
            kmeans_init=kmeans_iterations > 0,
            kmeans_iters=kmeans_iterations,
            quantize_dropout=dropout > 0,
            commitment_weight=1.0,
            rotation_trick=False,
        )

    @property
    def codebook_sizes(self):
        """Entries of each codebook, K of them."""
        return (self.codebook_size,) * self.num_codebooks

    @property
    def synchronized(self):
        """Whether codebook updates are summed over ranks."""
        return all(layer._codebook.use_ddp for layer in self.rvq.layers)

    @property
    def vocabulary(self):
        """Code vectors after projection, shape [K, C, H].

        The sum over codebooks of the chosen vectors is `decode`'s result for
        any prefix: the bias of the projection stands in the first codebook.
        """
        codes = self.rvq.codebooks
        if self.project_out is None:
            return codes
        vectors = codes @ self.project_out.weight.T
        first = vectors[:1] + self.project_out.bias
        return torch.cat([first, vectors[1:]])

    def token_state(self):
        """Tensors by name that decide which tokens a frame has."""
        state = {"codebooks": self.rvq.codebooks}
        if self.project_in is not None:
            for name, tensor in self.project_in.state_dict().items():
                state[f"project_in.{name}"] = tensor
        return state

    @property
    def initialised(self):
        """Whether every codebook has been started."""
        layers = self.rvq.layers
        return all(bool(layer._codebook.initted) for layer in layers)

    def _check_trained(self):
        if not self.initialised:
            raise QuantizerNotTrainedError(
                "the codebooks have not been initialised: train the model "
                "or load weights before coding"
            )

    def forward(self, latents, mask=None):
        """Quantizes in training (or validation), with losses.

        Arguments
        ---------
        latents : torch.Tensor
            Shape [B, N, H].
        mask : torch.Tensor or None
            Shape [B, N], True where valid.

        Returns
        -------
        QuantizerOutput
        """
        if self.frozen or not self.training:
            self._check_trained()
        # the first batch starts every codebook, so none is left out of it
        dropout = self.initialised and bool(torch.rand(()) < self.dropout)
        with torch.autocast(latents.device.type, enabled=False):
            x = self._enter(latents.float())
            # one frame that is not finite would spoil the codebooks for good
            finite = x.detach().isfinite().all(-1)
            x = torch.where(finite.unsqueeze(-1), x, 0.0)
            mask = finite if mask is None else mask & finite
            self.rvq.quantize_dropout = dropout
            codes, tokens, losses = self.rvq(
                x, mask=mask, freeze_codebook=self.frozen
            )
            # one straight-through step here: the residual quantizer's own
            # would pass the gradient once for every codebook
            x = x * mask.unsqueeze(-1)
            quantized = self._leave(x + (codes - x).detach())
        used = (tokens >= 0).flatten(0, 1).any(0).sum().clamp(min=1)
        return QuantizerOutput(quantized, tokens, losses.sum() / used)

    def _enter(self, latents):
        return latents if self.project_in is None else self.project_in(latents)

    def _leave(self, codes):
        return codes if self.project_out is None else self.project_out(codes)

    def encode(self, latents, num_codebooks=None):
        """Latents [B, N, H] to tokens, int64 [B, N, num_codebooks].

        The first `num_codebooks` are returned, all if it is None, the same
        whatever their number. Codebooks that were never initialised raise
        `QuantizerNotTrainedError`.
        """
        self._check_trained()
        count = self.check_num_codebooks(num_codebooks)
        with torch.autocast(latents.device.type, enabled=False):
            x = self._enter(latents.float()).flatten(0, 1)
            # in parts, since what is searched is beam_size * C for each frame
            tokens = torch.cat(
                [
                    search_codes(part, self.rvq.codebooks, self.beam_size)
                    for part in x.split(SEARCHED_FRAMES)
                ]
            )
        return tokens.unflatten(0, latents.shape[:2])[..., :count]

    def decode(self, tokens):
        """Tokens [B, N, k] in 0..C-1 to latents, float32 [B, N, H]; k <= K."""
        missing = self.num_codebooks - self.check_num_codebooks(
            tokens.shape[-1]
        )
        check_tokens(tokens, self.codebook_size)
        padded = nn.functional.pad(tokens, (0, missing), value=-1)
        with torch.autocast(tokens.device.type, enabled=False):
            return self._leave(self.rvq.get_output_from_indices(padded))

    def check_num_codebooks(self, num_codebooks):
        """The number to use, K for None; ValueError if it is not in 1..K."""
        return check_codebooks(num_codebooks, self.num_codebooks)


def check_codebooks(wanted, available):
    """How many codebooks to use, all for None; ValueError if too many or none.

    Example
    -------
    >>> check_codebooks(None, 8), check_codebooks(3, 8)
    (8, 3)
    """
    if wanted is None:
        return available
    if wanted not in range(1, available + 1):
        raise ValueError(
            f"num_codebooks must be in 1..{available}, found {wanted}"
        )
    return int(wanted)


def check_tokens(tokens, codebook_size):
    """ValueError if a token is none of the codebook's.

    Example
    -------
    >>> check_tokens(torch.tensor([0, 256]), 256)
    Traceback (most recent call last):
    ValueError: tokens must be in 0..255, found 0..256
    """
    if tokens.numel():
        low, high = int(tokens.min()), int(tokens.max())
        if low < 0 or high >= codebook_size:
            raise ValueError(
                f"tokens must be in 0..{codebook_size - 1}, found {low}..{high}"
            )


class CodebookUsage:
    """Counts tokens, to tell how well the codebooks are used.

    Arguments
    ---------
    num_codebooks : int
        K.
    codebook_size : int or sequence of int
        C, of all codebooks or of each.

    Example
    -------
    >>> usage = CodebookUsage(num_codebooks=1, codebook_size=4)
    >>> usage.update(
    ...     torch.tensor([[[0], [1], [1], [0], [3]]]),
    ...     torch.tensor([[True, True, True, True, False]]),
    ... )
    >>> usage.used.tolist(), usage.perplexity.tolist()
    ([0.5], [2.0])
    """

    def __init__(self, num_codebooks, codebook_size):
        self.sizes = torch.as_tensor(codebook_size).expand(num_codebooks)
        self.counts = torch.zeros(num_codebooks, int(self.sizes.max()))

    def update(self, tokens, mask=None):
        """Adds tokens [B, N, K] where the mask [B, N] is True.

        Tokens of codebooks that were left out, -1, do not count.
        """
        if mask is not None:
            tokens = tokens[mask]
        columns = tokens.reshape(-1, tokens.shape[-1]).T.cpu()
        for counts, column in zip(self.counts, columns, strict=False):
            kept = column[column >= 0]
            counts += torch.bincount(kept, minlength=len(counts))

    @property
    def used(self):
        """Fraction of the entries used at least once, shape [K]."""
        return (self.counts > 0).sum(1) / self.sizes

    @property
    def perplexity(self):
        """exp of the entropy of the tokens, 1..C, shape [K]."""
        total = self.counts.sum(1, keepdim=True).clamp(min=1)
        return torch.special.entr(self.counts / total).sum(1).exp()
