"""BigVGAN: a vocoder of transposed convolutions and anti-aliased snakes.

Source: Lee et al., "BigVGAN: A Universal Neural Vocoder with Large-Scale
Training" (2206.04658). Names of weights are those of NVIDIA's checkpoints,
version 1 and 2, with weight norm folded in.
"""

import math

import torch
from torch import nn

# all of these can be imported from here too, where they once were
from speechbrain_flowmac.lobes.snake import (  # noqa: F401
    ACTIVATION_REACH,
    AntiAliasedSnake,
    LowPass,
    Snake,
    half_band_filter,
)
from speechbrain_flowmac.lobes.vocoder import Vocoder
from speechbrain_flowmac.lobes.weight_norm import (  # noqa: F401
    add_weight_norm,
    fold_weight_norm,
)

END_KERNEL = 7


class AMPBlock(nn.Module):
    """Anti-aliased multi-periodicity: residual layers of two convolutions.

    Arguments
    ---------
    channels : int
        C.
    kernel_size : int
        Odd, of all convolutions.
    dilations : list of int
        Of the first convolution of each layer.
    separate_beta, log_scale
        See `Snake`.

    Example
    -------
    >>> block = AMPBlock(4, 3, [1, 3])
    >>> block(torch.randn(2, 4, 9)).shape, block.receptive_field
    (torch.Size([2, 4, 9]), 26)
    """

    def __init__(
        self,
        channels,
        kernel_size,
        dilations,
        separate_beta=True,
        log_scale=True,
    ):
        super().__init__()

        def convolution(dilation):
            return nn.Conv1d(
                channels,
                channels,
                kernel_size,
                dilation=dilation,
                padding=dilation * (kernel_size // 2),
            )

        self.convs1 = nn.ModuleList(convolution(d) for d in dilations)
        self.convs2 = nn.ModuleList(convolution(1) for _ in dilations)
        self.activations = nn.ModuleList(
            AntiAliasedSnake(channels, separate_beta, log_scale)
            for _ in range(2 * len(dilations))
        )
        # samples on each side
        self.receptive_field = sum(
            2 * ACTIVATION_REACH + (d + 1) * (kernel_size // 2)
            for d in dilations
        )

    def forward(self, x):
        """[B, C, T] to [B, C, T]."""
        activations = iter(self.activations)
        for conv1, conv2 in zip(self.convs1, self.convs2, strict=True):
            y = conv1(next(activations)(x))
            x = x + conv2(next(activations)(y))
        return x


class BigVGAN(Vocoder):
    """Log-mel to waveform.

    Each stage is a transposed convolution, which halves the channels, and
    the mean of AMP blocks of different kernel sizes. There is no weight
    norm, which inference has no use for; see `add_weight_norm`.

    Arguments
    ---------
    mel_settings : MelSettings
        The front end that this vocoder is for.
    channels : int
        Before the first stage (NVIDIA's `upsample_initial_channel`).
    upsample_rates : list of int
        Of each stage; their product is the mel's hop.
    upsample_kernel_sizes : list of int
        Of each stage; each exceeds its rate by an even number or 0.
    kernel_sizes : list of int
        Odd, of the AMP blocks of every stage.
    dilations : list of list of int
        For each kernel size, see `AMPBlock`.
    separate_beta, log_scale
        See `Snake`; with a beta it is NVIDIA's "snakebeta", else "snake".
    final_tanh : bool
        Whether a tanh bounds the samples (version 1); else they are clamped.
    final_bias : bool
        Whether the last convolution has a bias (version 1).

    Example
    -------
    >>> from speechbrain_flowmac.lobes.features import MelSettings
    >>> vocoder = BigVGAN(MelSettings(), channels=64)
    >>> vocoder(torch.randn(2, 3, 128)).shape
    torch.Size([2, 1536])
    >>> vocoder.receptive_field
    21
    """

    def __init__(
        self,
        mel_settings,
        channels=512,
        upsample_rates=(8, 4, 2, 2, 2, 2),
        upsample_kernel_sizes=(16, 8, 4, 4, 4, 4),
        kernel_sizes=(3, 7, 11),
        dilations=((1, 3, 5), (1, 3, 5), (1, 3, 5)),
        separate_beta=True,
        log_scale=True,
        final_tanh=False,
        final_bias=False,
    ):
        super().__init__(mel_settings)
        _check(
            mel_settings.hop_length,
            channels,
            upsample_rates,
            upsample_kernel_sizes,
            kernel_sizes,
            dilations,
        )
        self.final_tanh = final_tanh
        self.conv_pre = _same_conv(mel_settings.n_mels, channels)
        self.ups = nn.ModuleList()
        self.resblocks = nn.ModuleList()
        for rate, kernel in zip(
            upsample_rates, upsample_kernel_sizes, strict=True
        ):
            up = nn.ConvTranspose1d(
                channels,
                channels // 2,
                kernel,
                stride=rate,
                padding=(kernel - rate) // 2,
            )
            channels //= 2
            # a list of one, for the names in checkpoints
            self.ups.append(nn.ModuleList([up]))
            self.resblocks.extend(
                AMPBlock(channels, size, steps, separate_beta, log_scale)
                for size, steps in zip(kernel_sizes, dilations, strict=True)
            )
        self.activation_post = AntiAliasedSnake(
            channels, separate_beta, log_scale
        )
        self.conv_post = _same_conv(channels, 1, bias=final_bias)
        self.blocks_per_stage = len(kernel_sizes)
        self.receptive_field = _receptive_field(
            mel_settings.hop_length,
            upsample_rates,
            upsample_kernel_sizes,
            max(block.receptive_field for block in self.resblocks),
        )

    def synthesise(self, mel, mask, state):
        """All samples, see `Vocoder.synthesise`; there is no phase or noise."""
        if mask is None or bool(mask.all()):
            return self._synthesise(mel)
        return self._synthesise_by_length(mel, mask.sum(1))

    def _synthesise(self, mel):
        x = self.conv_pre(mel.mT.to(self.conv_pre.weight.dtype))
        count = self.blocks_per_stage
        for stage, (up,) in enumerate(self.ups):
            x = up(x)
            first, *others = self.resblocks[stage * count :][:count]
            total = first(x)
            for block in others:
                total = total + block(x)
            x = total / count
        x = self.conv_post(self.activation_post(x)).squeeze(1).float()
        return x.tanh() if self.final_tanh else x.clamp(-1, 1)

    def _synthesise_by_length(self, mel, lengths):
        """Items of one length at a time.

        An item goes on past its end with the last value of every layer,
        which no mask of a batch can do.
        """
        hop = self.mel_settings.hop_length
        wav = torch.zeros(
            len(mel), mel.shape[1] * hop, dtype=torch.float32, device=mel.device
        )
        for length in lengths[lengths > 0].unique().tolist():
            items = lengths == length
            wav[items, : length * hop] = self._synthesise(mel[items, :length])
        return wav


def _same_conv(inputs, outputs, bias=True):
    return nn.Conv1d(
        inputs, outputs, END_KERNEL, padding=END_KERNEL // 2, bias=bias
    )


def _check(hop, channels, rates, up_kernel_sizes, kernel_sizes, dilations):
    """Refuses sizes that do not fit together."""
    if math.prod(rates) != hop:
        raise ValueError(
            f"the product of upsample_rates {list(rates)} must be the mel's "
            f"hop ({hop}), found {math.prod(rates)}"
        )
    if len(up_kernel_sizes) != len(rates) or any(
        kernel < rate or (kernel - rate) % 2
        for kernel, rate in zip(up_kernel_sizes, rates, strict=True)
    ):
        raise ValueError(
            "each of upsample_kernel_sizes must exceed its rate by an even "
            f"number or 0, found {list(up_kernel_sizes)} for {list(rates)}"
        )
    if channels < 1 or channels % 2 ** len(rates):
        raise ValueError(
            f"channels must be a multiple of {2 ** len(rates)}, as each of "
            f"{len(rates)} stages halves them, found {channels}"
        )
    if len(kernel_sizes) != len(dilations) or any(
        size % 2 == 0 for size in kernel_sizes
    ):
        raise ValueError(
            "kernel_sizes must be odd and have their dilations each, found "
            f"{list(kernel_sizes)} and {list(dilations)}"
        )


def _receptive_field(hop, rates, kernels, block_reach):
    """Mel frames on each side that the samples of one frame depend on.

    From the samples of frame 0 back to the mel: first and last position that
    they need at the input of each layer.
    """
    reach = END_KERNEL // 2 + ACTIVATION_REACH
    low, high = -reach, hop - 1 + reach
    stages = list(zip(rates, kernels, strict=True))
    for rate, kernel in reversed(stages):
        low, high = low - block_reach, high + block_reach
        # input i adds to outputs i * rate - padding + (0 ... kernel - 1)
        padding = (kernel - rate) // 2
        low = -((kernel - 1 - padding - low) // rate)
        high = (high + padding) // rate
    return max(-low, high) + END_KERNEL // 2
