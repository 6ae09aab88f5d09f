"""BigVGAN: a vocoder of transposed convolutions and anti-aliased snakes.

Source: Lee et al., "BigVGAN: A Universal Neural Vocoder with Large-Scale
Training" (2206.04658). Names of weights are those of NVIDIA's checkpoints,
version 1 and 2, with weight norm folded in.

A snake makes harmonics, which alias; so it works at twice the rate, between
an upsampling and a downsampling low-pass f of 12 taps:

    u[n] = 2 sum_j f[n - 2 j + 5] x[j]        y[i] = sum_n f[n - 2 i + 5] s(u[n])

Neither zeros nor skipped samples are ever computed: even and odd samples of
u are two signals, e[i] = u[2 i] and o[i] = u[2 i + 1], each with its own six
of the taps. The snake acts on both, and y is the sum of two convolutions.
"""

import math

import torch
from torch import nn
from torch.nn import functional as F
from torch.nn.utils.parametrizations import weight_norm

from speechbrain_flowmac.lobes.vocoder import Vocoder

FILTER_TAPS = 12
# samples on each side that an anti-aliased snake sees
ACTIVATION_REACH = 5
END_KERNEL = 7
# magnitude and direction, as torch's two forms of weight norm name them
WEIGHT_NORM_NAMES = (
    ("weight_g", "weight_v"),
    ("parametrizations.weight.original0", "parametrizations.weight.original1"),
)


def half_band_filter():
    """The low-pass at a quarter of the rate: a Kaiser-windowed sinc.

    Returns
    -------
    torch.Tensor
        Shape [1, 1, 12]; symmetric, of sum 1.

    Example
    -------
    >>> half_band_filter().sum()
    tensor(1.)
    """
    # Kaiser's formulas for a transition of 0.6 of the band (0.3 each way)
    attenuation = 2.285 * (FILTER_TAPS / 2 - 1) * math.pi * 4 * 0.3 + 7.95
    window = torch.kaiser_window(
        FILTER_TAPS,
        periodic=False,
        beta=0.1102 * (attenuation - 8.7),
        dtype=torch.float64,
    )
    time = torch.arange(FILTER_TAPS, dtype=torch.float64)
    taps = window * torch.sinc((time - (FILTER_TAPS - 1) / 2) / 2)
    return (taps / taps.sum()).float().view(1, 1, FILTER_TAPS)


class LowPass(nn.Module):
    """Holds `half_band_filter` under the name that it has in checkpoints.

    Arguments
    ---------
    channels : int
        C.

    Example
    -------
    >>> even, odd = LowPass(4)()
    >>> even.shape, odd.shape
    (torch.Size([4, 1, 6]), torch.Size([4, 1, 6]))
    """

    def __init__(self, channels):
        super().__init__()
        self.channels = channels
        self.register_buffer("filter", half_band_filter())

    def forward(self):
        """Taps 0, 2, ... and taps 1, 3, ... for depthwise convolutions."""
        taps = self.filter.expand(self.channels, 1, FILTER_TAPS)
        return taps[..., 0::2], taps[..., 1::2]


class Snake(nn.Module):
    """x + sin(alpha x)^2 / beta, with alpha and beta for each channel.

    Arguments
    ---------
    channels : int
        C.
    separate_beta : bool
        Whether beta is a parameter of its own (SnakeBeta) or equals alpha.
    log_scale : bool
        Whether the parameters are logarithms.

    Example
    -------
    >>> Snake(2)(torch.zeros(1, 2, 3)).shape
    torch.Size([1, 2, 3])
    """

    def __init__(self, channels, separate_beta=True, log_scale=True):
        super().__init__()
        start = torch.full((channels,), 0.0 if log_scale else 1.0)
        self.log_scale = log_scale
        self.alpha = nn.Parameter(start)
        self.beta = nn.Parameter(start.clone()) if separate_beta else None

    def forward(self, x):
        """[B, C, T] to [B, C, T]."""
        alpha = self.alpha.unsqueeze(-1)
        beta = alpha if self.beta is None else self.beta.unsqueeze(-1)
        if self.log_scale:
            alpha, beta = alpha.exp(), beta.exp()
        # in place: on a CPU, new tensors of this size cost as much as sines
        wave = (x * alpha).sin_().square_()
        return torch.addcmul(x, wave, 1 / (beta + 1e-9))


class AntiAliasedSnake(nn.Module):
    """A snake at twice the rate; see the module's docstring.

    Signals go on past their ends with their first and last value: x before
    the upsampling, and its snake before the downsampling.

    Arguments
    ---------
    channels : int
        C.
    separate_beta : bool
        See `Snake`.
    log_scale : bool
        See `Snake`.

    Example
    -------
    >>> AntiAliasedSnake(4)(torch.randn(2, 4, 9)).shape
    torch.Size([2, 4, 9])
    """

    def __init__(self, channels, separate_beta=True, log_scale=True):
        super().__init__()
        self.act = Snake(channels, separate_beta, log_scale)
        self.upsample = LowPass(channels)
        self.downsample = nn.ModuleDict({"lowpass": LowPass(channels)})

    def forward(self, x):
        """[B, C, T] to [B, C, T]."""
        channels = x.shape[1]
        ends = (*x.shape[:2], ACTIVATION_REACH)
        first, last = x[..., :1].expand(ends), x[..., -1:].expand(ends)
        x = torch.cat([first, x, last], dim=-1)
        even, odd = (2 * taps.flip(-1) for taps in self.upsample())
        # all that y needs: e[-2] ... e[T + 2] and o[-3] ... o[T + 1]
        e = F.conv1d(x, odd, groups=channels)
        o = F.conv1d(x, even, groups=channels)
        # u[0] = e[0] and u[2 T - 1] = o[T - 1] go on past the ends
        first, last = e[..., 2:3], o[..., -3:-2]
        e[..., :2], o[..., :3] = first, first
        e[..., -3:], o[..., -2:] = last, last
        even, odd = self.downsample["lowpass"]()
        y = F.conv1d(self.act(e), odd, groups=channels)
        return y.add_(F.conv1d(self.act(o), even, groups=channels))


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
    separate_beta : bool
        See `Snake`.
    log_scale : bool
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
    separate_beta : bool
        See `Snake`: NVIDIA's "snakebeta" if true, else "snake".
    log_scale : bool
        See `Snake`.
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


def add_weight_norm(module):
    """Puts weight norm on every convolution, for training.

    Call it before an optimizer takes the parameters.

    Arguments
    ---------
    module : torch.nn.Module
        Changed in place.

    Returns
    -------
    torch.nn.Module
        The same.

    Example
    -------
    >>> block = add_weight_norm(AMPBlock(4, 3, [1]))
    >>> [name for name in block.state_dict() if name.startswith("convs2.0")]
    ['convs2.0.bias', 'convs2.0.parametrizations.weight.original0', 'convs2.0.parametrizations.weight.original1']
    """
    convolutions = [
        part
        for part in module.modules()
        if isinstance(part, nn.Conv1d | nn.ConvTranspose1d)
    ]
    for convolution in convolutions:
        weight_norm(convolution)
    return module


def fold_weight_norm(state):
    """Weights without weight norm: magnitude x direction / |direction|.

    Arguments
    ---------
    state : dict
        A state dict with weight norm in either of torch's forms
        (`weight_g`, `weight_v`, or `parametrizations`), or without.

    Returns
    -------
    dict
        A state dict with plain `weight`; all else is as it was.

    Example
    -------
    >>> folded = fold_weight_norm(
    ...     add_weight_norm(AMPBlock(4, 3, [1])).state_dict()
    ... )
    >>> folded.keys() == AMPBlock(4, 3, [1]).state_dict().keys()
    True
    """
    folded = dict(state)
    for magnitude_name, direction_name in WEIGHT_NORM_NAMES:
        for name in state:
            stem = name.removesuffix(direction_name)
            if stem == name or stem + magnitude_name not in state:
                continue
            direction = folded.pop(name)
            magnitude = folded.pop(stem + magnitude_name)
            # the magnitude has one value for all of those axes
            axes = [i for i, n in enumerate(magnitude.shape) if n == 1]
            exact = direction.double()
            norm = torch.linalg.vector_norm(exact, dim=axes, keepdim=True)
            weight = magnitude.double() * exact / norm
            folded[stem + "weight"] = weight.to(direction.dtype)
    return folded
