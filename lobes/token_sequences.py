"""Token sequences as language models want them.

Shapes: B items, N frames, K codebooks, C entries of a codebook.
"""

from dataclasses import dataclass

import torch
from torch.nn.functional import pad

from speechbrain_flowmac.lobes.lengths import length_mask


@dataclass(frozen=True)
class SpecialTokens:
    """Numbers for padding, begin and end, outside the codes 0..C-1.

    Arguments
    ---------
    codebook_size : int
        C, or K * C for flattened codebooks.

    Example
    -------
    >>> special = SpecialTokens(codebook_size=256)
    >>> special.pad, special.begin, special.end, special.vocabulary_size
    (256, 257, 258, 259)
    >>> special.wrap(torch.tensor([[[7], [0]]]), torch.tensor([1]))[0].tolist()
    [[[257], [7], [258], [256]]]
    """

    codebook_size: int

    @property
    def pad(self):
        """The number of padding: C."""
        return self.codebook_size

    @property
    def begin(self):
        """The number before the first token: C + 1."""
        return self.codebook_size + 1

    @property
    def end(self):
        """The number after the last token: C + 2."""
        return self.codebook_size + 2

    @property
    def vocabulary_size(self):
        """Codes and special tokens together: C + 3."""
        return self.codebook_size + 3

    def pad_past_end(self, tokens, lengths):
        """Puts padding where an item has ended.

        Arguments
        ---------
        tokens : torch.Tensor
            Shape [B, N, K].
        lengths : torch.Tensor
            Exact numbers of frames, int64 [B].

        Returns
        -------
        torch.Tensor
            Shape [B, N, K].
        """
        mask = length_mask(lengths, tokens.shape[1])
        return tokens.masked_fill(~mask.unsqueeze(-1), self.pad)

    def wrap(self, tokens, lengths):
        """Puts a frame of `begin` before and of `end` after each item.

        Arguments
        ---------
        tokens : torch.Tensor
            Shape [B, N, K].
        lengths : torch.Tensor
            Exact numbers of frames, int64 [B].

        Returns
        -------
        tuple of torch.Tensor
            Tokens [B, N + 2, K], padded past the ends, and lengths + 2.
        """
        tokens = pad(self.pad_past_end(tokens, lengths), (0, 0, 1, 1))
        tokens[:, 0], tokens[:, -1] = self.begin, self.pad
        items = torch.arange(len(tokens), device=tokens.device)
        tokens[items, lengths + 1] = self.end
        return tokens, lengths + 2

    def unwrap(self, tokens):
        """Cuts what a model generated at the first frame with an end.

        Arguments
        ---------
        tokens : torch.Tensor
            Shape [B, N + 2, K], as `wrap` gives them.

        Returns
        -------
        tuple of torch.Tensor
            Codes [B, N, K], 0 past the ends, and exact lengths [B].
        """
        tokens = tokens[:, 1:]
        ended = (tokens == self.end).any(-1).cumsum(1) > 0
        lengths = (~ended).sum(1)
        longest = int(lengths.max())
        codes = tokens[:, :longest]
        return codes.masked_fill(ended[:, :longest, None], 0), lengths


def flatten_codebooks(tokens, codebook_size):
    """One sequence, frame by frame, with numbers of their own per codebook.

    Arguments
    ---------
    tokens : torch.Tensor
        Codes, shape [B, N, K].
    codebook_size : int
        C.

    Returns
    -------
    torch.Tensor
        k * C + c, shape [B, N * K]; lengths become lengths * K.

    Example
    -------
    >>> flatten_codebooks(torch.tensor([[[1, 2], [3, 0]]]), 4).tolist()
    [[1, 6, 3, 4]]
    """
    books = torch.arange(tokens.shape[2], device=tokens.device)
    return (tokens + codebook_size * books).flatten(1)


def unflatten_codebooks(flat, num_codebooks, codebook_size):
    """Inverse of `flatten_codebooks`.

    Arguments
    ---------
    flat : torch.Tensor
        Shape [B, N * K].
    num_codebooks : int
        K.
    codebook_size : int
        C.

    Returns
    -------
    torch.Tensor
        Codes, shape [B, N, K]; an error if a number is not of the codebook
        whose turn it is.
    """
    if flat.shape[1] % num_codebooks:
        raise ValueError(
            f"{flat.shape[1]} tokens are no whole number of frames of "
            f"{num_codebooks} codebooks"
        )
    tokens = flat.unflatten(1, (-1, num_codebooks))
    books = torch.arange(num_codebooks, device=flat.device)
    codes = tokens - codebook_size * books
    if ((codes < 0) | (codes >= codebook_size)).any():
        raise ValueError("a token stands where another codebook's turn is")
    return codes


def delay_codebooks(tokens, fill):
    """Shifts codebook k by k steps, so that a step sees coarser ones first.

    Source: Copet et al., "Simple and Controllable Music Generation",
    arXiv 2306.05284, section 2.2.

    Arguments
    ---------
    tokens : torch.Tensor
        Shape [B, N, K].
    fill : int
        Stands where a codebook has not begun or has ended.

    Returns
    -------
    torch.Tensor
        Shape [B, N + K - 1, K]; lengths become lengths + K - 1.

    Example
    -------
    >>> delay_codebooks(torch.tensor([[[1, 2], [3, 4]]]), 9).tolist()
    [[[1, 9], [3, 2], [9, 4]]]
    """
    last = tokens.shape[2] - 1
    shifted = [
        pad(book, (k, last - k), value=fill)
        for k, book in enumerate(tokens.unbind(2))
    ]
    return torch.stack(shifted, dim=2)


def undelay_codebooks(delayed):
    """Inverse of `delay_codebooks`.

    Arguments
    ---------
    delayed : torch.Tensor
        Shape [B, N + K - 1, K].

    Returns
    -------
    torch.Tensor
        Shape [B, N, K].
    """
    frames = delayed.shape[1] - delayed.shape[2] + 1
    if frames < 1:
        raise ValueError(
            f"{delayed.shape[2]} delayed codebooks need at least as many "
            f"steps, found {delayed.shape[1]}"
        )
    books = delayed.unbind(2)
    return torch.stack(
        [book[:, k : k + frames] for k, book in enumerate(books)], dim=2
    )


def insert_durations(tokens, durations):
    """Durations as the codes of one more codebook, behind the first one.

    Codebook 2 then says how long what codebook 1 says lasts; code d stands
    for d + 1 frames of time.

    Arguments
    ---------
    tokens : torch.Tensor
        Codes of merged frames, int64 [B, N, K].
    durations : torch.Tensor
        In frames of time, int64 [B, N], 0 past an item's end.

    Returns
    -------
    torch.Tensor
        int64 [B, N, K + 1], 0 past an item's end where tokens are.

    Example
    -------
    >>> tokens = torch.tensor([[[7, 8], [9, 6], [0, 0]]])
    >>> insert_durations(tokens, torch.tensor([[3, 1, 0]])).tolist()
    [[[7, 2, 8], [9, 0, 6], [0, 0, 0]]]
    """
    last = (durations - 1).clamp(min=0).unsqueeze(-1)
    return torch.cat([tokens[..., :1], last, tokens[..., 1:]], dim=-1)


def take_durations(codes, lengths):
    """Inverse of `insert_durations`.

    Arguments
    ---------
    codes : torch.Tensor
        int64 [B, N, K + 1].
    lengths : torch.Tensor
        Exact numbers of merged frames, int64 [B].

    Returns
    -------
    tuple of torch.Tensor
        Tokens [B, N, K] and durations [B, N], 0 past an item's end.

    Example
    -------
    >>> codes = torch.tensor([[[7, 2, 8], [9, 0, 6], [0, 0, 0]]])
    >>> tokens, durations = take_durations(codes, torch.tensor([2]))
    >>> tokens.tolist(), durations.tolist()
    ([[[7, 8], [9, 6], [0, 0]]], [[3, 1, 0]])
    """
    tokens = torch.cat([codes[..., :1], codes[..., 2:]], dim=-1)
    return tokens, (codes[..., 1] + 1) * length_mask(lengths, codes.shape[1])
