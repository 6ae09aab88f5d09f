"""Filter banks that split a signal into K sub-bands and join it again.

    wav [B, T]  --analysis-->  bands [B, K, T / K]  --synthesis-->  wav [B, T]

Sub-band k holds the frequencies from k to k + 1 times sample_rate / (2 K), at
1 / K of the sample rate. A vocoder makes the sub-bands and uses the synthesis
only (Multi-band MelGAN, arXiv 2005.05106; MB-iSTFT-VITS, 2210.15975).
"""

import math

import torch
from torch import nn
from torch.nn import functional as F

# of the Kaiser window
BETA = 9.0
# Of the cutoff over half a band, at this BETA: found by maximising the SNR of
# analysis and synthesis. It belongs to the window's transition, which is
# inversely proportional to the length, and so it serves any number of bands.
EXCESS = 1.0542


class PQMF(nn.Module):
    """Pseudo quadrature mirror filters: near-perfect reconstruction.

    The filters are cosine-modulated copies of one low-pass prototype p, for
    n = -taps / 2 ... taps / 2 (Nguyen, "Near-perfect-reconstruction pseudo-QMF
    banks", 1994),

        g_k[n] = 2 p[n] cos((2 k + 1) pi n / (2 K) - (-1)^k pi / 4)

    for the synthesis, reversed in time for the analysis, so that the aliases
    of neighbouring bands cancel. The prototype is a Kaiser-windowed sinc (Lin
    and Vaidyanathan, 1998). All are centred on n = 0: analysis and synthesis
    together delay nothing.

    Arguments
    ---------
    num_bands : int
        Sub-bands K.
    taps : int
        Order of the filters, even: they have taps + 1 coefficients.
        16 K - 2 reconstructs at 64 dB SNR, far fewer do not.

    Example
    -------
    >>> bank = PQMF()
    >>> wav = torch.nn.functional.pad(torch.randn(2, 4000), (48, 48))
    >>> bands = bank.analysis(wav)
    >>> bands.shape
    torch.Size([2, 4, 1024])
    >>> error = bank.synthesis(bands) - wav
    >>> snr = 10 * (wav.square().sum() / error.square().sum()).log10()
    >>> bool(snr > 60)
    True
    """

    def __init__(self, num_bands=4, taps=62):
        super().__init__()
        if taps < 2 or taps % 2:
            raise ValueError(f"taps must be even and positive, found {taps}")
        self.num_bands = num_bands
        self.taps = taps
        n = torch.arange(taps + 1, dtype=torch.float64) - taps / 2
        cutoff = 1 / (2 * num_bands) + EXCESS / taps  # 0.142 for four bands
        prototype = cutoff * torch.sinc(cutoff * n)
        prototype *= torch.kaiser_window(
            taps + 1, periodic=False, beta=BETA, dtype=torch.float64
        )
        k = torch.arange(num_bands).unsqueeze(1)
        turn = (2 * k + 1) * math.pi / (2 * num_bands) * n
        filters = 2 * prototype * torch.cos(turn - (-1) ** k * math.pi / 4)
        self.register_buffer(
            "filters", filters.float().unsqueeze(1), persistent=False
        )

    def analysis(self, wav):
        """[B, T], T a multiple of K, to sub-bands [B, K, T / K], float32."""
        if wav.shape[1] % self.num_bands:
            raise ValueError(
                f"the number of samples ({wav.shape[1]}) must be a multiple "
                f"of the number of bands ({self.num_bands})"
            )
        # bfloat16 would add noise at -50 dB
        with torch.autocast(wav.device.type, enabled=False):
            # conv1d correlates, which is what reverses the filters
            return F.conv1d(
                wav.float().unsqueeze(1),
                self.filters.float(),
                stride=self.num_bands,
                padding=self.taps // 2,
            )

    def synthesis(self, bands):
        """Sub-bands [B, K, S] to [B, S * K], float32."""
        return _join(bands, self.filters)


class LearnedSynthesis(nn.Module):
    """Synthesis by learned filters, multi-stream (arXiv 2210.15975).

    Zeros are put between the samples of each stream, then one convolution
    without bias joins the streams: together a transposed convolution. What the
    streams hold is for the training to find; they start as the sub-bands of
    `PQMF`, whose filters are the initial weights.

    Arguments
    ---------
    num_bands : int
        Streams K.
    taps : int
        Order of the filters, even: they have taps + 1 coefficients.

    Example
    -------
    >>> LearnedSynthesis().synthesis(torch.randn(2, 4, 100)).shape
    torch.Size([2, 400])
    """

    def __init__(self, num_bands=4, taps=62):
        super().__init__()
        self.num_bands = num_bands
        self.taps = taps
        self.filters = nn.Parameter(PQMF(num_bands, taps).filters)

    def synthesis(self, bands):
        """Sub-bands [B, K, S] to [B, S * K], float32."""
        return _join(bands, self.filters)


def _join(bands, filters):
    """Raises [B, K, S] to the full rate by filters [K, 1, taps + 1]; sums."""
    num_bands, _, length = filters.shape
    if bands.shape[1] != num_bands:
        raise ValueError(
            f"expected {num_bands} sub-bands, found {bands.shape[1]}"
        )
    with torch.autocast(bands.device.type, enabled=False):
        # the inserted zeros leave 1 / K of the amplitude
        return F.conv_transpose1d(
            num_bands * bands.float(),
            filters.float(),
            stride=num_bands,
            padding=length // 2,
            output_padding=num_bands - 1,
        ).squeeze(1)


class SubBandSTFT(nn.Module):
    """Inverse STFTs of the sub-bands, then their synthesis.

    Looks like one `FramedSTFT` at the full rate whose bins are those of the
    sub-bands, one after the other.

    Arguments
    ---------
    stft : FramedSTFT
        Size and hop at the rate of the sub-bands.
    bank : PQMF or LearnedSynthesis
        Joins the sub-bands.

    Example
    -------
    >>> from speechbrain_flowmac.lobes.spectral import FramedSTFT
    >>> stft = SubBandSTFT(FramedSTFT(64, 16), PQMF())
    >>> stft.hop_length, stft.num_bins
    (64, 132)
    >>> spectrum = torch.randn(2, 5, 132, dtype=torch.complex64)
    >>> stft.inverse(spectrum).shape
    torch.Size([2, 320])
    """

    def __init__(self, stft, bank):
        super().__init__()
        self.stft = stft
        self.bank = bank
        self.hop_length = bank.num_bands * stft.hop_length
        # samples that a frame sounds for
        self.n_fft = bank.num_bands * stft.n_fft + bank.taps
        self.num_bins = bank.num_bands * stft.num_bins

    def inverse(self, spectrum, mask=None):
        """[B, F, num_bins] to [B, F * hop], see `FramedSTFT.inverse`."""
        num_bands = self.bank.num_bands
        frames = spectrum.unflatten(-1, (num_bands, -1)).transpose(1, 2)
        # each sub-band ends with its item, so the filters add nothing to it
        # from beyond
        ends = None if mask is None else mask.repeat_interleave(num_bands, 0)
        bands = self.stft.inverse(frames.flatten(0, 1), ends)
        wav = self.bank.synthesis(bands.unflatten(0, (-1, num_bands)))
        if mask is None:
            return wav
        # but ring on past the end
        return wav * mask.repeat_interleave(self.hop_length, dim=1)
