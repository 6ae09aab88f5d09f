"""Tokens of several codebooks as input of a network.

Shapes: B items, N frames, K codebooks, C entries, D width.
"""

import torch
from torch import nn

from speechbrain_flowmac.lobes.token_sequences import SpecialTokens
from speechbrain_flowmac.lobes.vector_field import TimeEmbedding


class CodebookEmbedding(nn.Module):
    """One embedding table per codebook, special tokens included.

    Arguments
    ---------
    num_codebooks : int
        K.
    codebook_size : int or sequence of int
        C, or the entries of each codebook: C is then the most.
    dim : int
        D.
    vectors : torch.Tensor or None
        Start of the tables, a row [H] for each entry, such as the tokenizer's
        `get_pretrained_embeddings`. They are brought to unit variance, and by
        a linear layer to width D where H differs.

    Example
    -------
    >>> embedding = CodebookEmbedding(8, 256, 64)
    >>> embedding(torch.zeros(2, 5, 8, dtype=torch.long)).shape
    torch.Size([2, 5, 8, 64])
    """

    def __init__(self, num_codebooks, codebook_size, dim, vectors=None):
        super().__init__()
        self.num_codebooks = num_codebooks
        if isinstance(codebook_size, int):
            codebook_size = [codebook_size] * num_codebooks
        self.sizes = list(codebook_size)
        self.special = SpecialTokens(max(self.sizes))
        sizes = torch.tensor(self.sizes)
        extra = self.special.vocabulary_size - self.special.codebook_size
        rows = sizes + extra
        self.register_buffer("first_row", rows.cumsum(0) - rows, False)
        self.register_buffer(
            "unused", self.special.codebook_size - sizes, False
        )
        width = dim if vectors is None else vectors.shape[-1]
        self.table = nn.Embedding(int(rows.sum()), width)
        self.project = nn.Identity() if width == dim else nn.Linear(width, dim)
        if vectors is not None:
            self._start_from(vectors)
        with torch.no_grad():
            self.table.weight[self.first_row + sizes] = 0.0  # padding

    @torch.no_grad()
    def _start_from(self, vectors):
        if len(vectors) != sum(self.sizes):
            raise ValueError(
                f"vectors must be {self.num_codebooks} codebooks, "
                f"{sum(self.sizes)} in all, found {len(vectors)}"
            )
        books = vectors.split(self.sizes)
        for first, book in zip(self.first_row.tolist(), books, strict=True):
            # later codebooks code small residuals: alike they can be heard
            centred = book - book.mean(0)
            spread = centred.std().clamp(min=1e-6)
            self.table.weight[first : first + len(book)] = centred / spread

    def forward(self, tokens):
        """Looks tokens up.

        Arguments
        ---------
        tokens : torch.Tensor
            int64, shape [B, N, K], in 0..C + 2: special ones are those of
            `SpecialTokens`, from C on in every codebook.

        Returns
        -------
        torch.Tensor
            Shape [B, N, K, D].
        """
        if tokens.shape[-1] != self.num_codebooks:
            raise ValueError(
                f"expected {self.num_codebooks} codebooks, found "
                f"{tokens.shape[-1]}"
            )
        special = tokens >= self.special.codebook_size
        rows = tokens - special * self.unused + self.first_row
        # a table has fewer rows than a batch has tokens
        return nn.functional.embedding(rows, self.project(self.table.weight))


class CodebookAttention(nn.Module):
    """Learnt weights of the codebooks, frame by frame; DASB's AttentionMLP.

    Source: Mousavi et al., "DASB - Discrete Audio and Speech Benchmark",
    arXiv 2406.14294.

    Arguments
    ---------
    dim : int
        D.
    hidden_dim : int
        Width of the network that weighs.

    Example
    -------
    >>> CodebookAttention(64, 32)(torch.randn(2, 5, 8, 64)).shape
    torch.Size([2, 5, 64])
    """

    def __init__(self, dim, hidden_dim):
        super().__init__()
        self.score = nn.Sequential(
            nn.Linear(dim, hidden_dim),
            nn.ReLU(),
            nn.Linear(hidden_dim, 1, bias=False),
        )

    def forward(self, vectors):
        """Mixes the codebooks of a frame.

        Arguments
        ---------
        vectors : torch.Tensor
            Shape [B, N, K, D].

        Returns
        -------
        torch.Tensor
            Shape [B, N, D].
        """
        weights = self.score(vectors).softmax(dim=2)
        return (weights * vectors).sum(2)


class FrameRateEmbedding(nn.Module):
    """Tells a model of tokens with a dynamic frame rate how many it is to make.

    A rate is a number, not a class: a model that was trained on some rates
    can be asked for any other between them. Rates enter by their octave. A
    duration is a rate too: of frames of time over how many of them a token
    lasts.

    Arguments
    ---------
    dim : int
        D, even.

    Example
    -------
    >>> embedding = FrameRateEmbedding(64)
    >>> embedding(torch.tensor([6.25, 8.3])).shape
    torch.Size([2, 64])
    >>> embedding(23.4375 / torch.tensor([[1, 3, 2]])).shape
    torch.Size([1, 3, 64])
    """

    def __init__(self, dim):
        super().__init__()
        self.octave = TimeEmbedding(dim, scale=10.0)

    def forward(self, rates):
        """Frames in a second, Hz, of any shape [...], to [..., D]."""
        if not bool((rates > 0).all()):
            raise ValueError(f"rates must be above 0 Hz, found {rates.min()}")
        return self.octave(rates.log2().flatten()).unflatten(0, rates.shape)
