"""Waveform discriminators."""

import math
import sys

import bigvgan.discriminators as bigvgan
import pytest
import torch
from torch.nn.functional import conv1d
from torch.nn.utils import remove_weight_norm

from speechbrain_flowmac.lobes.discriminators import (
    BandSplitDiscriminator,
    LogSpectrogramDiscriminator,
    MultiBandDiscriminator,
    MultiDiscriminator,
    MultiLogSpectrogramDiscriminator,
    MultiPeriodDiscriminator,
    MultiScaleSubbandCQTDiscriminator,
    PeriodDiscriminator,
    SubbandCQTDiscriminator,
)

RATE = 24000
LOWEST_NOTE = 32.70  # Hz, the first bin of the constant-Q transform

MAKERS = {
    "period": lambda: PeriodDiscriminator(3, channels=(4, 6, 8)),
    "log": lambda: LogSpectrogramDiscriminator(64, channels=4),
    "logs": lambda: MultiLogSpectrogramDiscriminator((64, 128), channels=4),
    "periods": lambda: MultiPeriodDiscriminator((2, 5), channels=(4, 6)),
    "bands": lambda: BandSplitDiscriminator(64, channels=4),
    "multiband": lambda: MultiBandDiscriminator((64, 128), channels=4),
    "octaves": lambda: SubbandCQTDiscriminator(RATE, 32, 6, 12, channels=4),
    "cqts": lambda: MultiScaleSubbandCQTDiscriminator(
        RATE, (64, 32), (8, 12), n_octaves=6, channels=4
    ),
    "nested": lambda: MultiDiscriminator(
        [
            MultiPeriodDiscriminator((2, 3), channels=(4, 6)),
            LogSpectrogramDiscriminator(64, channels=4),
            MultiBandDiscriminator((64,), channels=4),
        ]
    ),
}
N_SCORES = {
    "period": 1,
    "log": 1,
    "logs": 2,
    "periods": 2,
    "bands": 1,
    "multiband": 2,
    "octaves": 1,
    "cqts": 2,
    "nested": 4,
}


@pytest.fixture(params=MAKERS)
def name(request):
    return request.param


@pytest.fixture
def discriminator(name):
    torch.manual_seed(0)
    return MAKERS[name]()


def noise(seed, *shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def count(module):
    return sum(parameter.numel() for parameter in module.parameters())


def flat(scores, features):
    return [*scores, *(feat for inner in features for feat in inner)]


@pytest.mark.parametrize("n_samples", [128, 401])
def test_format_of_the_output(name, discriminator, n_samples):
    scores, features = discriminator(noise(0, 2, n_samples))
    assert isinstance(scores, list) and isinstance(features, list)
    assert len(scores) == len(features) == N_SCORES[name]
    for score, inner in zip(scores, features, strict=True):
        assert score.dim() == 2 and score.shape[0] == 2
        assert isinstance(inner, list)
        assert all(f.dim() == 4 and f.shape[0] == 2 for f in inner)
        assert torch.equal(inner[-1].flatten(1), score)


def test_every_parameter_and_the_waveform_get_gradients(discriminator):
    wav = noise(0, 2, 400).requires_grad_()
    scores, _ = discriminator(wav)
    sum((score - 1).square().mean() for score in scores).backward()
    assert wav.grad.abs().sum() > 0
    for key, parameter in discriminator.named_parameters():
        assert parameter.grad is not None, key
        assert parameter.grad.abs().sum() > 0, key


def test_silence_gives_finite_values_and_gradients(discriminator):
    wav = torch.zeros(1, 400, requires_grad=True)
    scores, features = discriminator(wav)
    outputs = flat(scores, features)
    assert all(output.isfinite().all() for output in outputs)
    sum((output - 1).square().mean() for output in outputs).backward()
    assert wav.grad.isfinite().all()
    grads = [parameter.grad for parameter in discriminator.parameters()]
    assert all(grad.isfinite().all() for grad in grads)


def test_items_of_a_batch_do_not_see_each_other(discriminator):
    wav = noise(0, 3, 400)
    batch = flat(*discriminator(wav))
    for i in range(3):
        single = flat(*discriminator(wav[i : i + 1]))
        for whole, part in zip(batch, single, strict=True):
            torch.testing.assert_close(whole[i : i + 1], part)


def test_combination_is_concatenation():
    torch.manual_seed(0)
    parts = [MAKERS["periods"](), MAKERS["log"]()]
    wav = noise(0, 2, 400)
    scores, features = MultiDiscriminator(parts)(wav)
    expected = [part(wav) for part in parts]
    separate = flat(
        expected[0][0] + expected[1][0], expected[0][1] + expected[1][1]
    )
    for found, wanted in zip(flat(scores, features), separate, strict=True):
        assert torch.equal(found, wanted)


def test_widths_are_honoured():
    wav = noise(0, 1, 400)
    _, [features] = PeriodDiscriminator(2, channels=(3, 5, 7))(wav)
    assert [feat.shape[1] for feat in features] == [3, 5, 7, 1]
    _, [features] = LogSpectrogramDiscriminator(64, channels=6)(wav)
    assert [feat.shape[1] for feat in features] == [6] * 4 + [1]
    _, [features] = BandSplitDiscriminator(64, channels=6)(wav)
    assert [feat.shape[1] for feat in features] == [6] * 5 * 5 + [1]
    _, [features] = SubbandCQTDiscriminator(RATE, channels=6)(wav)
    assert [feat.shape[1] for feat in features] == [6] * 5 + [1]


@pytest.mark.parametrize("width", [4, 32])
def test_sizes_of_the_complex_discriminators_are_those_of_their_layers(width):
    # weights, then bias and weight norm of each output channel
    stack = (2 + 3 * width) * width * 27 + width**2 * 9 + 2 * 5 * width
    output = 9 * width + 2
    octaves = 9 * (2 * 2 * 27 + 2)
    bands = BandSplitDiscriminator(512, channels=width)
    assert count(bands) == 5 * stack + output
    for bins in (24, 48):
        cqt = SubbandCQTDiscriminator(
            RATE, bins_per_octave=bins, channels=width
        )
        assert count(cqt) == octaves + stack + output


def test_size_grows_with_the_square_of_the_width():
    def sizes(make):
        return [count(make(width)) for width in (16, 32)]

    for make in (
        lambda w: MultiPeriodDiscriminator((2, 3), channels=(w, 2 * w, 4 * w)),
        lambda w: MultiLogSpectrogramDiscriminator(channels=w),
        lambda w: MultiBandDiscriminator(channels=w),
    ):
        narrow, wide = sizes(make)
        assert 3.5 < wide / narrow < 4.0


@pytest.mark.parametrize("period", [1, 2, 3, 7])
@pytest.mark.parametrize("n_samples", [42, 43, 47])
def test_folding_keeps_every_sample_in_order(period, n_samples):
    wav = noise(0, 2, n_samples)
    image = PeriodDiscriminator(period, channels=(2,)).image(wav)
    n_rows = math.ceil(n_samples / period)
    assert image.shape == (2, 1, n_rows, period)
    assert torch.equal(image.flatten(1)[:, :n_samples], wav)


def test_columns_of_a_periodic_signal_are_constant():
    period = 5
    wav = noise(0, 1, period).repeat(1, 12)
    discriminator = PeriodDiscriminator(period, channels=(4,))
    image = discriminator.image(wav)
    assert torch.equal(image, image[:, :, :1].expand_as(image))


def test_each_column_is_judged_alone():
    period, phase = 5, 2
    torch.manual_seed(0)
    discriminator = PeriodDiscriminator(period, channels=(4, 8))
    wav = noise(0, 1, 60)
    other = wav.clone()
    other[:, phase::period] += 1.0
    _, [before] = discriminator(wav)
    _, [after] = discriminator(other)
    for first, second in zip(before, after, strict=True):
        changed = (first != second).flatten(0, 2).any(dim=0)
        assert changed.tolist() == [i == phase for i in range(period)]


def test_columns_are_convolved_like_every_pth_sample():
    """The 2-D stack equals 1-D convolutions of the decimated waveform."""
    period = 3
    torch.manual_seed(0)
    discriminator = PeriodDiscriminator(period, channels=(4, 6, 8))
    wav = noise(0, 2, 120)
    [score], _ = discriminator(wav)
    columns = score.view(2, -1, period)
    for phase in range(period):
        x = wav[:, None, phase::period]
        for layer, stride in zip(
            discriminator.convolutions, (3, 3, 1), strict=True
        ):
            weight = layer.weight.squeeze(3)
            x = conv1d(x, weight, layer.bias, stride, padding=2)
            x = torch.where(x > 0, x, 0.1 * x)
        output = discriminator.output
        x = conv1d(x, output.weight.squeeze(3), output.bias, padding=1)
        torch.testing.assert_close(columns[:, :, phase], x[:, 0])


def test_spectrogram_has_a_frame_per_hop_and_the_right_peak():
    discriminator = LogSpectrogramDiscriminator(64, channels=2)
    time = torch.arange(640)
    wav = torch.sin(2 * math.pi * 10 / 64 * time).unsqueeze(0)
    image = discriminator.image(wav)
    assert image.shape == (1, 1, 33, 40)
    assert (image[0, 0, :, 2:-2].argmax(dim=0) == 10).all()
    spectrum = discriminator.spectrum(wav)
    torch.testing.assert_close(discriminator.spectrum(3 * wav), 3 * spectrum)


def test_a_log_spectrogram_is_that_of_the_magnitudes_above_a_floor():
    wav = noise(0, 2, 400)
    logs = LogSpectrogramDiscriminator(64, channels=2)
    magnitude = logs.spectrum(wav).abs()
    expected = (magnitude.unsqueeze(1) + 1e-3).log() / 2 + 1
    torch.testing.assert_close(logs.image(wav), expected)
    # ten times louder is one step up, everywhere above the floor
    step = logs.image(100 * wav) - logs.image(10 * wav)
    torch.testing.assert_close(
        step.median().item(), math.log(10) / 2, atol=1e-3, rtol=0
    )


def tone(frequency, n_samples):
    """Of amplitude 1, at its highest in the first sample."""
    time = torch.arange(n_samples, dtype=torch.float64)
    return (2 * math.pi * frequency * time).cos().float().unsqueeze(0)


@pytest.mark.parametrize("band", range(5))
def test_each_band_sees_its_own_tones_only(band):
    """Whole periods in a window, so that reflection at the ends continues the
    tone: only its bin and the two beside it see it."""
    n_fft = 512
    torch.manual_seed(0)
    discriminator = BandSplitDiscriminator(n_fft, channels=4)
    edges = [0, 25, 64, 128, 192, 257]  # of 257 bins
    middle = (edges[band] + edges[band + 1]) // 2
    wav = 0.1 * noise(0, 1, 4 * n_fft + 1)
    other = wav + tone(middle / n_fft, 4 * n_fft + 1)
    change = discriminator.image(other) - discriminator.image(wav)
    loudest = change.abs().amax(dim=(0, 1, 2))
    assert loudest.argmax() == middle
    loudest[middle - 1 : middle + 2] = 0
    assert loudest.max() < 1e-3
    changes = [
        (after - before).abs().max()
        for before, after in zip(
            discriminator(wav)[1][0], discriminator(other)[1][0], strict=True
        )
    ]
    for i in range(5):
        for layer in range(5):
            change = changes[5 * i + layer]
            assert (change > 1e-2) if i == band else (change < 1e-4)


def test_bands_are_the_spectrogram_cut_in_five():
    discriminator = BandSplitDiscriminator(64, channels=2)
    wav = noise(0, 2, 640)
    image = discriminator.image(wav)
    magnitude = discriminator.spectrum(wav).abs()
    torch.testing.assert_close(image.norm(dim=1).mT, magnitude)
    assert image.shape == (2, 2, 40, 33)
    assert discriminator.widths == [3, 5, 8, 8, 9]


@pytest.mark.parametrize("bins, hop", [(24, 512), (36, 256), (48, 256)])
def test_a_tone_lights_its_bin_of_the_constant_q_transform(bins, hop):
    discriminator = SubbandCQTDiscriminator(
        RATE, hop, bins_per_octave=bins, channels=2
    )
    for frequency in (110.0, 440.0, 1000.0, 3520.0, 10000.0):
        wav = tone(frequency / RATE, RATE)
        image = discriminator.image(wav)
        assert image.shape == (1, 2, 2 * RATE // hop + 1, 9 * bins)
        n_frames = image.shape[2]
        inner = image[:, :, n_frames // 4 : -n_frames // 4].norm(dim=1)
        expected = round(math.log2(frequency / LOWEST_NOTE) * bins)
        assert (inner.argmax(dim=2) == expected).all()
        torch.testing.assert_close(
            discriminator.image(3 * wav), 3 * image, atol=1e-4, rtol=1e-4
        )


def test_octaves_are_convolved_alone_and_put_side_by_side():
    torch.manual_seed(0)
    discriminator = MAKERS["octaves"]()
    joined = []
    discriminator.convolutions[0].register_forward_pre_hook(
        lambda module, inputs: joined.append(inputs[0])
    )
    image = noise(0, 1, 2, 5, 6 * 12)
    discriminator.hidden(image)
    for octave in range(6):
        columns = slice(12 * octave, 12 * (octave + 1))
        other = image.clone()
        other[..., columns] += 1.0
        discriminator.hidden(other)
        assert joined[-1].shape == image.shape
        changed = (joined[-1] != joined[0]).flatten(0, 2).any(dim=0)
        assert changed[columns].all() and changed.sum() == 12
        torch.testing.assert_close(
            joined[0][..., columns],
            discriminator.octaves[octave](image[..., columns]),
        )


def test_the_transform_is_quiet_fixed_and_not_saved(capsys):
    discriminator = MAKERS["cqts"]()
    discriminator(noise(0, 1, 400))
    assert capsys.readouterr() == ("", "")
    trained = {name for name, _ in discriminator.named_parameters()}
    assert trained == set(discriminator.state_dict())
    assert not any("transform" in name for name in trained)


def test_nnaudio_is_asked_for_only_when_it_is_needed(monkeypatch):
    monkeypatch.setitem(sys.modules, "nnAudio.features.cqt", None)
    MAKERS["bands"]()
    with pytest.raises(ImportError, match=r"speechbrain-flowmac\[train\]"):
        MAKERS["octaves"]()


def copy_weights(sources, targets):
    """Into layers of the reference, whose weight norm is taken off."""
    for source, target in zip(sources, targets, strict=True):
        if hasattr(target, "weight_g"):
            remove_weight_norm(target)
        target.weight.data.copy_(source.weight)
        target.bias.data.copy_(source.bias)


@pytest.fixture
def bigvgan_settings():
    return bigvgan.AttrDict({"sampling_rate": RATE, "cqtd_filters": 4})


@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_constant_q_scores_are_those_of_bigvgan(bigvgan_settings):
    torch.manual_seed(0)
    ours = MultiScaleSubbandCQTDiscriminator(RATE, channels=4)
    theirs = bigvgan.MultiScaleSubbandCQTDiscriminator(bigvgan_settings)
    pairs = list(zip(ours.discriminators, theirs.discriminators, strict=True))
    assert len(pairs) == 3
    wav = noise(0, 2, 2400)
    for our, their in pairs:
        copy_weights(our.octaves, their.conv_pres)
        copy_weights(
            [*our.convolutions, our.output], [*their.convs, their.conv_post]
        )
        [score], [features] = our(wav)
        expected, expected_features = their(wav.unsqueeze(1))
        torch.testing.assert_close(score, expected.flatten(1))
        for found, wanted in zip(features, expected_features, strict=False):
            torch.testing.assert_close(found, wanted)


@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_band_stacks_are_those_of_bigvgan(bigvgan_settings):
    """From the same bands: the reference normalises the volume before."""
    torch.manual_seed(0)
    ours = MultiBandDiscriminator(channels=32)
    theirs = bigvgan.MultiBandDiscriminator(bigvgan_settings)
    pairs = list(zip(ours.discriminators, theirs.discriminators, strict=True))
    assert len(pairs) == 3
    wav = noise(0, 1, 4096)
    for our, their in pairs:
        stacks = [layer for stack in their.band_convs for layer in stack]
        copy_weights(
            [*our.convolutions, our.output], [*stacks, their.conv_post]
        )
        bands = our.image(wav).split(our.widths, dim=3)
        assert [b.shape[3] for b in their.spectrogram(wav)] == our.widths
        their.spectrogram = lambda _, bands=bands: bands
        expected, _ = their(wav.unsqueeze(1))
        torch.testing.assert_close(our(wav)[0][0], expected.flatten(1))


@pytest.mark.parametrize("kind", ["log", "bands", "octaves"])
def test_spectra_are_float32_under_autocast(kind):
    discriminator = MAKERS[kind]()
    wav = noise(0, 1, 400)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        image = discriminator.image(wav)
        [score], _ = discriminator(wav)
    assert torch.equal(image, discriminator.image(wav))
    assert score.isfinite().all()


def test_a_discriminator_learns_to_tell_two_kinds_apart():
    torch.manual_seed(0)
    discriminator = MAKERS["nested"]()
    optimizer = torch.optim.Adam(discriminator.parameters(), lr=1e-2)
    real = torch.sin(0.3 * torch.arange(256)).repeat(4, 1)
    fake = noise(0, 4, 256)
    losses = []
    for _ in range(30):
        loss = sum(
            (r - 1).square().mean() + f.square().mean()
            for r, f in zip(
                discriminator(real)[0], discriminator(fake)[0], strict=True
            )
        )
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.3 * losses[0]


def test_shortest_signals_work_and_shorter_are_refused():
    period = PeriodDiscriminator(11, channels=(2, 2))
    assert period(noise(0, 1, 11))[0][0].isfinite().all()
    with pytest.raises(ValueError, match="at least 11 samples, found 10"):
        period(noise(0, 1, 10))
    for make, shortest in (
        (lambda: BandSplitDiscriminator(64, channels=2), 25),
        (lambda: LogSpectrogramDiscriminator(64, channels=2), 25),
        (lambda: SubbandCQTDiscriminator(RATE, channels=2), 128),
        (lambda: SubbandCQTDiscriminator(RATE, 64, 1, channels=2), 1),
    ):
        discriminator = make()
        assert discriminator(noise(0, 1, shortest))[0][0].isfinite().all()
        with pytest.raises(ValueError, match=f"at least {shortest} samples"):
            discriminator(noise(0, 1, shortest - 1))


def test_channel_dimension_is_refused(discriminator):
    with pytest.raises(ValueError, match=r"\[B, T\]"):
        discriminator(torch.zeros(2, 1, 400))


@pytest.mark.parametrize(
    "make, message",
    [
        (lambda: PeriodDiscriminator(0), "period"),
        (lambda: PeriodDiscriminator(2, ()), "at least one width"),
        (lambda: LogSpectrogramDiscriminator(66), "multiple of 4"),
        (lambda: LogSpectrogramDiscriminator(0), "multiple of 4"),
        (lambda: MultiDiscriminator([]), "at least one"),
        (lambda: BandSplitDiscriminator(66), "multiple of 4"),
        (lambda: BandSplitDiscriminator(8), "hold a bin"),
        (lambda: SubbandCQTDiscriminator(RATE, 384), "multiple of 256"),
        (lambda: SubbandCQTDiscriminator(16000), "Nyquist"),
    ],
)
def test_bad_settings_are_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()
