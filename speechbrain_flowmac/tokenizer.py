"""The codec as a tokenizer inside other SpeechBrain recipes.

Shapes: B items, T samples, N token frames, K codebooks, C entries, H width.
"""

import torch
from torch import nn

from speechbrain_flowmac.admission import admit_signals
from speechbrain_flowmac.audio import resample
from speechbrain_flowmac.inference import FlowMACCodec


class FlowMACTokenizer(nn.Module):
    """A face of `FlowMACCodec` for recipes, built by one line of YAML.

    It has the methods of DASB's tokenizers (`sig_to_tokens`, `tokens_to_sig`,
    `get_pretrained_embeddings`) and those of SpeechBrain's own wrappers
    (`encode`, `decode`, `embeddings` and a `forward` that encodes).

    Inside `Brain.modules` it follows the Brain's device and nothing else:
    the codec is no submodule, so it stays in evaluation mode and in float32,
    is not trained, and adds nothing to checkpoints. The vocoder is loaded
    when sound is first asked for.

    Arguments
    ---------
    source : str or Path
        Built-in name, local folder or Hub id.
    num_codebooks : int or None
        Keep the first so many; None for all. Calls may ask for another.
    sample_rate : int or None
        Of the signals that come in and go out, in Hz; None for the codec's.
        They are resampled, on the CPU, as files are.
    device : str or torch.device
        Where to start; can be set later.

    Example
    -------
    >>> tokenizer = FlowMACTokenizer(num_codebooks=2)
    >>> tokens = tokenizer.sig_to_tokens(torch.randn(1, 24000))
    >>> tokens.shape, tokenizer.embeddings(tokens).shape
    (torch.Size([1, 47, 2]), torch.Size([1, 47, 2, 256]))
    """

    def __init__(
        self,
        source="flowmac-24khz-3kbps",
        num_codebooks=None,
        sample_rate=None,
        device="cpu",
    ):
        super().__init__()
        if sample_rate is not None:
            check_sample_rate(sample_rate)
        self.source = source
        self._set_codec(device, vocoder=False)
        quantizer = self.codec.codec.quantizer
        self.num_codebooks = quantizer.check_num_codebooks(num_codebooks)
        self.sample_rate = sample_rate or self.codec.sample_rate

    def _set_codec(self, device, vocoder):
        codec = FlowMACCodec.from_hparams(
            self.source, run_opts={"device": str(device)}, vocoder=vocoder
        )
        # past nn.Module, which would make a submodule of it
        object.__setattr__(self, "codec", codec)

    def _sounding(self):
        """The codec, with its vocoder from now on."""
        if "vocoder" not in self.codec.mods:
            self._set_codec(self.device, vocoder=True)
        return self.codec

    # Inside a Brain

    @property
    def device(self):
        """Where the codec is; setting it moves the codec."""
        return next(self.codec.parameters()).device

    @device.setter
    def device(self, device):
        """Moves the codec."""
        self.codec.to(device)

    def _apply(self, fn, recurse=True):
        """Follows `.to(device)`, but keeps its precision."""
        self.device = fn(torch.empty(0, device=self.device)).device
        return super()._apply(fn, recurse)

    # What it is

    @property
    def hop_length(self):
        """Samples per token frame, at the codec's rate."""
        return self.codec.hop_length

    @property
    def frame_rate(self):
        """Token frames per second."""
        return self.codec.frame_rate

    @property
    def codebook_size(self):
        """C."""
        return self.codec.codebook_size

    @property
    def vocabulary(self):
        """Code vectors of the codebooks in use, shape [K, C, H]; a copy."""
        vectors = self.codec.vocabulary[: self.num_codebooks]
        return vectors.detach().clone()

    @property
    def emb_dim(self):
        """H."""
        return self.codec.vocabulary.shape[-1]

    # SpeechBrain's names for K and C

    @property
    def num_heads(self):
        """K."""
        return self.num_codebooks

    @property
    def num_tokens(self):
        """C."""
        return self.codebook_size

    # Tokens with exact lengths

    @torch.no_grad()
    def encode_batch(self, signal, lengths=None, num_codebooks=None):
        """Waveforms to tokens, with exact numbers of frames.

        Arguments
        ---------
        signal : torch.Tensor
            Shape [B, T] or [B, 1, T], at `sample_rate`.
        lengths : torch.Tensor or None
            Relative lengths, floats in (0, 1], or exact ones, integers, shape
            [B]; None if all are full.
        num_codebooks : int or None
            None for the tokenizer's own.

        Returns
        -------
        tuple of torch.Tensor
            Tokens, int64 [B, N, num_codebooks], and numbers of frames, int64
            [B]: cut with these, since rounding relative lengths loses frames.
        """
        count = self.num_codebooks if num_codebooks is None else num_codebooks
        if self.sample_rate != self.codec.sample_rate:
            signal, lengths = self._resample(*admit_signals(signal, lengths))
        return self.codec.encode_frames(signal, lengths, count)

    def _resample(self, signal, lengths):
        """Resamples each item alone, so that its neighbours change no bit."""
        rates = self.sample_rate, self.codec.sample_rate
        items = [
            resample(item[:end, None], *rates).squeeze(1)
            for item, end in zip(signal, lengths.tolist(), strict=True)
        ]
        lengths = torch.tensor([len(item) for item in items])
        return nn.utils.rnn.pad_sequence(items, batch_first=True), lengths

    # DASB's names

    def sig_to_tokens(self, signal, lengths=None, num_codebooks=None, **kwargs):
        """Waveforms to tokens.

        Arguments
        ---------
        signal, lengths, num_codebooks
            As for `encode_batch`.
        **kwargs
            Ignored, as the interface asks.

        Returns
        -------
        torch.Tensor
            int64, shape [B, N, num_codebooks], 0..C-1; 0 past an item's end.
        """
        return self.encode_batch(signal, lengths, num_codebooks)[0]

    @torch.no_grad()
    def tokens_to_sig(self, tokens, **kwargs):
        """Tokens to waveforms.

        Arguments
        ---------
        tokens : torch.Tensor
            int64, shape [B, N, k], any k up to the codec's K.
        **kwargs
            length, n_steps, solver, seed: as for `FlowMACCodec`'s; others
            are ignored, as the interface asks.

        Returns
        -------
        torch.Tensor
            Shape [B, T] at `sample_rate`.
        """
        codec = self._sounding()
        signal = codec.tokens_to_sig(tokens, **kwargs)
        if self.sample_rate != codec.sample_rate:
            rates = codec.sample_rate, self.sample_rate
            signal = resample(signal.T, *rates).T
        return signal

    def get_pretrained_embeddings(
        self, vocab_size=None, num_codebooks=None, **kwargs
    ):
        """Code vectors, codebook by codebook; a copy to train on.

        Arguments
        ---------
        vocab_size : int or None
            Must be C if given.
        num_codebooks : int or None
            None for the tokenizer's own.
        **kwargs
            Ignored, as the interface asks.

        Returns
        -------
        torch.Tensor
            Shape [num_codebooks * C, H]; row k * C + c is entry c of book k.
        """
        count = self.num_codebooks if num_codebooks is None else num_codebooks
        vectors = self.codec.get_pretrained_embeddings(vocab_size, count)
        return vectors.detach().clone()

    # SpeechBrain's names

    def forward(self, inputs, length=None):
        """As `encode`."""
        return self.encode(inputs, length)

    def encode(self, inputs, length=None):
        """Waveforms to tokens and their vectors.

        Arguments
        ---------
        inputs : torch.Tensor
            Shape [B, T] or [B, 1, T], at `sample_rate`.
        length : torch.Tensor or None
            As the `lengths` of `encode_batch`.

        Returns
        -------
        tuple of torch.Tensor
            Tokens [B, N, K] and vectors [B, N, K, H].
        """
        tokens = self.sig_to_tokens(inputs, length)
        return tokens, self.embeddings(tokens)

    def embeddings(self, tokens):
        """Code vectors of tokens; their sum over k is what the decoder hears.

        Arguments
        ---------
        tokens : torch.Tensor
            int64, shape [B, N, k], k up to the codec's K.

        Returns
        -------
        torch.Tensor
            Shape [B, N, k, H].
        """
        tokens, _ = self.codec.admit_tokens(tokens)
        count, size = tokens.shape[-1], self.codebook_size
        vectors = self.get_pretrained_embeddings(size, count)
        rows = tokens + size * torch.arange(count, device=tokens.device)
        return nn.functional.embedding(rows, vectors)

    def decode(self, tokens, length=None, **kwargs):
        """Tokens to waveforms [B, 1, T]; arguments of `tokens_to_sig`."""
        return self.tokens_to_sig(tokens, length=length, **kwargs).unsqueeze(1)

    def reconstruct(self, inputs, length=None, **kwargs):
        """Waveforms through tokens and back.

        Arguments
        ---------
        inputs, length
            As for `encode`.
        **kwargs
            As for `tokens_to_sig`.

        Returns
        -------
        torch.Tensor
            Shape [B, 1, T']: whole frames, T' >= T.
        """
        tokens, frames = self.encode_batch(inputs, length)
        return self.decode(tokens, frames, **kwargs)


def check_sample_rate(sample_rate):
    """Raises ValueError unless it is a whole number of Hz, one or more."""
    whole = isinstance(sample_rate, int) and not isinstance(sample_rate, bool)
    if not whole or sample_rate < 1:
        raise ValueError(
            "sample_rate must be a positive whole number of Hz, found "
            f"{sample_rate!r}"
        )
