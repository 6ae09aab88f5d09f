"""Pictures of the report: levels by definition, scales that are shared."""

import io

import numpy as np
import pytest
from matplotlib.image import imread
from PIL import Image

from speechbrain_flowmac.evaluation import pictures
from speechbrain_flowmac.evaluation.pictures import draw, spectrogram


def noise(seconds=1.0, sample_rate=24000):
    rng = np.random.default_rng(0)
    return 0.1 * rng.standard_normal(round(seconds * sample_rate))


def drawn(*signals, sample_rate=24000):
    """Waveforms [rows, columns, 4] and spectrograms [rows, columns] of grey."""
    found = draw([(signal, sample_rate) for signal in signals])
    return [
        (
            imread(io.BytesIO(waveform)),
            np.asarray(Image.open(io.BytesIO(spectrum)).convert("L"), float),
        )
        for waveform, spectrum in found
    ]


@pytest.mark.parametrize("sample_rate", [24000, 44100])
def test_levels_are_those_of_the_definition(sample_rate):
    signal = noise(sample_rate=sample_rate)
    size = round(0.04 * sample_rate)
    levels = spectrogram(signal, sample_rate)
    # all of column 300, whose middle is the first sample after 300.5 columns
    middle = int(300.5 / 600 * len(signal))
    n = np.arange(size)
    frame = signal[middle - size // 2 :][:size]
    window = 0.5 - 0.5 * np.cos(2 * np.pi * n / (size - 1))
    bins = np.exp(-2j * np.pi * np.outer(np.arange(480), n) / size)
    expected = 20 * np.log10(np.abs(bins @ (window * frame)))
    assert levels.shape == (480, 600)
    np.testing.assert_allclose(levels[:, 300], expected, atol=0.1)


def test_nothing_is_above_half_of_a_low_rate():
    levels = spectrogram(noise(sample_rate=8000), 8000)
    assert levels.shape == (480, 600)
    assert levels[160].mean() > -40 and (levels[161:] == -120).all()


@pytest.mark.parametrize("samples", [1, 2, 599, 601, 961])
def test_short_signals_have_pictures(samples):
    ((waveform, levels),) = drawn(noise()[:samples])
    assert waveform.shape == (97, 600, 4)
    assert levels.shape == (480, 600)


def test_silence_is_a_line_and_dark():
    ((waveform, levels),) = drawn(np.zeros(24000))
    assert (waveform[..., 3].sum(0) == 1).all()
    _, levels = drawn(noise(), np.zeros(24000))[1]
    assert levels.max() < 5


def test_versions_share_their_scales():
    signal = noise()
    (loud, bright), (soft, dim) = drawn(signal, signal / 10)
    heights = [x[..., 3].sum(0).mean() for x in (loud, soft)]
    assert heights[0] > 5 * heights[1]
    # 20 of the 80 dB that are seen
    assert bright.mean() > dim.mean() + 20
    # a version that is alone is as bright as the reference
    assert drawn(signal / 10)[0][1].mean() == pytest.approx(
        bright.mean(), abs=1
    )


def test_a_waveform_is_where_its_samples_are():
    signal = np.zeros(6000)
    signal[1000:2000] = 0.5  # columns 100 to 199, upwards
    ((waveform, _),) = drawn(signal)
    upper = waveform[:48, :, 3].sum(0)
    assert (upper[101:199] == 48).all()
    assert upper[:99].max() == upper[201:].max() == 0
    assert waveform[49:, :, 3].max() == 0
    assert pictures.WAVE_COLOUR == pytest.approx(
        waveform[30, 150, :3], abs=0.01
    )


def test_the_same_signals_give_the_same_bytes():
    assert draw([(noise(), 24000)]) == draw([(noise(), 24000)])
