"""Models of listeners and recognisers: known values, and what they are fed."""

import math
from types import SimpleNamespace

import numpy as np
import pytest
import soundfile
import soxr
import torch
from evaluation_speech_models import (
    blocks_of,
    fake_pocketsphinx,
    make_speech_model,
)
from evaluation_stand_ins import stand_ins

from speechbrain_flowmac.metrics import (
    METRICS,
    distillmos,
    dnsmos_background,
    dnsmos_overall,
    dnsmos_signal,
    estoi,
    pesq_wb,
    speaker_similarity,
    stoi,
    visqol,
    warpq,
    word_error_rate,
)
from speechbrain_flowmac.metrics.recognition import (
    RECOGNISER_CLASSES,
    RECOGNISER_VARIABLE,
    transcribe,
)
from speechbrain_flowmac.metrics.speaker import SPEAKER_VARIABLE
from speechbrain_flowmac.models.loading import MODELS_FOLDER

RATE = 24000


@pytest.fixture(scope="module")
def speech():
    """Three seconds of speech, float64 at 24 kHz."""
    path = MODELS_FOLDER / "flowmac-24khz-3kbps" / "example.wav"
    signal, rate = soundfile.read(path, frames=3 * RATE)
    assert rate == RATE
    return 0.4 * signal


def _noisy(signal, level):
    noise = np.random.default_rng(0).normal(size=len(signal))
    return signal + level * signal.std() * noise


# Real packages


@pytest.mark.parametrize(
    "name",
    [
        *("pesq", "stoi", "estoi", "visqol", "speaker"),
        *("distillmos", "dnsmos", "dnsmos_sig", "dnsmos_bak"),
    ],
)
def test_more_noise_is_worse(name, speech):
    function = METRICS[name].function
    clear, noisy, lost = (
        function(speech, _noisy(speech, level), RATE) for level in (0, 0.03, 1)
    )
    assert clear > noisy > lost


def test_pesq_of_equal_signals_is_the_top_of_its_scale(speech):
    # P.862.2 maps raw scores, of which 4.5 is the best
    best = 0.999 + 4 / (1 + math.exp(-1.3669 * 4.5 + 3.8224))
    assert pesq_wb(speech, speech, RATE) == pytest.approx(best, abs=1e-3)
    # it brings both to one level
    assert pesq_wb(speech, 0.3 * speech, RATE) == pytest.approx(best, abs=0.01)
    # too short; no speech
    assert math.isnan(pesq_wb(speech[:5000], speech[:5000], RATE))
    assert math.isnan(pesq_wb(speech, 0 * speech, RATE))


@pytest.mark.parametrize("function", [stoi, estoi])
def test_intelligibility_of_equal_signals_is_one(function, speech):
    assert function(speech, speech, RATE) == pytest.approx(1, abs=1e-6)
    assert function(speech, 0.1 * speech, RATE) == pytest.approx(1, abs=1e-6)
    noise = np.random.default_rng(0).normal(size=len(speech))
    assert function(speech, noise, RATE) < 0.5


@pytest.mark.parametrize("function", [stoi, estoi])
def test_intelligibility_of_little_speech_is_not_a_number(function, speech):
    assert math.isnan(function(speech[:9000], speech[:9000], RATE))
    mostly_silent = np.where(np.arange(len(speech)) < 40000, 0, speech)
    mostly_silent[48000:] = 0
    assert math.isnan(function(mostly_silent, speech, RATE))
    click = np.where(np.arange(len(speech)) == 40000, 0.5, 0.0)
    assert math.isnan(function(click, speech, RATE))


def test_visqol_of_equal_signals_is_near_the_top(speech):
    assert 4 < visqol(speech, speech, RATE) < 5
    assert visqol(speech, _noisy(speech, 1), RATE) < 1.5
    assert math.isnan(visqol(speech[:7200], speech[:7200], RATE))


# What `warpq` 1.5.2 of PyPI, with numpy.lib.pad put back, says of the same
# samples at 16 kHz; it rounds
@pytest.mark.parametrize(
    ("level", "expected"), [(0, 0.527), (0.03, 1.651), (0.1, 2.263), (1, 3.236)]
)
def test_warpq_is_that_of_its_authors(level, expected, speech):
    found = warpq(speech, _noisy(speech, level), RATE)
    assert found == pytest.approx(expected, abs=6e-4)


def test_warpq_does_not_mind_delay_or_silence(speech):
    noisy = _noisy(speech, 0.1)
    found = warpq(speech, noisy, RATE)
    for shift in (2400, 12000):
        later = np.pad(noisy, (shift, 0))[: len(noisy)]
        assert warpq(speech, later, RATE) == pytest.approx(found, rel=0.05)
    assert warpq(speech, speech, RATE) < 0.3 * found
    # less than 0.4 s, and no speech
    assert math.isnan(warpq(speech[:8000], speech[:8000], RATE))
    assert math.isnan(warpq(speech, 0 * speech, RATE))


def test_a_speaker_is_like_oneself_and_less_like_a_faster_voice(speech):
    assert speaker_similarity(speech, speech, RATE) == pytest.approx(1)
    assert speaker_similarity(speech, 0.5 * speech, RATE) > 0.95
    faster = np.resize(soxr.resample(speech, 4, 3), len(speech))
    slightly_noisy = _noisy(speech, 0.01)
    near = speaker_similarity(speech, slightly_noisy, RATE)
    assert near > speaker_similarity(speech, faster, RATE) + 0.1


def test_a_recogniser_hears_what_is_left(speech):
    assert word_error_rate(speech, speech, RATE) == 0
    cut = np.where(np.arange(len(speech)) < 0.75 * len(speech), speech, 0)
    assert 20 < word_error_rate(speech, cut, RATE) < 90


def test_what_is_heard_does_not_depend_on_what_was_heard_before(speech):
    first = transcribe(speech, RATE)
    transcribe.forget()
    transcribe(_noisy(speech, 0.1)[:RATE], RATE)
    transcribe(0.1 * speech[:RATE], RATE)
    transcribe.forget()
    assert transcribe(speech, RATE) == first
    assert len(first) > 3


# What packages are fed


@pytest.fixture
def install(monkeypatch):
    """Function that puts a module, or None for none, in place of another."""
    yield from stand_ins(monkeypatch)


def test_visqol_hears_speech_mode_at_16_khz(install):
    calls = []

    class Api:
        def create(self, **options):
            calls.append(options)

        def measure_from_arrays(self, reference, decoded, rate):
            calls.append((len(reference), len(decoded), rate))
            if not decoded.any():
                raise ValueError("too different")
            if decoded[8000] > 1.5:
                raise IndexError("no patches")
            return SimpleNamespace(moslqo=np.float64(3.5))

    install("visqol", SimpleNamespace(VisqolApi=Api))
    ones = np.ones(24000)
    assert visqol(ones, ones, 24000) == 3.5
    assert math.isnan(visqol(ones, 0 * ones, 24000))
    assert math.isnan(visqol(ones, 2 * ones, 24000))
    assert calls == [
        {"mode": "speech", "use_lattice_model": True},
        *3 * [(16000, 16000, 16000)],
    ]


def test_distillmos_hears_the_decoded_at_16_khz(install, capsys):
    class Model(torch.nn.Module):
        def __init__(self):
            super().__init__()
            print("weights loaded")

        def forward(self, wav):
            assert wav.dtype == torch.float32 and wav.shape == (1, 16000)
            assert not self.training
            return 1 + 4 * wav[:, 8000:8001]

    install("distillmos", SimpleNamespace(ConvTransformerSQAModel=Model))
    decoded = np.full(24000, 0.5)
    found = distillmos(np.zeros(24000), decoded, 24000)
    assert found == pytest.approx(3, abs=1e-3)
    assert capsys.readouterr().out == ""


def test_dnsmos_runs_once_for_its_three_scores(install):
    calls = []

    def run(samples, rate):
        calls.append((len(samples), rate))
        assert np.abs(samples).max() <= 1  # it refuses what is louder
        scores = {"ovrl_mos": 3.1, "sig_mos": 3.5, "bak_mos": 4.0}
        return {name: np.float32(score) for name, score in scores.items()}

    install("speechmos", SimpleNamespace())
    install("speechmos.dnsmos", SimpleNamespace(run=run))
    pair = np.zeros(24000), np.full(24000, 1.5)
    assert dnsmos_overall(*pair, 24000) == pytest.approx(3.1)
    assert dnsmos_signal(*pair, 24000) == pytest.approx(3.5)
    assert dnsmos_background(*pair, 24000) == pytest.approx(4.0)
    assert calls == [(16000, 16000)]
    dnsmos_overall(pair[1], pair[0], 24000)
    assert len(calls) == 2


def test_resemblyzer_is_given_what_it_preprocessed(install, monkeypatch):
    class VoiceEncoder:
        def __init__(self, device, verbose):
            assert (device, verbose) == ("cpu", False)

        def embed_utterance(self, speech):
            return np.array([speech.mean(), 0.5], np.float32)

    def preprocess(signal):
        assert len(signal) == 16000
        return signal[signal > 0.1]

    monkeypatch.delenv(SPEAKER_VARIABLE, raising=False)
    install(
        "resemblyzer",
        SimpleNamespace(VoiceEncoder=VoiceEncoder, preprocess_wav=preprocess),
    )
    ones = np.ones(24000)
    # vectors (0.5, 0.5) and (1, 0.5)
    expected = 0.75 / math.sqrt(0.5 * 1.25)
    found = speaker_similarity(0.5 * ones, ones, 24000)
    assert found == pytest.approx(expected, abs=1e-3)
    # no speech, and silence
    assert math.isnan(speaker_similarity(ones, 0.01 * ones, 24000))
    assert math.isnan(speaker_similarity(ones, 0 * ones, 24000))


WORDS = "speech silence speech speech"


def test_pocketsphinx_hears_each_signal_afresh_and_once(install, monkeypatch):
    calls = []
    monkeypatch.delenv(RECOGNISER_VARIABLE, raising=False)
    install("pocketsphinx", fake_pocketsphinx(calls))
    reference = blocks_of(WORDS)
    deaf = blocks_of("silence silence silence silence")
    # one of four words is heard wrong
    decoded = blocks_of("speech speech speech speech", seed=1)
    assert word_error_rate(reference, decoded, 16000) == 25
    assert word_error_rate(reference, reference, 16000) == 0
    # all four deleted
    assert word_error_rate(reference, deaf, 16000) == 100
    one = ["reinit_feat", "start_utt", 16000, "end_utt"]
    options = {"samprate": 16000, "cmn": "batch", "loglevel": "FATAL"}
    assert calls == [options, *3 * one]
    # a recogniser that hears no words in the reference
    assert math.isnan(word_error_rate(1e-3 * reference, reference, 16000))


# SpeechBrain's models in their place


@pytest.mark.parametrize("kind", RECOGNISER_CLASSES)
@pytest.mark.parametrize("normalized", [False, True])
def test_a_speechbrain_recogniser_hears_instead(
    kind, normalized, install, tmp_path, monkeypatch
):
    install("pocketsphinx", None)
    source = make_speech_model(tmp_path / "asr", kind, normalized)
    monkeypatch.setenv(RECOGNISER_VARIABLE, source)
    reference = soxr.resample(blocks_of(WORDS), 16000, 24000)
    expected = WORDS.upper() if kind == "WhisperASR" and normalized else WORDS
    assert transcribe(reference, 24000, source) == expected.split()
    decoded = blocks_of("silence silence speech speech")
    decoded = soxr.resample(decoded, 16000, 24000)
    assert word_error_rate(reference, decoded, 24000) == 25


def test_recognisers_are_remembered_apart(install, tmp_path, monkeypatch):
    install("pocketsphinx", fake_pocketsphinx([]))
    signal = blocks_of(WORDS)
    monkeypatch.delenv(RECOGNISER_VARIABLE, raising=False)
    assert word_error_rate(signal, signal, 16000) == 0
    plain, shouting = (
        make_speech_model(tmp_path / str(loud), "WhisperASR", loud)
        for loud in (False, True)
    )
    assert transcribe(signal, 16000, plain) == WORDS.split()
    assert transcribe(signal, 16000, shouting) == WORDS.upper().split()


def test_a_model_that_transcribes_nothing_is_refused(install, tmp_path):
    source = make_speech_model(tmp_path / "speaker", "EncoderClassifier")
    with pytest.raises(ValueError, match="is none of SpeechBrain's Encoder"):
        transcribe(blocks_of(WORDS), 16000, source)


def test_a_speechbrain_encoder_embeds_instead(install, tmp_path, monkeypatch):
    install("resemblyzer", None)
    source = make_speech_model(tmp_path / "speaker", "EncoderClassifier")
    monkeypatch.setenv(SPEAKER_VARIABLE, source)
    first, last, both = (
        blocks_of(words)
        for words in ("speech silence", "silence speech", "speech speech")
    )
    assert speaker_similarity(first, 0.2 * first, 16000) == pytest.approx(1)
    assert speaker_similarity(first, last, 16000) == pytest.approx(0, abs=1e-6)
    found = speaker_similarity(first, both, 16000)
    assert found == pytest.approx(math.sqrt(0.5), abs=0.01)
    # an embedding of no length has no angle
    assert math.isnan(speaker_similarity(first, 0 * first, 16000))
