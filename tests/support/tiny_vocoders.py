"""One small vocoder of each kind, whose random weights let signals through."""

import torch

from speechbrain_flowmac.lobes.bigvgan import BigVGAN
from speechbrain_flowmac.lobes.convnext import ConvNeXt
from speechbrain_flowmac.lobes.envelope import MelEnvelope
from speechbrain_flowmac.lobes.features import MelSettings
from speechbrain_flowmac.lobes.gain_shape import (
    InverseGainShapeMDCT,
    MDCTSettings,
)
from speechbrain_flowmac.lobes.istft_vocoder import (
    FreePhaseHead,
    HarmonicNoiseHead,
    ISTFTVocoder,
    MultiBandHead,
)
from speechbrain_flowmac.lobes.pitch import PitchPredictor
from speechbrain_flowmac.lobes.pqmf import PQMF, LearnedSynthesis
from speechbrain_flowmac.lobes.spectral import FramedSTFT

HOP, BANDS, RATE = 32, 10, 8000
SETTINGS = MelSettings(
    sample_rate=RATE, n_fft=128, hop_length=HOP, win_length=128, n_mels=BANDS
)


def noise(seed, *shape):
    """Seeded white noise."""
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def awake(module, seed=0):
    """Random weights of a size that lets signals through."""
    generator = torch.Generator().manual_seed(seed)
    for name, parameter in module.named_parameters():
        if parameter.ndim > 1:
            parameter.data.normal_(
                0, parameter[0].numel() ** -0.5, generator=generator
            )
        elif name.endswith("scale"):
            parameter.data.fill_(0.5)
        elif name.endswith(("alpha", "beta")):
            parameter.data.normal_(0, 0.3, generator=generator)
    return module.eval()


def free_phase(upsample=2, overlap=4):
    """Free phase."""
    hop = HOP // upsample
    head = FreePhaseHead(12, FramedSTFT(overlap * hop, hop))
    return awake(ISTFTVocoder(SETTINGS, ConvNeXt(12, 2), head))


def harmonic(upsample=2, overlap=4, free=False, start=False):
    """Harmonics and noise."""
    hop = HOP // upsample
    pitch = PitchPredictor(
        BANDS, ConvNeXt(12, 1), upsample, f_min=60.0, bins_per_octave=12
    )
    stft = FramedSTFT(overlap * hop, hop)
    envelope = MelEnvelope(SETTINGS, stft.n_fft) if start else None
    head = HarmonicNoiseHead(12, stft, pitch, RATE, free, envelope)
    return awake(ISTFTVocoder(SETTINGS, ConvNeXt(12, 2), head))


def harmonic_and_free(upsample=2, overlap=4):
    """Harmonics, noise and free phase."""
    return harmonic(upsample, overlap, free=True)


def harmonic_from_envelope(upsample=2, overlap=4):
    """Harmonics and noise that start from the mel's envelope."""
    return harmonic(upsample, overlap, start=True)


def multi_band(upsample=2, overlap=4, synthesis=PQMF):
    """Free phase in sub-bands."""
    hop = HOP // upsample // 2
    stft = FramedSTFT(overlap * hop, hop)
    head = MultiBandHead(12, stft, synthesis(num_bands=2, taps=30))
    return awake(ISTFTVocoder(SETTINGS, ConvNeXt(12, 2), head))


def multi_stream(upsample=2, overlap=4):
    """Free phase in streams that learned filters join."""
    return multi_band(upsample, overlap, LearnedSynthesis)


def bigvgan(**options):
    """BigVGAN."""
    options = {
        "channels": 8,
        "upsample_rates": [8, 4],
        "upsample_kernel_sizes": [16, 8],
        "kernel_sizes": [3, 5],
        "dilations": [[1, 3], [2]],
        **options,
    }
    vocoder = awake(BigVGAN(SETTINGS, **options))
    vocoder.conv_post.weight.data *= 0.1
    return vocoder


def inverse_mdct():
    """No network at all."""
    return InverseGainShapeMDCT(MDCTSettings(RATE, HOP, n_bands=8)).eval()


HEADS = {
    "free-phase": free_phase,
    "multi-band": multi_band,
    "multi-stream": multi_stream,
    "harmonic": harmonic,
    "harmonic and free phase": harmonic_and_free,
    "harmonic from the envelope": harmonic_from_envelope,
}
VOCODERS = {**HEADS, "bigvgan": bigvgan, "inverse MDCT": inverse_mdct}
