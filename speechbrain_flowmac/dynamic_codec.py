"""The codec with a dynamic frame rate, in a semantic and an acoustic stream.

Neighbouring frames that a frozen recogniser finds alike are merged, each run
into one frame of tokens that says how long it lasts:

    mel -> recogniser -> features -+-> runs
                                   +-> merged -> finite scalars -> 1st codebook
    mel -> encoder -> latents ------> merged -> the rest -> other codebooks
    tokens -> code vectors -> repeated -> frames -> bottleneck -> MelDecoder

Behind the tokens it is a `FlowMAC`, and whatever takes tokens takes them
either way: as frames of time, or merged, with durations.

Source: FlexiCodec (2510.00981).
"""

import torch
from torch.nn import functional as F

from speechbrain_flowmac.codec import FlowMAC, Reconstruction
from speechbrain_flowmac.lobes.frame_merging import (
    merge_frames,
    unmerge_frames,
)
from speechbrain_flowmac.lobes.lengths import num_frames
from speechbrain_flowmac.lobes.merging import Merging
from speechbrain_flowmac.lobes.semantic_features import resample_frames


class DynamicFlowMAC(FlowMAC):
    """A `FlowMAC` whose tokens last as long as nothing happens.

    Arguments
    ---------
    semantic : torch.nn.Module
        `semantic(wav, mel, mask)` gives features [B, N', D] and their exact
        lengths; `stride` is mel frames per feature, `dim` is D. Frozen.
    aggregator : torch.nn.Module
        `aggregator(frames [B, N, D], runs [B, R]) -> [B, R, H]`, as
        `RunAnalysis`, or `QueryAggregator` with H = D.
    merging : Merging or None
        Defaults of `encode`.
    lowest_rate : float
        Training draws a rate for each batch, from this to that of all frames,
        Hz.
    expander : torch.nn.Module
        `expander(x [B, N, H], tokens [B, N, K], mask [B, N]) -> [B, N, D]`,
        as `RunSynthesis`, or `RunPositions`: tells repeated vectors apart.
    alignment_loss : torch.nn.Module or None
        `RepresentationAlignment` of what the bottleneck makes with the
        features, for training (REPA).
    distillation_weight : float
        Weight of the semantic codes' distance from the features, in training.
    alignment_weight : float
        Weight of `alignment_loss`.
    **parts
        Arguments of `FlowMAC`; the quantizer is a `TwoStreamQuantizer`.

    Example
    -------
    >>> DynamicFlowMAC.token_parts[-2:]
    ('semantic', 'aggregator')
    """

    token_parts = (*FlowMAC.token_parts, "semantic", "aggregator")
    encoder_receptive_field = None
    """A run depends on the whole signal before it, a rate on all of it."""

    def __init__(
        self,
        *,
        semantic,
        aggregator,
        expander,
        merging=None,
        lowest_rate=5.0,
        alignment_loss=None,
        distillation_weight=1.0,
        alignment_weight=1.0,
        **parts,
    ):
        super().__init__(**parts)
        self.semantic = semantic.float()
        self.aggregator = aggregator.float()
        self.merging = Merging() if merging is None else merging
        self.lowest_rate = lowest_rate
        self.expander = expander
        self.alignment_loss = alignment_loss
        self.distillation_weight = distillation_weight
        self.alignment_weight = alignment_weight

    def adopt(self, state):
        """Weights of a codec with a fixed rate as a start, where they fit.

        Where that one projects latents before it quantizes them, this one
        does so before it merges them; it has codebooks of its own.

        Arguments
        ---------
        state : dict
            State dict of a `FlowMAC`, or of a codec like this one.

        Returns
        -------
        dict
            What `load_state_dict` is to take.
        """
        state = super().adopt(state)
        if any(name.startswith("semantic.") for name in state):
            return state
        own = self.state_dict()
        moved = {
            "encoder.": "encoder.encoder.",
            "decoder.": "decoder.decoder.",
            "quantizer.project_in.": "encoder.project.",
            "quantizer.project_out.": "decoder.project.",
        }
        for name, value in state.items():
            for old, new in moved.items():
                if name.startswith(old):
                    name = new + name.removeprefix(old)
                    break
            if not name.startswith("quantizer."):
                own[name] = value
        return own

    def hear(self, wav, mel, mel_mask, token_mask):
        """What the recogniser knows of each frame, [B, N, D]."""
        features, lengths = self.semantic(wav, mel, mel_mask)
        ratio = self.stride / self.semantic.stride
        return resample_frames(features, lengths, ratio, token_mask.shape[1])

    def _merge(self, wav, mel, mel_mask, token_mask, merging):
        """Features of frames, latents of runs, and the lengths of these."""
        features = self.hear(wav, mel, mel_mask, token_mask)
        runs = merging.runs(features, token_mask.sum(1), self.frame_rate)
        latents = self.aggregator(self.encoder(mel, mel_mask), runs)
        return features, latents, runs

    def _drawn_rate(self):
        """A rate for a batch of the training: each octave as often."""
        octaves = self.frame_rate / self.lowest_rate
        return self.lowest_rate * octaves ** torch.rand(()).item()

    @torch.no_grad()
    def start_codebooks(self, batches):
        """Starts untrained codebooks by k-means of what they are to code.

        Arguments
        ---------
        batches : iterable
            Of waveforms [B, T] and exact lengths, int64 [B]; each is merged
            to a rate of its own.
        """
        found = []
        for wav, num_samples in batches:
            merging = self.merging.with_changes(frame_rate=self._drawn_rate())
            features, latents, runs = self._merge(
                wav, *self.analyse(wav, num_samples), merging
            )
            valid = runs > 0
            found.append((merge_frames(features, runs)[valid], latents[valid]))
        features, latents = map(torch.cat, zip(*found, strict=True))
        self.quantizer(features[None], latents[None])

    def reconstruct(self, wav, mel, mel_mask, token_mask):
        """The decoded mel of a batch, as in `FlowMAC`; rates vary."""
        merging = self.merging
        if self.training:
            merging = merging.with_changes(frame_rate=self._drawn_rate())
        features, latents, runs = self._merge(
            wav, mel, mel_mask, token_mask, merging
        )
        merged = merge_frames(features, runs)
        coded = self.quantizer(merged, latents, runs > 0)
        longest = token_mask.shape[1]
        frames, tokens = (
            _padded(unmerge_frames(x, runs), longest)
            for x in (coded.quantized, coded.tokens)
        )
        frames = self.expander(frames, tokens, token_mask)
        hidden = self.decoder.restore(frames, token_mask)
        mu = self.decoder.render(hidden, token_mask)
        alignment = None
        if self.alignment_loss is not None:
            alignment = self.alignment_loss(hidden, features, token_mask)
        return Reconstruction(
            mu[:, : mel.shape[1]].float(),
            tokens,
            coded.loss,
            coded.distillation,
            alignment,
        )

    def decode_mean(self, tokens, mask=None):
        """Tokens of frames of time to mu, as in `FlowMAC`."""
        frames = self.quantizer.decode(tokens)
        frames = self.expander(frames, tokens, mask)
        return self.decoder(frames, mask).float()

    def decoder_receptive_field(self, sampling):
        """As in `FlowMAC`, and as far as a place in a run is counted."""
        reach = super().decoder_receptive_field(sampling)
        return None if reach is None else reach + self.expander.receptive_field

    def forward(self, wav, num_samples, generator):
        """The losses of a batch, as in `FlowMAC`, and those of the teacher."""
        losses = super().forward(wav, num_samples, generator)
        extra = self.distillation_weight * losses.distillation
        if losses.alignment is not None:
            extra = extra + self.alignment_weight * losses.alignment
        return losses._replace(total=losses.total + extra)

    @torch.no_grad()
    def encode_merged(
        self, wav, num_samples=None, num_codebooks=None, merging=None
    ):
        """Waveform to merged tokens and how long they last.

        Arguments
        ---------
        wav, num_samples, num_codebooks
            As for `encode`.
        merging : Merging or None
            None for the defaults of this model.

        Returns
        -------
        tuple of torch.Tensor
            Tokens, int64 [B, R, num_codebooks], and durations in frames,
            int64 [B, R]; both 0 past an item's end.
        """
        merging = self.merging if merging is None else merging
        with torch.autocast(wav.device.type, enabled=False):
            mel, mel_mask, token_mask = self.analyse(wav, num_samples)
            features, latents, runs = self._merge(
                wav, mel, mel_mask, token_mask, merging
            )
            features = merge_frames(features, runs)
            tokens = self.quantizer.encode(features, latents, num_codebooks)
        return tokens.masked_fill((runs == 0).unsqueeze(-1), 0), runs

    def encode(self, wav, num_samples=None, num_codebooks=None, merging=None):
        """Waveform to tokens, one for each frame of time.

        Arguments
        ---------
        wav, num_samples, num_codebooks
            As for `FlowMAC.encode`.
        merging : Merging or None
            None for the defaults of this model.

        Returns
        -------
        tuple of torch.Tensor
            As of `FlowMAC.encode`: merged frames are repeated.
        """
        tokens, runs = self.encode_merged(
            wav, num_samples, num_codebooks, merging
        )
        tokens = unmerge_frames(tokens, runs)
        longest = num_frames(wav.shape[1], self.hop_length)
        return _padded(tokens, longest), runs.sum(1)

    @torch.no_grad()
    def semantic_features(self, wav, num_samples=None):
        """What the recogniser knows, at the frame rate.

        Arguments
        ---------
        wav, num_samples
            As for `encode`.

        Returns
        -------
        tuple of torch.Tensor
            Features [B, N, D], 0 past an item's end, and exact numbers of
            frames, int64 [B].
        """
        with torch.autocast(wav.device.type, enabled=False):
            mel, mel_mask, token_mask = self.analyse(wav, num_samples)
            features = self.hear(wav, mel, mel_mask, token_mask)
        return features * token_mask.unsqueeze(-1), token_mask.sum(1)


def _padded(frames, longest):
    return F.pad(frames, (0, 0, 0, longest - frames.shape[1]))
