"""A filter with the gains of `MelEnvelope` gives the mel it came from."""

import pytest
import torch

from speechbrain_flowmac.lobes.envelope import MelEnvelope
from speechbrain_flowmac.lobes.features import LogMel, MelSettings
from speechbrain_flowmac.lobes.spectral import FramedSTFT

FRONT_ENDS = [
    MelSettings(),
    MelSettings(n_fft=1024, hop_length=256, win_length=1024, n_mels=100),
    MelSettings(
        sample_rate=16000,
        n_fft=1024,
        hop_length=256,
        win_length=800,
        n_mels=80,
        f_max=7000,
    ),
]


def white_noise(seconds=2, rate=24000):
    return torch.randn(
        1, seconds * rate, generator=torch.Generator().manual_seed(0)
    )


@pytest.mark.parametrize("settings", FRONT_ENDS)
@pytest.mark.parametrize("level", [1e-2, 0.3])
def test_white_noise_has_a_flat_envelope_at_its_level(settings, level):
    mel = LogMel(settings)(level * white_noise(20))
    # the mean of a logarithm is not the logarithm of the mean
    mel = mel.exp().mean(1, keepdim=True).log()
    gain = MelEnvelope(settings, 1024)(mel).exp() / level
    inside = torch.linspace(0, settings.sample_rate / 2, 513)
    inside = (inside > 200) & (inside < settings.f_max - 200)
    assert (gain[..., inside] - 1).abs().max() < 0.08


@pytest.mark.parametrize("settings", FRONT_ENDS[:2])
def test_noise_filtered_by_the_envelope_has_the_mel_again(settings):
    """Coloured noise: what is made of its mel alone differs little from it."""
    hop = settings.hop_length
    stft = FramedSTFT(2 * settings.n_fft, hop)
    spectrum = stft(white_noise()[:, : 90 * hop])
    tilt = torch.linspace(0, -5, stft.num_bins).exp()
    features = LogMel(settings)
    mel = features(0.1 * stft.inverse(spectrum * tilt))
    gains = MelEnvelope(settings, stft.n_fft)(mel.mean(1, keepdim=True)).exp()
    again = features(stft.inverse(spectrum * gains))
    error = (again.mean(1) - mel.mean(1)).abs()[..., 2:-2]
    assert error.mean() < 0.1 and error.max() < 0.35
    # the mel has a spread that a wrong filter would not meet
    assert mel.mean(1).std() > 1


def test_gains_are_those_of_the_bands_at_their_centres():
    settings = FRONT_ENDS[0]
    envelope = MelEnvelope(settings, 4096)
    weights = envelope.interpolation
    assert weights.min() >= 0
    torch.testing.assert_close(weights.sum(0), torch.ones(2049))
    assert ((weights > 0).sum(0) <= 2).all()


def test_nothing_of_it_is_saved():
    assert not MelEnvelope(FRONT_ENDS[0], 1024).state_dict()
