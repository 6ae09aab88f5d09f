"""The composed codec: waveform -> tokens -> log-mel.

`FlowMAC` composes lobes that are given to it and builds none. The vocoder
that turns its mels into sound is a separate model, trained on its own, and
joined to it in `speechbrain_flowmac.inference`.

    wav -> LogMel -> normalise -> MelEncoder -> ResidualQuantizer -> tokens
    tokens -> code vectors -> MelDecoder -> mu -> Flow -> log-mel

Source: Pia et al., "FlowMAC: Conditional Flow Matching for Audio Coding at
Low Bit Rates", arXiv 2409.17635.
"""

from typing import NamedTuple

import torch
from torch import Tensor, nn

from speechbrain_flowmac.lobes.flow import FlowLosses
from speechbrain_flowmac.lobes.flow_matching import masked_mean
from speechbrain_flowmac.lobes.lengths import length_mask, num_frames
from speechbrain_flowmac.lobes.noise import seeded_noise
from speechbrain_flowmac.lobes.quantizer import QuantizerOutput
from speechbrain_flowmac.lobes.sampling import Sampling


class CodecLosses(NamedTuple):
    """Terms of the training loss of a batch, and the tokens behind them.

    Arguments
    ---------
    total : torch.Tensor
        The weighted sum.
    flow : torch.Tensor
        L_CFM, or another objective of the flow.
    flow_mse : torch.Tensor
        The flow's mean square error without weights, for logs.
    prior : torch.Tensor
        MSE + MAE of the decoded mel, normalised units.
    commitment : torch.Tensor
        L_VQ.
    tokens : torch.Tensor
        int64, shape [B, N, K]; -1 where a codebook was left out.
    token_mask : torch.Tensor
        Shape [B, N], True where valid.
    distillation : torch.Tensor or None
        How far a semantic stream is from its teacher, where there is one.
    alignment : torch.Tensor or None
        How far the decoder's hidden frames are from it, where that is asked.
    """

    total: Tensor
    flow: Tensor
    flow_mse: Tensor
    prior: Tensor
    commitment: Tensor
    tokens: Tensor
    token_mask: Tensor
    distillation: Tensor | None = None
    alignment: Tensor | None = None


class Reconstruction(NamedTuple):
    """A batch coded and decoded up to the mel, in training.

    Arguments
    ---------
    mu : torch.Tensor
        The decoded mel, normalised, shape [B, N_mel, M].
    tokens : torch.Tensor
        int64, shape [B, N, K]; -1 where a codebook was left out.
    commitment : torch.Tensor
        L_VQ.
    distillation, alignment : torch.Tensor or None
        As in `CodecLosses`.
    """

    mu: Tensor
    tokens: Tensor
    commitment: Tensor
    distillation: Tensor | None = None
    alignment: Tensor | None = None


class FlowMAC(nn.Module):
    """The codec up to the log-mel.

    Arguments
    ---------
    features : LogMel
        Front end.
    normalizer : MelNormalizer
        Global mean and standard deviation.
    encoder : MelEncoder
        Normalised mel to latents.
    quantizer : ResidualQuantizer
        Latents to tokens and back.
    decoder : MelDecoder
        Latents to mu, the decoded mel.
    flow : Flow
        From noise to a mel, given mu.
    flow_weight : float
        Weight of the flow's loss in the training loss; at 0 the flow is
        not evaluated in training.
    prior_weight : float
        Weight of MSE + MAE of the decoded mel.
    commitment_weight : float
        Weight of L_VQ.
    sampling : Sampling or None
        Defaults of `decode`.
    spread : MelSpread or None
        What gives decoded mels their spread back, where `sampling` asks.

    Example
    -------
    >>> from speechbrain_flowmac.lobes import (
    ...     convnext,
    ...     encoder,
    ...     features,
    ...     flow_matching,
    ...     quantizer,
    ...     vector_field,
    ... )
    >>> settings = features.MelSettings()
    >>> codec = FlowMAC(
    ...     features=features.LogMel(settings),
    ...     normalizer=features.MelNormalizer(),
    ...     encoder=encoder.MelEncoder(128, convnext.ConvNeXt(8, 1), 4),
    ...     quantizer=quantizer.ResidualQuantizer(4, kmeans_iterations=0),
    ...     decoder=encoder.MelDecoder(4, convnext.ConvNeXt(8, 1), 128),
    ...     flow=flow_matching.FlowMatching(
    ...         vector_field.ConvNeXtField(
    ...             128, convnext.ConvNeXt(8, 1, condition_dim=8)
    ...         )
    ...     ),
    ... ).eval()
    >>> tokens, lengths = codec.encode(torch.randn(1, 24000))
    >>> tokens.shape, lengths.tolist()
    (torch.Size([1, 47, 8]), [47])
    >>> codec.decode(tokens).shape
    torch.Size([1, 47, 128])
    """

    token_parts = ("features", "normalizer", "encoder", "quantizer")
    """What tokens depend on."""
    merging = None
    """How frames are merged, a `Merging`; None if the rate is fixed."""

    def __init__(
        self,
        features,
        normalizer,
        encoder,
        quantizer,
        decoder,
        flow,
        flow_weight=1.0,
        prior_weight=0.01,
        commitment_weight=0.25,
        sampling=None,
        spread=None,
    ):
        super().__init__()
        self.features = features
        self.normalizer = normalizer
        self.encoder = encoder
        self.quantizer = quantizer
        self.decoder = decoder
        self.flow = flow
        self.flow_weight = flow_weight
        self.prior_weight = prior_weight
        self.commitment_weight = commitment_weight
        self.sampling = Sampling() if sampling is None else sampling
        self.spread = spread
        self.frozen = ()
        # whatever the default dtype is where the model is made
        for part in (normalizer, encoder, quantizer):
            part.float()

    def _apply(self, fn, recurse=True):
        """Moves and casts, but what decides tokens stays in float32.

        So tokens and fingerprint are the same after `half()`, `bfloat16()` or
        `double()`, in which decoder and flow then compute.
        """

        def move(tensor):
            new = fn(tensor)
            return new if new.dtype == tensor.dtype else tensor.to(new.device)

        for name, part in self.named_children():
            part._apply(move if name in self.token_parts else fn)
        return self

    def token_state(self):
        """Tensors by name that define which tokens a signal has.

        What comes after the tokens, decoder and flow, is not among them.
        """
        state = {
            f"{part}.{name}": tensor
            for part in self.token_parts
            if part != "quantizer"
            for name, tensor in getattr(self, part).state_dict().items()
        }
        for name, tensor in self.quantizer.token_state().items():
            state[f"quantizer.{name}"] = tensor
        return state

    def freeze(self, names):
        """Training leaves these parts, and so what they say, as they are.

        A frozen quantizer still leaves out codebooks at random: what is
        trained behind it hears every number of them.

        Arguments
        ---------
        names : list of str
            Any of encoder, quantizer, decoder and flow, or a part of one, as
            decoder.trunk.
        """
        known = ("encoder", "quantizer", "decoder", "flow")
        parts = dict(self.named_modules())
        unknown = [
            name
            for name in names
            if name.partition(".")[0] not in known or name not in parts
        ]
        if unknown:
            raise ValueError(
                f"no such parts to freeze: {', '.join(unknown)}; expected "
                f"some of {', '.join(known)}"
            )
        self.frozen = tuple(names)
        for name in names:
            parts[name].requires_grad_(False)
        self.quantizer.frozen = "quantizer" in names
        self.train(self.training)

    def adopt(self, state):
        """Weights of a codec that has another flow; see `Flow.adopt`.

        Arguments
        ---------
        state : dict
            Its state dict.

        Returns
        -------
        dict
            What `load_state_dict` is to take.
        """
        prefix = "flow."
        flow, rest = {}, {}
        for name, value in state.items():
            if name.startswith(prefix):
                flow[name.removeprefix(prefix)] = value
            else:
                rest[name] = value
        flow = self.flow.adopt(flow)
        return rest | {prefix + name: value for name, value in flow.items()}

    def train(self, mode=True):
        """The mode of what is not frozen."""
        super().train(mode)
        for name in self.frozen:
            if name != "quantizer":
                self.get_submodule(name).eval()
        return self

    @property
    def mel_settings(self):
        """Front end of the mels that `decode` returns."""
        return self.features.settings

    @property
    def stride(self):
        """Mel frames per token frame."""
        return self.encoder.stride

    @property
    def hop_length(self):
        """Samples per token frame."""
        return self.mel_settings.hop_length * self.stride

    @property
    def frame_rate(self):
        """Token frames per second."""
        return self.mel_settings.sample_rate / self.hop_length

    @property
    def encoder_receptive_field(self):
        """Token frames on each side that a token depends on, or None."""
        reach = self.encoder.receptive_field
        if reach is None:
            return None
        return reach - (-self.mel_settings.frame_length // self.hop_length)

    @property
    def alignment(self):
        """Token frames that a part of a signal must start at a multiple of.

        A field that works at several frame rates pairs frames from the start.
        """
        return num_frames(self.flow.alignment, self.stride)

    def decoder_receptive_field(self, sampling):
        """Token frames on each side that a decoded frame depends on, or None.

        Arguments
        ---------
        sampling : Sampling
            More evaluations of the field reach further.

        Returns
        -------
        int or None
        """
        reach = self.decoder.receptive_field
        flow_reach = self.flow.receptive_field(sampling)
        if reach is None or flow_reach is None:
            return None
        return reach + num_frames(flow_reach, self.stride)

    def analyse(self, wav, num_samples=None):
        """Normalised mel, its mask and the mask of token frames.

        Arguments
        ---------
        wav : torch.Tensor
            Shape [B, T].
        num_samples : torch.Tensor or None
            Exact lengths, int64 [B]; None if all are T.

        Returns
        -------
        tuple
            Mel [B, N_mel, M], mel mask [B, N_mel], token mask [B, N].
        """
        if num_samples is None:
            num_samples = torch.full(
                (len(wav),), wav.shape[1], device=wav.device
            )
        mel = self.normalizer(self.features(wav, num_samples))
        frames = num_frames(num_samples, self.mel_settings.hop_length)
        tokens = num_frames(num_samples, self.hop_length)
        mel_mask = length_mask(frames, mel.shape[1])
        longest = num_frames(wav.shape[1], self.hop_length)
        return mel, mel_mask, length_mask(tokens, longest)

    def reconstruct(self, wav, mel, mel_mask, token_mask):
        """The decoded mel of a batch, in training.

        Arguments
        ---------
        wav : torch.Tensor
            Shape [B, T]: for codecs that hear more than the mel.
        mel : torch.Tensor
            Normalised, shape [B, N_mel, M].
        mel_mask : torch.Tensor
            Shape [B, N_mel], True where valid.
        token_mask : torch.Tensor
            Shape [B, N], True where valid.

        Returns
        -------
        Reconstruction
        """
        latents = self.encoder(mel, mel_mask)
        coded = QuantizerOutput(*self.quantizer(latents, token_mask))
        mu = self.decoder(coded.quantized, token_mask)
        mu = mu[:, : mel.shape[1]].float()
        return Reconstruction(mu, coded.tokens, coded.loss)

    def decode_mean(self, tokens, mask=None):
        """Tokens [B, N, k] to mu, float32 [B, N * stride, M]."""
        return self.decoder(self.quantizer.decode(tokens), mask).float()

    def forward(self, wav, num_samples, generator):
        """The losses of a batch: paper, equation 3.

        Arguments
        ---------
        wav : torch.Tensor
            Shape [B, T], zeros past an item's end.
        num_samples : torch.Tensor
            Exact lengths, int64 [B].
        generator : torch.Generator
            Source of noise and times; one per rank.

        Returns
        -------
        CodecLosses
        """
        mel, mel_mask, token_mask = self.analyse(wav, num_samples)
        made = self.reconstruct(wav, mel, mel_mask, token_mask)
        error = made.mu - mel
        prior = masked_mean(error.square() + error.abs(), mel_mask)
        flow = FlowLosses(mel.new_zeros(()), mel.new_zeros(()))
        if self.flow_weight:
            flow = self.flow(mel, made.mu, mel_mask, generator)
        total = (
            self.flow_weight * flow.total
            + self.prior_weight * prior
            + self.commitment_weight * made.commitment
        )
        return CodecLosses(
            total,
            *flow,
            prior,
            made.commitment,
            made.tokens,
            token_mask,
            made.distillation,
            made.alignment,
        )

    @torch.no_grad()
    def encode(self, wav, num_samples=None, num_codebooks=None):
        """Waveform to tokens.

        Arguments
        ---------
        wav : torch.Tensor
            Shape [B, T], zeros past an item's end.
        num_samples : torch.Tensor or None
            Exact lengths, int64 [B]; None if all are T.
        num_codebooks : int or None
            Keep the first so many; None for all.

        Returns
        -------
        tuple of torch.Tensor
            Tokens, int64 [B, N, num_codebooks], 0 past an item's end, and
            exact numbers of frames, int64 [B].
        """
        # rounding by a caller's autocast would choose other tokens
        with torch.autocast(wav.device.type, enabled=False):
            mel, mel_mask, token_mask = self.analyse(wav, num_samples)
            latents = self.encoder(mel, mel_mask)
            tokens = self.quantizer.encode(latents, num_codebooks)
        tokens = tokens.masked_fill(~token_mask.unsqueeze(-1), 0)
        return tokens, token_mask.sum(1)

    @torch.no_grad()
    def decode(self, tokens, lengths=None, sampling=None, seed=0, start=0):
        """Tokens to log-mel.

        Arguments
        ---------
        tokens : torch.Tensor
            int64, shape [B, N, k], any k up to K.
        lengths : torch.Tensor or None
            Exact numbers of frames, int64 [B]; None if all are N.
        sampling : Sampling or None
            None for the defaults of this model.
        seed : int
            The noise is the same for every item.
        start : int
            Absolute index of the first token frame, where the tokens are a
            part of a longer signal.

        Returns
        -------
        torch.Tensor
            Log-mel, float32 [B, N * stride, M]; frames past an item's end mean
            nothing.
        """
        sampling = self.sampling if sampling is None else sampling
        stride = self.stride
        mask = mel_mask = None
        if lengths is not None:
            mask = length_mask(lengths, tokens.shape[1])
            mel_mask = mask.repeat_interleave(stride, dim=1)
        mel = mu = self.decode_mean(tokens, mask)
        if self.flow.evaluations(sampling) != 0:
            noise = seeded_noise(seed, 0, start * stride, *mu.shape[1:])
            noise = noise.to(mu).expand_as(mu)
            mel = self.flow.sample(noise, mu, mel_mask, sampling).float()
        mel = self.normalizer.denormalize(mel)
        if not sampling.spread:
            return mel
        if self.spread is None:
            raise ValueError(
                "spread needs a model that knows what its mels lose (see "
                "mel_spread.py of the codec's recipe); this one does not: use "
                "spread=0"
            )
        return self.spread(mel, tokens.shape[2], sampling.spread)
