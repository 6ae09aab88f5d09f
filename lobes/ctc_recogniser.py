"""Speech recognisers for CTC: a front end, an encoder, an output layer.

The front end is the only part that knows whether tokens or mels come in, so
that recognisers of both can be compared.

Shapes: B items, N frames, K codebooks, D width, V symbols.
"""

import torch
from speechbrain.lobes.models.transformer import Conformer
from torch import nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from speechbrain_flowmac.lobes.lengths import length_mask, num_frames
from speechbrain_flowmac.lobes.token_embedding import (
    CodebookAttention,
    CodebookEmbedding,
)


class TokenFrontEnd(nn.Module):
    """Embeds tokens and mixes their codebooks.

    Arguments
    ---------
    num_codebooks : int
        K.
    codebook_size : int
        C.
    dim : int
        D.
    vectors : torch.Tensor or None
        Start of the embeddings, see `CodebookEmbedding`.

    Example
    -------
    >>> front_end = TokenFrontEnd(8, 256, 32)
    >>> front_end(torch.zeros(2, 5, 8, dtype=torch.long)).shape
    torch.Size([2, 5, 32])
    """

    def __init__(self, num_codebooks, codebook_size, dim, vectors=None):
        super().__init__()
        self.embedding = CodebookEmbedding(
            num_codebooks, codebook_size, dim, vectors
        )
        self.attention = CodebookAttention(dim, dim // 4)

    def forward(self, tokens):
        """Returns [B, N, D] of tokens [B, N, K]."""
        return self.attention(self.embedding(tokens))


class MelFrontEnd(nn.Linear):
    """Log-mels [B, N, M] to [B, N, D].

    Arguments
    ---------
    n_mels : int
        M.
    dim : int
        D.

    Example
    -------
    >>> MelFrontEnd(128, 32)(torch.randn(2, 5, 128)).shape
    torch.Size([2, 5, 32])
    """

    def __init__(self, n_mels, dim):
        super().__init__(n_mels, dim)


class LSTMEncoder(nn.Module):
    """Bidirectional LSTM.

    Arguments
    ---------
    dim : int
        D, of input and output.
    num_layers : int
        Layers.
    dropout : float
        Between layers and before the output.

    Example
    -------
    >>> encoder = LSTMEncoder(16, num_layers=1)
    >>> encoder(torch.randn(2, 5, 16), torch.tensor([5, 3])).shape
    torch.Size([2, 5, 16])
    """

    def __init__(self, dim, num_layers, dropout=0.1):
        super().__init__()
        self.lstm = nn.LSTM(
            dim,
            dim // 2,
            num_layers,
            batch_first=True,
            bidirectional=True,
            dropout=dropout if num_layers > 1 else 0.0,
        )
        self.dropout = nn.Dropout(dropout)

    def forward(self, x, lengths):
        """Returns [B, N, D] of x [B, N, D], with exact lengths [B]."""
        packed = pack_padded_sequence(
            x, lengths.cpu(), batch_first=True, enforce_sorted=False
        )
        output, _ = pad_packed_sequence(
            self.lstm(packed)[0], batch_first=True, total_length=x.shape[1]
        )
        return self.dropout(output)


class ConformerEncoder(nn.Module):
    """SpeechBrain's Conformer with rotary positions.

    Source: Gulati et al., "Conformer", arXiv 2005.08100.

    Arguments
    ---------
    dim : int
        D.
    num_layers : int
        Layers.
    num_heads : int
        Of the attention.
    kernel_size : int
        Of the convolutions, in frames.
    dropout : float
        In every layer.

    Example
    -------
    >>> encoder = ConformerEncoder(16, num_layers=1, num_heads=2)
    >>> encoder(torch.randn(2, 5, 16), torch.tensor([5, 3])).shape
    torch.Size([2, 5, 16])
    """

    def __init__(
        self, dim, num_layers, num_heads=4, kernel_size=15, dropout=0.1
    ):
        super().__init__()
        self.conformer = Conformer.ConformerEncoder(
            num_layers=num_layers,
            d_model=dim,
            d_ffn=4 * dim,
            nhead=num_heads,
            kernel_size=kernel_size,
            dropout=dropout,
            attention_type="RoPEMHA",
        )

    def forward(self, x, lengths):
        """Returns [B, N, D] of x [B, N, D], with exact lengths [B]."""
        past = ~length_mask(lengths, x.shape[1])
        return self.conformer(x, src_key_padding_mask=past)[0]


class CTCRecogniser(nn.Module):
    """From tokens or mels to log-probabilities of symbols, at half the rate.

    Arguments
    ---------
    front_end : nn.Module
        To [B, N, D].
    encoder : nn.Module
        `LSTMEncoder` or `ConformerEncoder`.
    dim : int
        D.
    num_symbols : int
        V, with the blank, which is 0.

    Example
    -------
    >>> recogniser = CTCRecogniser(
    ...     nn.Linear(128, 16), LSTMEncoder(16, 1), dim=16, num_symbols=29
    ... )
    >>> scores, lengths = recogniser(
    ...     torch.randn(2, 5, 128), torch.tensor([5, 3])
    ... )
    >>> scores.shape, lengths.tolist()
    (torch.Size([2, 3, 29]), [3, 2])
    """

    def __init__(self, front_end, encoder, dim, num_symbols):
        super().__init__()
        self.front_end = front_end
        self.halve = nn.Conv1d(dim, dim, 3, stride=2, padding=1)
        self.encoder = encoder
        self.norm = nn.LayerNorm(dim)
        self.output = nn.Linear(dim, num_symbols)

    def forward(self, x, lengths):
        """Scores the symbols of each second frame.

        Arguments
        ---------
        x : torch.Tensor
            What the front end takes, shape [B, N, ...].
        lengths : torch.Tensor
            Exact numbers of frames, int64 [B].

        Returns
        -------
        tuple of torch.Tensor
            Natural-log probabilities, float32 [B, ceil(N / 2), V], and exact
            lengths, int64 [B].
        """
        x, lengths = self.encode(x, lengths)
        return self.output(self.norm(x)).float().log_softmax(-1), lengths

    def encode(self, x, lengths):
        """What the encoder makes of it, [B, ceil(N / 2), D], and lengths."""
        mask = length_mask(lengths, x.shape[1]).unsqueeze(-1)
        x = (self.front_end(x) * mask).transpose(1, 2)
        x = torch.nn.functional.gelu(self.halve(x)).transpose(1, 2)
        lengths = num_frames(lengths, 2)
        return self.encoder(x, lengths), lengths
