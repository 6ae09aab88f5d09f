"""A model that moves to other mels goes on where the old one stood."""

import pytest
import torch

from speechbrain_flowmac.codec import FlowMAC
from speechbrain_flowmac.lobes.convnext import ConvNeXt
from speechbrain_flowmac.lobes.encoder import MelDecoder, MelEncoder
from speechbrain_flowmac.lobes.envelope import MelEnvelope
from speechbrain_flowmac.lobes.features import (
    LogMel,
    MelNormalizer,
    MelSettings,
)
from speechbrain_flowmac.lobes.flow_matching import FlowMatching
from speechbrain_flowmac.lobes.istft_vocoder import (
    HarmonicNoiseHead,
    ISTFTVocoder,
)
from speechbrain_flowmac.lobes.pitch import PitchPredictor
from speechbrain_flowmac.lobes.quantizer import ResidualQuantizer
from speechbrain_flowmac.lobes.spectral import FramedSTFT
from speechbrain_flowmac.lobes.vector_field import ConvNeXtField
from speechbrain_flowmac.training.front_end import (
    LinearFit,
    copy_matching,
    move_codec,
    move_vocoder,
)

COARSE = MelSettings(n_fft=2048, hop_length=512, n_mels=20)
FINE = MelSettings(n_fft=1024, hop_length=256, win_length=1024, n_mels=16)


def sounds(count=4, seed=0):
    """Noise of changing level and colour, so that mels differ."""
    generator = torch.Generator().manual_seed(seed)
    for _ in range(count):
        noise = torch.randn(4, 16 * 512, generator=generator)
        level = torch.rand(4, 16, generator=generator).mul(3).exp() * 1e-3
        yield noise.cumsum(1) * 0.05 * level.repeat_interleave(512, 1)


def codec(settings, stride, seed):
    torch.manual_seed(seed)
    n_mels = settings.n_mels
    field = ConvNeXtField(n_mels, ConvNeXt(8, 1, condition_dim=8))
    return FlowMAC(
        features=LogMel(settings),
        normalizer=MelNormalizer(-6.0, 2.0),
        encoder=MelEncoder(n_mels, ConvNeXt(12, 1), 8, stride),
        quantizer=ResidualQuantizer(8, kmeans_iterations=0),
        decoder=MelDecoder(8, ConvNeXt(12, 1), n_mels, stride),
        flow=FlowMatching(field),
    ).eval()


def vocoder(settings, upsample, seed, envelope=None):
    torch.manual_seed(seed)
    pitch = PitchPredictor(settings.n_mels, ConvNeXt(8, 1), upsample)
    head = HarmonicNoiseHead(
        12, FramedSTFT(1024, 256), pitch, 24000, envelope=envelope
    )
    return ISTFTVocoder(settings, ConvNeXt(12, 1), head).eval()


def test_a_linear_fit_is_exact_where_there_is_a_linear_map():
    generator = torch.Generator().manual_seed(0)
    weight = torch.randn(2, 5, generator=generator)
    fit = LinearFit()
    for _ in range(3):
        x = torch.randn(4, 7, 5, generator=generator)
        fit.update(x, x @ weight.T - 3)
    found, bias = fit.solve()
    torch.testing.assert_close(found, weight, atol=1e-3, rtol=0)
    torch.testing.assert_close(bias, torch.full((2,), -3.0), atol=1e-3, rtol=0)


def test_what_fits_is_copied_and_the_front_end_stays():
    old, new = codec(COARSE, 1, 0), codec(FINE, 2, 1)
    old.normalizer.set_statistics(-3.0, 1.0)
    before = new.encoder.project_in.weight.clone()
    copy_matching(old, new)
    for mine, theirs in zip(
        new.encoder.trunk.parameters(),
        old.encoder.trunk.parameters(),
        strict=True,
    ):
        assert mine.equal(theirs)
    assert new.encoder.project_in.weight.equal(before)
    assert new.normalizer.mean.item() == -6.0
    assert new.mel_settings == FINE


@pytest.mark.parametrize(
    ("before", "after"),
    [((COARSE, 1), (FINE, 2)), ((FINE, 2), (COARSE, 1))],
)
def test_a_moved_codec_codes_nearly_as_the_old_one(before, after):
    """Its latents before quantisation against those of random weights."""
    old, new = codec(*before, 0), codec(*after, 1)
    stranger = codec(*after, 2)
    copy_matching(old, stranger)
    move_codec(old, new, sounds())
    wav = next(sounds(1, seed=9))

    def latents(model):
        return model.encoder(model.normalizer(model.features(wav)))

    wanted = latents(old)
    errors = [
        (latents(model) - wanted).square().mean() / wanted.var()
        for model in (new, stranger)
    ]
    assert errors[0] < 0.25 * errors[1]


def test_codecs_of_other_token_rates_are_refused():
    with pytest.raises(ValueError, match="46.875 token.* new one 93.75"):
        move_codec(codec(COARSE, 1, 0), codec(FINE, 1, 1), sounds())


@pytest.mark.parametrize("envelope", [False, True])
def test_a_moved_vocoder_filters_nearly_as_the_old_one(envelope):
    start = MelEnvelope(FINE, 1024) if envelope else None
    old, new = vocoder(COARSE, 2, 0), vocoder(FINE, 1, 1, start)
    coarse, fine = LogMel(COARSE), LogMel(FINE)
    wav = next(sounds(1, seed=9))

    def difference():
        with torch.no_grad():
            wanted = old.trunk_input(coarse(wav))
            found = new.trunk_input(fine(wav))
        return ((found - wanted).square().mean() / wanted.var()).item()

    before = difference()
    batches = list(sounds(150))
    move_vocoder(old, new, coarse, fine, batches, batches[:4], lr=1e-2)
    assert difference() < 0.3 * before
    # where it was fitted, the envelope adds what the features do not say of it
    # and no level
    mel = fine(torch.cat(batches[:4]))
    with torch.no_grad():
        features = new.features(mel)
        gains = new.head.project(features)
        if envelope:
            gains[..., :513] += start(mel)
        change = (gains - old.head.project(features))[..., :513]
    assert change.mean((0, 1)).abs().max() < 0.02
    assert bool((change.std() > 0.1) == envelope)
