"""Multi-scale log mel loss and adversarial losses."""

import math

import numpy
import pytest
import speechbrain.lobes.models.HifiGAN as hifigan
import torch

from speechbrain_flowmac.lobes.losses import (
    AdversarialLoss,
    MultiResolutionSTFTLoss,
    MultiScaleMelLoss,
)

RATE = 24000


@pytest.fixture(scope="module")
def mel_loss():
    return MultiScaleMelLoss(RATE)


def noise(seed, *shape):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator)


def test_mel_loss_is_zero_only_for_equal_signals(mel_loss):
    wav = 0.1 * noise(0, 2, 6000)
    assert mel_loss(wav, wav).item() == 0.0
    assert mel_loss(wav, 0.1 * noise(1, 2, 6000)) > 0.1


def test_mel_loss_of_a_gain_is_its_logarithm(mel_loss):
    wav = noise(0, 2, 6000)
    assert mel_loss(0.5 * wav, wav).item() == pytest.approx(
        math.log(2), rel=1e-4
    )


def test_mel_loss_is_symmetric_and_ignores_polarity(mel_loss):
    first, second = noise(0, 1, 4096), noise(1, 1, 4096)
    torch.testing.assert_close(mel_loss(first, second), mel_loss(second, first))
    assert mel_loss(-first, first) < 1e-5


def test_mel_loss_grows_with_distortion(mel_loss):
    time = torch.arange(8192) / RATE
    clean = (0.3 * torch.sin(2 * math.pi * 440 * time)).unsqueeze(0)
    hiss = noise(0, 1, 8192)
    losses = [mel_loss(clean + g * hiss, clean) for g in (1e-3, 1e-2, 1e-1)]
    assert losses[0] < losses[1] < losses[2]


def test_mel_loss_is_the_mean_over_scales(mel_loss):
    first, second = noise(0, 1, 4096), noise(1, 1, 4096)
    sizes = [(32, 5), (512, 80)]
    single = [MultiScaleMelLoss(RATE, [n], [m]) for n, m in sizes]
    both = MultiScaleMelLoss(RATE, *zip(*sizes, strict=True))
    expected = sum(loss(first, second) for loss in single) / 2
    torch.testing.assert_close(both(first, second), expected)


@pytest.mark.parametrize("prediction_is_silent", [True, False])
def test_mel_loss_has_finite_gradient_on_silence(
    mel_loss, prediction_is_silent
):
    silence, sound = torch.zeros(1, 4096), noise(0, 1, 4096)
    pair = (silence, sound) if prediction_is_silent else (sound, silence)
    prediction = pair[0].clone().requires_grad_()
    mel_loss(prediction, pair[1]).backward()
    assert prediction.grad.isfinite().all()
    if not prediction_is_silent:
        assert prediction.grad.abs().sum() > 0


def test_descending_the_mel_loss_lowers_it(mel_loss):
    target = noise(0, 1, 4096)
    prediction = (0.3 * noise(1, 1, 4096)).requires_grad_()
    before = mel_loss(prediction, target)
    before.backward()
    step = 1e-2 * prediction.grad / prediction.grad.norm()
    assert mel_loss(prediction.detach() - step, target) < before


def test_mel_loss_runs_in_float32_under_autocast(mel_loss):
    first, second = noise(0, 1, 4096), noise(1, 1, 4096)
    expected = mel_loss(first, second)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = mel_loss(first, second)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, expected)
    assert mel_loss(first.bfloat16(), second.bfloat16()).isfinite()


def test_mel_loss_adds_nothing_to_a_checkpoint(mel_loss):
    assert not mel_loss.state_dict()
    assert not list(mel_loss.parameters())


def test_mel_loss_takes_the_shortest_signal_and_refuses_shorter(mel_loss):
    shortest = mel_loss.min_samples
    assert mel_loss(noise(0, 1, shortest), noise(1, 1, shortest)).isfinite()
    with pytest.raises(ValueError, match=str(shortest)):
        mel_loss(noise(0, 1, shortest - 1), noise(1, 1, shortest - 1))


@pytest.mark.parametrize("shapes", [((1, 4096), (1, 4097)), ((4096,),) * 2])
def test_mel_loss_refuses_wrong_shapes(mel_loss, shapes):
    with pytest.raises(ValueError, match=r"\[B, T\]"):
        mel_loss(*(torch.zeros(shape) for shape in shapes))


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({"n_ffts": (512, 1024), "n_mels": (80,)}, "one entry per scale"),
        ({"n_ffts": (), "n_mels": ()}, "one entry per scale"),
        ({"n_ffts": (510,), "n_mels": (20,)}, "multiples of 4"),
        ({"n_ffts": (32,), "n_mels": (80,)}, "no frequency bin"),
        ({"floor": 0.0}, "floor"),
    ],
)
@pytest.mark.filterwarnings("ignore")
def test_mel_loss_refuses_bad_settings(arguments, message):
    with pytest.raises(ValueError, match=message):
        MultiScaleMelLoss(RATE, **arguments)


@pytest.fixture(scope="module")
def stft_loss():
    return MultiResolutionSTFTLoss()


def magnitudes(wav, n_fft, hop, win):
    """Of one signal in float64, frame by frame, by NumPy alone."""
    window = numpy.zeros(n_fft)
    start = (n_fft - win) // 2
    # the periodic Hann window
    window[start : start + win] = numpy.hanning(win + 1)[:-1]
    padded = numpy.pad(wav, n_fft // 2, mode="reflect")
    frames = [
        numpy.abs(numpy.fft.rfft(window * padded[i : i + n_fft]))
        for i in range(0, len(padded) - n_fft + 1, hop)
    ]
    return numpy.maximum(numpy.stack(frames), 1e-5)


def test_stft_loss_follows_the_paper_in_float64():
    resolutions = ((256, 30, 150), (512, 50, 240), (128, 20, 128))
    prediction, target = noise(0, 2, 1000), 0.3 * noise(1, 2, 1000)
    expected = []
    for resolution in resolutions:
        x, y = (
            numpy.stack([magnitudes(item, *resolution) for item in batch])
            for batch in (prediction.double().numpy(), target.double().numpy())
        )
        convergence = numpy.sqrt(((y - x) ** 2).sum() / (y**2).sum())
        distance = numpy.abs(numpy.log(y) - numpy.log(x)).mean()
        expected.append(convergence + distance)
    found = MultiResolutionSTFTLoss(resolutions)(prediction, target)
    assert found.item() == pytest.approx(numpy.mean(expected), rel=1e-4)


def test_stft_loss_is_zero_only_for_equal_signals(stft_loss):
    wav = noise(0, 2, 4096)
    assert stft_loss(wav, wav).item() == 0.0
    assert stft_loss(noise(1, 2, 4096), wav) > 0.1


@pytest.mark.parametrize("gain", [0.1, 0.5, 2.0])
def test_stft_loss_of_a_gain_is_known(stft_loss, gain):
    wav = noise(0, 2, 4096)
    expected = abs(1 - gain) + abs(math.log(gain))
    assert stft_loss(gain * wav, wav).item() == pytest.approx(
        expected, rel=1e-3
    )


def test_stft_loss_does_not_depend_on_the_common_level(stft_loss):
    first, second = noise(0, 2, 4096), noise(1, 2, 4096)
    torch.testing.assert_close(
        stft_loss(5 * first, 5 * second), stft_loss(first, second)
    )


@pytest.mark.parametrize("silent", ["prediction", "target", "both", "item"])
def test_stft_loss_is_finite_on_silence(stft_loss, silent):
    prediction, target = noise(0, 2, 4096), noise(1, 2, 4096)
    if silent in ("prediction", "both"):
        prediction *= 0
    if silent in ("target", "both"):
        target *= 0
    if silent == "item":
        target[0] = 0
        assert stft_loss(prediction, target) < 20
    prediction.requires_grad_()
    loss = stft_loss(prediction, target)
    loss.backward()
    assert loss.isfinite() and prediction.grad.isfinite().all()


def test_descending_the_stft_loss_lowers_it(stft_loss):
    target = noise(0, 1, 4096)
    prediction = (0.3 * noise(1, 1, 4096)).requires_grad_()
    before = stft_loss(prediction, target)
    before.backward()
    step = 1e-2 * prediction.grad / prediction.grad.norm()
    assert stft_loss(prediction.detach() - step, target) < before


def test_stft_loss_runs_in_float32_and_saves_nothing(stft_loss):
    first, second = noise(0, 1, 4096), noise(1, 1, 4096)
    expected = stft_loss(first, second)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = stft_loss(first, second)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, expected)
    assert not stft_loss.state_dict() and not list(stft_loss.parameters())


def test_stft_loss_refuses_what_it_cannot_take(stft_loss):
    assert stft_loss.min_samples == 1025
    assert stft_loss(noise(0, 1, 1025), noise(1, 1, 1025)).isfinite()
    with pytest.raises(ValueError, match="1025"):
        stft_loss(noise(0, 1, 1024), noise(1, 1, 1024))
    with pytest.raises(ValueError, match=r"\[B, T\]"):
        stft_loss(noise(0, 1, 4096), noise(1, 2, 4096))
    for resolutions in ((), ((512, 128, 513),), ((512, 0, 512),)):
        with pytest.raises(ValueError, match="resolution"):
            MultiResolutionSTFTLoss(resolutions)
    with pytest.raises(ValueError, match="floor"):
        MultiResolutionSTFTLoss(floor=0.0)


@pytest.fixture(params=["least_squares", "hinge"])
def adversarial(request):
    pairs = {
        "least_squares": (hifigan.MSEGLoss, hifigan.MSEDLoss),
        "hinge": (hifigan.HingeGLoss, hifigan.HingeDLoss),
    }
    generator, discriminator = pairs[request.param]
    loss = AdversarialLoss(
        generator(), discriminator(), hifigan.MelganFeatureLoss()
    )
    loss.formula = request.param
    return loss


def formulas(name):
    """(generator(fake), discriminator(real, fake)) written out."""
    if name == "least_squares":
        return (
            lambda fake: ((fake - 1) ** 2).mean(),
            lambda real, fake: ((real - 1) ** 2).mean() + (fake**2).mean(),
        )
    return (
        lambda fake: (1 - fake).relu().mean(),
        lambda real, fake: (1 - real).relu().mean() + (1 + fake).relu().mean(),
    )


def score_lists():
    """Scores of two discriminators of different output lengths."""
    real = [noise(0, 2, 7), noise(1, 2, 11)]
    fake = [noise(2, 2, 7), noise(3, 2, 11)]
    return real, fake


def test_scores_follow_the_formula_summed_over_discriminators(adversarial):
    real, fake = score_lists()
    generator, discriminator = formulas(adversarial.formula)
    feats = [[score] for score in fake]
    terms = adversarial.generator_terms(fake, feats, feats)
    torch.testing.assert_close(
        terms["adversarial"], generator(fake[0]) + generator(fake[1])
    )
    torch.testing.assert_close(
        adversarial.discriminator_loss(real, fake),
        sum(discriminator(*pair) for pair in zip(real, fake, strict=True)),
    )


def test_discriminator_loss_is_zero_for_a_perfect_judge(adversarial):
    worst_fake = 0.0 if adversarial.formula == "least_squares" else -1.0
    real, fake = [torch.ones(2, 5)], [torch.full((2, 5), worst_fake)]
    assert adversarial.discriminator_loss(real, fake).item() == 0.0
    assert adversarial.discriminator_loss(fake, real) > 0


def test_feature_matching_is_zero_for_equal_features(adversarial):
    _, scores = score_lists()
    feats = [[noise(4, 2, 3, 5), noise(5, 2, 4)], [noise(6, 2, 6)]]
    moved = [[feat + 0.25 for feat in inner] for inner in feats]
    same = adversarial.generator_terms(scores, feats, feats)
    other = adversarial.generator_terms(scores, moved, feats)
    assert same["feature_matching"].item() == 0.0
    assert other["feature_matching"].item() == pytest.approx(0.25)


def test_no_gradient_reaches_the_features_of_real_audio(adversarial):
    _, scores = score_lists()
    fake = [[noise(4, 2, 3).requires_grad_()], [noise(5, 2, 3)]]
    real = [[noise(6, 2, 3).requires_grad_()], [noise(7, 2, 3)]]
    terms = adversarial.generator_terms(scores, fake, real)
    terms["feature_matching"].backward()
    assert fake[0][0].grad.abs().sum() > 0
    assert real[0][0].grad is None


def test_lists_of_unequal_length_are_refused(adversarial):
    real, fake = score_lists()
    feats = [[noise(4, 2, 3), noise(5, 2, 3)], [noise(6, 2, 3)]]
    with pytest.raises(ValueError, match="scores_real"):
        adversarial.discriminator_loss(real, fake[:1])
    with pytest.raises(ValueError, match="scores_real"):
        adversarial.discriminator_loss([], [])
    with pytest.raises(ValueError, match="scores_fake"):
        adversarial.generator_terms(fake[:1], feats, feats)
    with pytest.raises(ValueError, match="feats_real"):
        adversarial.generator_terms(fake, feats, feats[:1])
    with pytest.raises(ValueError, match=r"feats_real\[i\]"):
        adversarial.generator_terms(fake, feats, [feats[0][:1], feats[1]])


def test_hinge_losses_by_hand():
    """Scores above the margin on the right side cost nothing and pull no more;
    SpeechBrain's signs are those of the papers."""
    loss = AdversarialLoss(
        hifigan.HingeGLoss(), hifigan.HingeDLoss(), hifigan.MelganFeatureLoss()
    )
    real = torch.tensor([[3.0, 0.5, -1.0]], requires_grad=True)
    fake = torch.tensor([[2.0, -0.5, -4.0]], requires_grad=True)
    # relu(1 - real) = 0, 0.5, 2 and relu(1 + fake) = 3, 0.5, 0
    total = loss.discriminator_loss([real], [fake])
    total.backward()
    assert total.item() == pytest.approx((2.5 + 3.5) / 3)
    thirds = torch.tensor([[1.0, 1.0, 1.0]]) / 3
    torch.testing.assert_close(real.grad, -thirds * torch.tensor([0, 1, 1]))
    torch.testing.assert_close(fake.grad, thirds * torch.tensor([1, 1, 0]))
    # relu(1 - fake) = 0, 1.5, 5
    fake.grad = None
    terms = loss.generator_terms([fake], [[fake]], [[real]])
    terms["adversarial"].backward()
    assert terms["adversarial"].item() == pytest.approx(6.5 / 3)
    torch.testing.assert_close(fake.grad, -thirds * torch.tensor([0, 1, 1]))
