"""A language model of a codec's tokens that is told a text.

One transformer reads the text, then the tokens in the delay pattern, and says
after each step what the next one is. Text sees text, tokens see the text and
what came before them:

    [ padding, text | begin, step 1, step 2, ... ]     step s: book k of frame s - k
                        |       |       |
                      step 1  step 2  step 3 ...

A prefix, as in VALL-E (Wang et al., arXiv 2301.02111), needs no layers but
those of any transformer. The delay pattern (Copet et al., arXiv 2306.05284)
has one step for a frame, where VALL-E has two networks for coarse and fine
codebooks. Text stands at the end of its columns and positions are rotary,
differences alone: an item is the same in any batch.

Shapes: B items, U symbols, N frames, K codebooks, C entries of the largest,
S = N + K steps, D width.
"""

from typing import NamedTuple

import torch
from torch import nn
from torch.nn.functional import cross_entropy

from speechbrain_flowmac.lobes.token_embedding import CodebookEmbedding
from speechbrain_flowmac.lobes.token_sequences import (
    delay_codebooks,
    undelay_codebooks,
)
from speechbrain_flowmac.lobes.transformer import (
    KeyValueCache,
    TransformerBlock,
    rotary_tables,
)

IGNORED = -100  # what `cross_entropy` leaves out


class Predictions(NamedTuple):
    """What was said of the next tokens, and what they were.

    Arguments
    ---------
    logits : tuple of torch.Tensor
        Of each codebook, [B, S, C_k]; of the first one with the end, C_1 + 1.
    targets : torch.Tensor
        int64 [B, S, K]; `IGNORED` where there is nothing to tell.
    """

    logits: tuple
    targets: torch.Tensor

    def nll(self):
        """Negative log-likelihoods of each codebook.

        Returns
        -------
        tuple of torch.Tensor
            Sums in nats, float32 [K], and numbers of tokens, int64 [K].
        """
        sums = [
            cross_entropy(
                logits.float().flatten(0, 1),
                targets.flatten(),
                ignore_index=IGNORED,
                reduction="sum",
            )
            for logits, targets in zip(
                self.logits, self.targets.unbind(2), strict=True
            )
        ]
        return torch.stack(sums), (self.targets != IGNORED).sum((0, 1))


class TokenLanguageModel(nn.Module):
    """From text to tokens, step by step.

    Arguments
    ---------
    num_symbols : int
        Of text.
    codebook_sizes : sequence of int
        Entries of each of the K codebooks.
    dim : int
        D.
    num_layers : int
        Transformer blocks.
    num_heads : int
        Of the attention.
    dropout : float
        Of embeddings and in every block.
    vectors : torch.Tensor or None
        Start of the embeddings, see `CodebookEmbedding`.
    condition : nn.Module or None
        From numbers [B] to [B, D], as `FrameRateEmbedding`, where a model is
        told one for each item.

    Example
    -------
    >>> model = TokenLanguageModel(29, [256, 256], 16, 1, num_heads=2).eval()
    >>> text = torch.tensor([[1, 2, 3], [4, 5, 0]]), torch.tensor([3, 2])
    >>> tokens = torch.zeros(2, 5, 2, dtype=torch.long), torch.tensor([5, 4])
    >>> predictions = model(*text, *tokens)
    >>> [logits.shape[-1] for logits in predictions.logits]
    [257, 256]
    >>> predictions.targets.shape
    torch.Size([2, 7, 2])
    >>> codes, lengths = model.generate(*text, max_frames=3)
    >>> codes.shape[2], bool((lengths <= 3).all())
    (2, True)
    """

    def __init__(
        self,
        num_symbols,
        codebook_sizes,
        dim,
        num_layers,
        num_heads=8,
        dropout=0.1,
        vectors=None,
        condition=None,
    ):
        super().__init__()
        self.text = nn.Embedding(num_symbols, dim)
        self.tokens = CodebookEmbedding(
            len(codebook_sizes), codebook_sizes, dim, vectors
        )
        self.condition = condition
        self.dropout = nn.Dropout(dropout)
        self.head_dim = dim // num_heads
        self.blocks = nn.ModuleList(
            TransformerBlock(dim, num_heads, 4 * dim, dropout)
            for _ in range(num_layers)
        )
        self.norm = nn.LayerNorm(dim)
        first, *rest = codebook_sizes
        self.num_classes = [first + 1, *rest]
        self.output = nn.Linear(dim, sum(self.num_classes))

    @property
    def special(self):
        """Begin, end and padding, `SpecialTokens`."""
        return self.tokens.special

    def forward(self, text, text_lengths, tokens, lengths, condition=None):
        """Tells each step from those before it (teacher forcing).

        Arguments
        ---------
        text : torch.Tensor
            Symbols, int64 [B, U].
        text_lengths : torch.Tensor
            Exact numbers of symbols, int64 [B], 1 or more.
        tokens : torch.Tensor
            Codes, int64 [B, N, K].
        lengths : torch.Tensor
            Exact numbers of frames, int64 [B], 1 or more.
        condition : torch.Tensor or None
            Numbers for the `condition` of this model, [B].

        Returns
        -------
        Predictions
        """
        framed, _ = self.special.wrap(tokens, lengths)
        delayed = delay_codebooks(framed, self.special.pad)
        told = self._told(condition)
        prefix = self._prefix(text, text_lengths, told)
        x = torch.cat([prefix, self._embed(delayed[:, :-1], told)], dim=1)
        width = text.shape[1]
        hidden = self._run(x, width, width - text_lengths)
        logits = self.output(hidden[:, width:])
        return Predictions(
            logits.split(self.num_classes, dim=-1),
            self._targets(delayed[:, 1:]),
        )

    def _told(self, condition):
        if (condition is None) != (self.condition is None):
            raise ValueError(
                f"expected condition for {self.condition}, found {condition}"
            )
        if condition is None:
            return 0.0
        return self.condition(condition).unsqueeze(1)

    def _prefix(self, text, text_lengths, told):
        """Embedded text [B, U, D], at the end of its columns."""
        columns = torch.arange(text.shape[1], device=text.device)
        places = columns - (text.shape[1] - text_lengths).unsqueeze(1)
        text = text.gather(1, places.clamp(min=0))
        return self.dropout(self.text(text) + told)

    def _embed(self, delayed, told):
        """Embedded steps: [B, S, K] to [B, S, D]."""
        return self.dropout(self.tokens(delayed).sum(2) + told)

    def _targets(self, delayed):
        """Classes to tell: codes, and of the first codebook the end."""
        ends = delayed == self.special.end
        # where the first codebook has ended the others follow
        ends[..., 1:] = False
        codes = delayed < self.special.codebook_size
        targets = delayed.masked_fill(~codes, IGNORED)
        return targets.masked_fill(ends, self.num_classes[0] - 1)

    def _run(self, x, width, start, caches=None, seen=0):
        """The blocks, on columns `seen` and on, to [B, L, D]."""
        last = seen + x.shape[1]
        tables = rotary_tables(last, self.head_dim, x.device)
        tables = [table[seen:] for table in tables]
        allowed = prefix_mask(width, start, seen, last)
        for i, block in enumerate(self.blocks):
            x = block(x, tables, allowed, None if caches is None else caches[i])
        return self.norm(x)

    @torch.no_grad()
    def generate(
        self,
        text,
        text_lengths,
        condition=None,
        *,
        max_frames,
        temperature=1.0,
        top_k=None,
        seed=0,
    ):
        """Draws tokens, each item as if it were alone.

        Arguments
        ---------
        text, text_lengths, condition
            As for `forward`.
        max_frames : int
            At which an item ends that has not said so, 1 or more.
        temperature : float
            Above 0; below 1 likely codes become likelier.
        top_k : int or None
            Draws among the likeliest so many of each codebook; 1 is greedy.
        seed : int
            Of the draws; the same seed gives the same tokens.

        Returns
        -------
        tuple of torch.Tensor
            Codes, int64 [B, N, K], 0 past the ends, and exact numbers of
            frames, int64 [B], from 1 to `max_frames`.
        """
        if not (temperature > 0 and max_frames > 0):
            raise ValueError(
                "expected a temperature above 0 and max_frames of 1 or more, "
                f"found {temperature} and {max_frames}; greedy is top_k=1"
            )
        books, width = len(self.num_classes), text.shape[1]
        told, start = self._told(condition), width - text_lengths
        caches = [KeyValueCache() for _ in self.blocks]
        generators = [torch.Generator().manual_seed(seed) for _ in text]
        ends = torch.full_like(text_lengths, max_frames + 1)
        drawn = text.new_zeros(len(text), books)
        steps = [self._place(drawn, 0, ends)]
        prefix = self._prefix(text, text_lengths, told)
        x = torch.cat([prefix, self._embed(steps[0].unsqueeze(1), told)], dim=1)
        for step in range(1, max_frames + books + 1):
            seen = width + step - x.shape[1]
            hidden = self._run(x, width, start, caches, seen)[:, -1]
            scores = self.output(hidden).float() / temperature
            end = self.num_classes[0] - 1
            if step == 1:
                scores[:, end] = -torch.inf  # there is a first frame
            drawn = self._draw(scores, top_k, generators)
            ended = drawn[:, 0] == end
            ends = torch.where(ended, ends.clamp(max=step), ends)
            steps.append(self._place(drawn, step, ends))
            if step >= int(ends.max()) + books - 1:
                break
            x = self._embed(steps[-1].unsqueeze(1), told)
        return self.special.unwrap(undelay_codebooks(torch.stack(steps, 1)))

    def _draw(self, scores, top_k, generators):
        """One class of each codebook, [B, K], by the Gumbel-max trick."""
        noise = torch.stack(
            [
                torch.empty(scores.shape[1]).exponential_(generator=generator)
                for generator in generators
            ]
        )
        books = zip(
            scores.split(self.num_classes, dim=1),
            noise.to(scores.device).log().split(self.num_classes, dim=1),
            strict=True,
        )
        drawn = []
        for score, gumbel in books:
            if top_k is not None:
                best = score.topk(min(top_k, score.shape[1])).values
                score = score.masked_fill(score < best[:, -1:], -torch.inf)
            drawn.append((score - gumbel).argmax(1))
        return torch.stack(drawn, dim=1)

    def _place(self, codes, step, ends):
        """Codes [B, K] of a step, and special tokens where they have to be."""
        books = torch.arange(codes.shape[1], device=codes.device)
        frames, ends = step - books, ends.unsqueeze(1)
        outside = (frames < 0) | (frames > ends)
        codes = codes.masked_fill(outside, self.special.pad)
        codes = codes.masked_fill(frames == 0, self.special.begin)
        return codes.masked_fill(frames == ends, self.special.end)


def prefix_mask(width, start, first, last):
    """Which columns see which: a prefix itself, what follows only back.

    Arguments
    ---------
    width : int
        Columns of the prefix.
    start : torch.Tensor
        Where it starts in each item, int64 [B]; padding before is not seen.
    first : int
        Column of the first that looks.
    last : int
        One past the last column.

    Returns
    -------
    torch.Tensor
        bool, shape [B, 1, last - first, last].

    Example
    -------
    >>> prefix_mask(3, torch.tensor([1]), 0, 5).int()[0, 0]
    tensor([[0, 1, 1, 0, 0],
            [0, 1, 1, 0, 0],
            [0, 1, 1, 0, 0],
            [0, 1, 1, 1, 0],
            [0, 1, 1, 1, 1]], dtype=torch.int32)
    """
    columns = torch.arange(last, device=start.device)
    seen = columns <= columns[first:, None]
    seen = seen | (columns < width)
    return (seen & (columns >= start[:, None, None])).unsqueeze(1)
