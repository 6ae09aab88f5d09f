"""Log-mel front end, its settings and its normalisation."""

import math

import numpy as np
import pytest
import torch

from speechbrain_flowmac.lobes.features import (
    LogMel,
    MelMismatchError,
    MelNormalizer,
    MelSettings,
    RunningStatistics,
    hz_to_mel,
    length_mask,
    mel_filterbank,
    mel_to_hz,
    num_frames,
)

SMALL = MelSettings(
    sample_rate=8000, n_fft=128, hop_length=32, win_length=100, n_mels=12
)


def noise(seed, *shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def slaney(hz):
    """Slaney's scale in scalars."""
    if hz < 1000:
        return 3 * hz / 200
    return 15 + 27 * math.log(hz / 1000) / math.log(6.4)


def slaney_inverse(mel):
    if mel < 15:
        return mel * 200 / 3
    return 1000 * 6.4 ** ((mel - 15) / 27)


def log_mel_by_loops(signal, s):
    """The definition in float64: frame by frame, filter by filter."""
    hop, pad = s.hop_length, (s.n_fft - s.hop_length) // 2
    count = math.ceil(len(signal) / hop)
    whole = np.concatenate([signal, np.zeros(count * hop - len(signal))])
    whole = np.pad(whole, pad, mode="reflect")
    phase = 2 * np.pi * np.arange(s.win_length) / s.win_length
    before = (s.n_fft - s.win_length) // 2
    window = np.zeros(s.n_fft)
    window[before : before + s.win_length] = 0.5 - 0.5 * np.cos(phase)
    low, high = slaney(s.f_min), slaney(s.f_max)
    steps = np.linspace(low, high, s.n_mels + 2)
    corners = [slaney_inverse(m) for m in steps]
    bins = np.arange(s.n_fft // 2 + 1) * s.sample_rate / s.n_fft
    out = np.zeros((count, s.n_mels))
    for n in range(count):
        frame = whole[n * hop : n * hop + s.n_fft] * window
        magnitude = np.sqrt(np.abs(np.fft.rfft(frame)) ** 2 + 1e-9)
        for m in range(s.n_mels):
            filter_ = np.interp(bins, corners[m : m + 3], [0, 1, 0])
            value = magnitude @ filter_ * 2 / (corners[m + 2] - corners[m])
            out[n, m] = math.log(max(value, 1e-5))
    return out


@pytest.mark.parametrize(
    "settings, samples",
    [
        (SMALL, 1000),
        (SMALL, 1),
        (SMALL, 33),
        (MelSettings(f_min=40.0, f_max=11000.0), 4000),
        (MelSettings(n_fft=1024, hop_length=256, win_length=1024), 700),
    ],
)
def test_log_mel_agrees_with_its_definition(settings, samples):
    signal = 0.3 * noise(0, 1, samples)
    found = LogMel(settings)(signal)[0].numpy()
    expected = log_mel_by_loops(signal[0].double().numpy(), settings)
    np.testing.assert_allclose(found, expected, atol=1e-4)


def test_silence_is_the_floor():
    mel = LogMel(SMALL)(torch.zeros(1, 320))
    assert mel.min() >= math.log(1e-5) - 1e-5
    assert mel.max() < math.log(1e-3)


def test_mel_scale_and_its_inverse():
    hz = torch.linspace(0, 12000, 997, dtype=torch.float64)
    expected = torch.tensor([slaney(f) for f in hz.tolist()]).double()
    torch.testing.assert_close(hz_to_mel(hz), expected, rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(mel_to_hz(hz_to_mel(hz)), hz)


def test_filters_have_unit_area():
    """The integral of every filter over frequency is 1, in finer and finer
    bins."""
    n_fft = 1 << 16
    filters = mel_filterbank(24000, n_fft, 40, 50.0, 11000.0)
    area = filters.sum(1) * 24000 / n_fft
    torch.testing.assert_close(area, torch.ones(40), rtol=1e-3, atol=0)


def test_filters_meet_at_their_corners():
    f_min, f_max, n_mels, n_fft = 100.0, 7000.0, 20, 1 << 14
    filters = mel_filterbank(16000, n_fft, n_mels, f_min, f_max).double()
    mels = np.linspace(slaney(f_min), slaney(f_max), n_mels + 2)
    corners = np.array([slaney_inverse(m) for m in mels])
    hz = np.arange(n_fft // 2 + 1) * 16000 / n_fft
    for filter_, low, centre, high in zip(
        filters.numpy(), corners, corners[1:], corners[2:], strict=False
    ):
        assert not filter_[(hz <= low) | (hz >= high)].any()
        assert (filter_[(hz > low + 1e-3) & (hz < high - 1e-3)] > 0).all()
        assert abs(hz[filter_.argmax()] - centre) <= 16000 / n_fft
    # before scaling to unit area, neighbours share every frequency
    heights = torch.tensor(corners[2:] - corners[:-2]) / 2
    total = (filters * heights[:, None]).sum(0).numpy()
    inside = (hz >= corners[1]) & (hz <= corners[-2])
    np.testing.assert_allclose(total[inside], 1.0, atol=1e-5)


@pytest.mark.parametrize("samples", [1, 2, 511, 512, 513, 1023, 1025, 5000])
def test_frames_are_hops_begun(samples):
    expected = num_frames(samples, 512)
    mel = LogMel(MelSettings(n_mels=20))(noise(0, 1, samples))
    assert mel.shape == (1, expected, 20) and mel.isfinite().all()


@pytest.mark.parametrize("width", [1, 31, 32, 33, 500, 777])
def test_padding_and_batching_change_no_valid_frame(width):
    features = LogMel(SMALL)
    lengths = torch.tensor(sorted({1, (width + 1) // 2, width}))
    wav = noise(width, len(lengths), width)
    wav = wav * length_mask(lengths, width)
    # the batch as it is, and wider than its longest item
    for extra in (0, 45):
        padded = torch.nn.functional.pad(wav, (0, extra))
        batch = features(padded, lengths)
        for item, mel, length in zip(wav, batch, lengths, strict=True):
            single = features(item[None, :length])[0]
            torch.testing.assert_close(
                mel[: len(single)], single, rtol=0, atol=1e-5
            )


def test_lengths_that_fill_the_batch_may_be_left_out():
    wav = noise(0, 2, 300)
    features = LogMel(SMALL)
    lengths = torch.tensor([300, 300])
    torch.testing.assert_close(features(wav, lengths), features(wav))


def test_log_mel_has_gradients_everywhere():
    wav = torch.zeros(1, 200, requires_grad=True)
    LogMel(SMALL)(wav).sum().backward()
    assert wav.grad.isfinite().all()


@pytest.mark.parametrize("shape", [(100,), (1, 0), (1, 1, 100)])
def test_signals_of_a_wrong_shape_are_refused(shape):
    with pytest.raises(ValueError, match="B, T"):
        LogMel(SMALL)(torch.zeros(shape))


@pytest.mark.parametrize(
    "changes, message",
    [
        (dict(win_length=0), "win_length"),
        (dict(win_length=4096), "win_length"),
        (dict(hop_length=511), "even"),
        (dict(hop_length=4096), "not negative"),
        (dict(f_min=-1.0), "f_min"),
        (dict(f_min=9000.0, f_max=8000.0), "f_max=8000"),
        (dict(f_max=12001.0), "sample_rate / 2"),
    ],
)
def test_impossible_settings_are_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        MelSettings(**changes)


def test_settings_know_their_defaults():
    settings = MelSettings(sample_rate=16000, hop_length=320)
    assert settings.f_max == 8000 and settings.frame_rate == 50
    assert MelSettings(f_max=12000) == MelSettings() == MelSettings(f_max=12e3)


def test_different_settings_are_named():
    settings = MelSettings()
    settings.check_same(MelSettings(f_max=12000.0))
    with pytest.raises(MelMismatchError, match="n_mels") as error:
        settings.check_same(MelSettings(n_mels=80), names=("codec", "vocoder"))
    text = str(error.value)
    assert "codec" in text and "'n_mels': 128" in text
    assert "vocoder" in text and "'n_mels': 80" in text
    assert "differ in n_mels:" in text


@pytest.mark.parametrize(
    "changes",
    [
        dict(f_max=11000),
        dict(f_max=11000.5),
        dict(sample_rate=22050),
        dict(n_mels=80),
        dict(hop_length=256),
        dict(f_min=30.0),
    ],
)
def test_weights_of_another_front_end_are_refused(changes):
    mine, other = MelSettings(), MelSettings(**changes)
    model = torch.nn.ModuleDict({"features": LogMel(mine)})
    weights = torch.nn.ModuleDict({"features": LogMel(other)}).state_dict()
    with pytest.raises(MelMismatchError) as error:
        model.load_state_dict(weights)
    text = str(error.value)
    for name in changes:
        assert f"'{name}': {getattr(mine, name)}" in text
        assert f"'{name}': {getattr(other, name)}" in text


def test_weights_of_the_same_front_end_load():
    whole, fraction = MelSettings(f_max=11000), MelSettings(f_max=11000.0)
    LogMel(whole).load_state_dict(LogMel(fraction).state_dict())
    LogMel(fraction).load_state_dict(LogMel(whole).state_dict())


def test_edges_given_as_whole_numbers_are_compared_as_they_are():
    weights = LogMel(MelSettings(f_min=0.5, f_max=11000.5)).state_dict()
    with pytest.raises(MelMismatchError, match="11000.5"):
        LogMel(MelSettings(f_min=0, f_max=11000)).load_state_dict(weights)


def test_record_of_the_front_end_is_required():
    features = LogMel(SMALL)
    assert list(features.state_dict()) == ["settings_record"]
    with pytest.raises(RuntimeError, match="settings_record"):
        features.load_state_dict({})


def test_normaliser_and_its_inverse():
    normalizer = MelNormalizer(-5.3, 2.1)
    mel = noise(0, 2, 7, 5) * 2.1 - 5.3
    torch.testing.assert_close(
        normalizer(mel), (mel + 5.3) / 2.1, atol=1e-6, rtol=1e-6
    )
    torch.testing.assert_close(normalizer.denormalize(normalizer(mel)), mel)
    copy = MelNormalizer()
    copy.load_state_dict(normalizer.state_dict())
    assert torch.equal(copy(mel), normalizer(mel))


@pytest.mark.parametrize(
    "mean, std",
    [(0.0, 0.0), (0.0, -1.0), (math.nan, 1.0), (0.0, math.inf)],
)
def test_impossible_statistics_are_refused(mean, std):
    with pytest.raises(ValueError, match="std > 0"):
        MelNormalizer(mean, std)


def test_running_statistics_equal_those_of_the_whole():
    values = 1e4 + noise(0, 1000).double().numpy()
    statistics = RunningStatistics()
    for chunk in np.split(values, [1, 1, 17, 400]):
        statistics.update(torch.from_numpy(chunk).reshape(-1, 1))
    assert statistics.count == 1000
    assert statistics.mean == pytest.approx(values.mean(), rel=1e-12)
    assert statistics.std == pytest.approx(values.std(), rel=1e-9)


def test_no_values_have_no_spread():
    with pytest.raises(ValueError, match="no values"):
        _ = RunningStatistics().std
