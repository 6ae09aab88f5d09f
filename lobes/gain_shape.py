"""MDCT frames as gains and shapes: features of a codec without vocoder.

The coefficients X[n, k] of speech span 80 dB, and their signs turn with
phase. With gains G[n, b] of bands, interpolated to bins,

    E[n, k] = exp(sum_b W[k, b] G[n, b]),     Z[n, k] = X[n, k] / E[n, k]

frames become gains, which are smooth and can be coded, and shapes of about
unit size, which carry signs and must be sampled where bits do not reach. Noise
for a shape is noise for X in proportion to its magnitude, as in CFMDCTCodec
(2605.26812). The split is that of CELT (RFC 6716), but any gains give the
same X back.

Gains are logarithms of a pseudo-spectrum's magnitude (Daudet and Sandler,
"MDCT analysis of sinusoids", 2004), which turns less with phase:

    G[n, b] = 1/2 log(sum_k F[b, k] (X[k]^2 + (X[k + 1] - X[k - 1])^2) + floor)
"""

from dataclasses import dataclass

import torch
from torch import nn

from speechbrain_flowmac.lobes.block_mdct import BlockMDCT
from speechbrain_flowmac.lobes.features import hz_to_mel, mel_to_hz
from speechbrain_flowmac.lobes.front_end import FrontEnd, FrontEndSettings
from speechbrain_flowmac.lobes.vocoder import Vocoder

POWER_FLOOR = 1e-10
MIN_DEVIATION = 1e-3


@dataclass(frozen=True)
class MDCTSettings(FrontEndSettings):
    """What defines an MDCT front end; it travels with the weights.

    Arguments
    ---------
    sample_rate : int
        In Hz.
    hop_length : int
        N, samples per frame and coefficients of a frame, even.
    n_bands : int
        Gains of a frame.

    Example
    -------
    >>> settings = MDCTSettings()
    >>> settings.frame_rate, settings.width
    (46.875, 640)
    """

    kind = "MDCT"

    sample_rate: int = 24000
    hop_length: int = 512
    n_bands: int = 128

    @property
    def frame_length(self):
        """Samples that a frame depends on."""
        return 2 * self.hop_length

    @property
    def width(self):
        """Features of a frame: gains, then shapes."""
        return self.n_bands + self.hop_length


def band_weights(settings):
    """Weights W of the gains in each bin, a partition of unity.

    Linear interpolation between centres that are even on Slaney's mel scale.

    Arguments
    ---------
    settings : MDCTSettings
        Front end.

    Returns
    -------
    torch.Tensor
        float32 [N, n_bands]; rows sum to 1.

    Example
    -------
    >>> weights = band_weights(MDCTSettings())
    >>> weights.shape, bool((weights.sum(1) - 1).abs().max() < 1e-6)
    (torch.Size([512, 128]), True)
    """
    bins = torch.arange(settings.hop_length, dtype=torch.float64)
    hz = (bins + 0.5) * settings.sample_rate / (2 * settings.hop_length)
    low, high = hz_to_mel(hz[[0, -1]]).tolist()
    centres = mel_to_hz(
        torch.linspace(low, high, settings.n_bands, dtype=torch.float64)
    )
    above = torch.searchsorted(centres, hz).clamp(1, settings.n_bands - 1)
    share = (hz - centres[above - 1]) / centres.diff()[above - 1]
    share = share.clamp(0, 1)
    weights = torch.zeros(len(bins), settings.n_bands, dtype=torch.float64)
    weights[torch.arange(len(bins)), above] = share
    weights[torch.arange(len(bins)), above - 1] = 1 - share
    if not (weights.sum(0) > 0).all():
        raise ValueError(
            f"{settings.n_bands} bands are too many for "
            f"{settings.hop_length} coefficients: some would have none"
        )
    return weights.float()


def pseudo_power(coefficients):
    """Power of the pseudo-spectrum.

    Beyond both ends the MDCT goes on by its own symmetries: X[-1] = X[0],
    X[N] = -X[N - 1].

    Arguments
    ---------
    coefficients : torch.Tensor
        Shape [B, F, N].

    Returns
    -------
    torch.Tensor
        Shape [B, F, N].

    Example
    -------
    >>> pseudo_power(torch.tensor([[[1.0, 3.0, 2.0]]]))
    tensor([[[ 5., 10., 29.]]])
    """
    below = torch.cat([coefficients[..., :1], coefficients[..., :-1]], -1)
    above = torch.cat([coefficients[..., 1:], -coefficients[..., -1:]], -1)
    return coefficients.square() + (above - below).square()


class GainShapeMDCT(FrontEnd):
    """Signals to gains and shapes.

    Arguments
    ---------
    settings : MDCTSettings
        Bands and hop.

    Example
    -------
    >>> features = GainShapeMDCT(MDCTSettings())
    >>> features(torch.randn(2, 24000)).shape
    torch.Size([2, 47, 640])
    """

    def __init__(self, settings):
        super().__init__(settings)
        self.mdct = BlockMDCT(settings.hop_length)
        weights = band_weights(settings)
        filters = weights.T / weights.sum(0)[:, None]
        self.register_buffer("weights", weights, persistent=False)
        self.register_buffer("filters", filters, persistent=False)

    def forward(self, wav, num_samples=None):
        """Gains, then shapes, in float32.

        Arguments
        ---------
        wav : torch.Tensor
            Signals, shape [B, T], in [-1, 1]; past an item's end, zeros.
        num_samples : torch.Tensor or None
            Exact lengths, int64 [B]; None if all are T.

        Returns
        -------
        torch.Tensor
            Shape [B, N, M] with N = ceil(T / hop). Frames past
            ceil(num_samples / hop) mean nothing.
        """
        if wav.ndim != 2 or wav.shape[1] == 0:
            raise ValueError(
                f"expected signals of shape [B, T], found {list(wav.shape)}"
            )
        with torch.autocast(wav.device.type, enabled=False):
            wav = wav.to(self.filters.dtype)
            coefficients = self.mdct.to_tokens(wav, num_samples)
            power = pseudo_power(coefficients) @ self.filters.T
            gains = 0.5 * (power + POWER_FLOOR).log()
            shapes = coefficients * torch.exp(-gains @ self.weights.T)
            return torch.cat([gains, shapes], dim=-1)


class InverseGainShapeMDCT(Vocoder):
    """Gains and shapes to samples: a vocoder with nothing to learn.

    Arguments
    ---------
    mel_settings : MDCTSettings
        Of the front end that it inverts.

    Example
    -------
    >>> settings = MDCTSettings()
    >>> wav = torch.randn(1, 10 * 512)
    >>> features = GainShapeMDCT(settings)(wav)
    >>> again = InverseGainShapeMDCT(settings)(features)
    >>> bool((again - wav).abs().max() < 1e-4)
    True
    """

    receptive_field = 1

    def __init__(self, mel_settings):
        super().__init__(mel_settings)
        self.mdct = BlockMDCT(mel_settings.hop_length)
        weights = band_weights(mel_settings)
        self.register_buffer("weights", weights, persistent=False)

    def synthesise(self, mel, mask, state):
        """Samples of all frames, [B, N * hop]; nothing is drawn."""
        with torch.autocast(mel.device.type, enabled=False):
            gains = mel[..., : self.mel_settings.n_bands].float()
            shapes = mel[..., self.mel_settings.n_bands :].float()
            coefficients = shapes * torch.exp(gains @ self.weights.T.float())
            count = None if mask is None else mask.sum(1)
            return self.mdct.from_tokens(coefficients, num_tokens=count)


class GainShapeNormalizer(nn.Module):
    """Mean and deviation of each feature, saved with the model.

    Shapes get the deviation 1, gains `gain_deviation`: a decoder predicts most
    of a gain and little of a shape, so that what both leave to the flow is
    then of about the size of its noise.

    Arguments
    ---------
    settings : MDCTSettings
        Of the front end.
    gain_deviation : float
        Of normalised gains, above 0.

    Example
    -------
    >>> normalizer = GainShapeNormalizer(MDCTSettings(), gain_deviation=4.0)
    >>> features = torch.randn(1, 3, 640)
    >>> again = normalizer.denormalize(normalizer(features))
    >>> bool((again - features).abs().max() < 1e-5)
    True
    """

    per_band = True
    """Whether the statistics are of each band."""

    def __init__(self, settings, gain_deviation=4.0):
        super().__init__()
        wanted = torch.ones(settings.width)
        wanted[: settings.n_bands] = gain_deviation
        self.register_buffer("wanted", wanted, persistent=False)
        self.register_buffer("mean", torch.zeros(settings.width))
        self.register_buffer("scale", 1 / wanted)

    def set_statistics(self, mean, std):
        """Replaces the statistics, lists of M finite numbers."""
        mean, std = (
            torch.as_tensor(v, dtype=torch.float32) for v in (mean, std)
        )
        for values in (mean, std):
            if values.shape != self.mean.shape or not values.isfinite().all():
                raise ValueError(
                    f"need {len(self.mean)} finite means and deviations, found "
                    f"{list(values.shape)}, finite: "
                    f"{bool(values.isfinite().all())}"
                )
        # a band that holds nothing in a corpus must not blow up in another
        std = std.clamp(min=MIN_DEVIATION).to(self.mean.device)
        self.mean.copy_(mean)
        self.scale.copy_(std / self.wanted)

    def forward(self, features):
        """Features [B, N, M] to unit scale."""
        return (features - self.mean) / self.scale

    def denormalize(self, features):
        """Inverse of `forward`."""
        return features * self.scale + self.mean
