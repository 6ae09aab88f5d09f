"""Word error rate: what a recogniser no longer hears."""

import importlib
import os
from functools import cache

import numpy as np
import torch
from speechbrain.utils.edit_distance import accumulatable_wer_stats

from speechbrain_flowmac.metrics.metric import intrusive
from speechbrain_flowmac.metrics.packages import optional
from speechbrain_flowmac.metrics.signal_cache import remembered
from speechbrain_flowmac.metrics.signals import WIDEBAND_RATE, wideband

RECOGNISER_PACKAGES = ("pocketsphinx",)
# SpeechBrain model that transcribes, a folder or a Hub id
RECOGNISER_VARIABLE = "FLOWMAC_ASR"
# of speechbrain.inference.ASR, the one that needs most first
RECOGNISER_CLASSES = ("EncoderDecoderASR", "WhisperASR", "EncoderASR")


@intrusive
def word_error_rate(reference, decoded, sample_rate):
    """Word error rate against the recogniser's own words for the reference.

    Its mistakes on the reference thus do not count, only what coding changes,
    and no transcripts are needed. Recordings of few words weigh as much as
    others where the rates of recordings are averaged.

    The recogniser is PocketSphinx with the English model of its package: a
    weak one, misled by what a person would not notice, so it serves to compare
    systems. Set the environment variable FLOWMAC_ASR to a SpeechBrain model of
    16 kHz, a folder or a Hub id (such as
    speechbrain/asr-crdnn-rnnlm-librispeech), for a better one or another
    language. Such a model's YAML can run code: use only what you trust.

    Returns
    -------
    float
        In %, lower is better, above 100 where it hears many more words; NaN
        where it hears none in the reference.
    """
    source = os.environ.get(RECOGNISER_VARIABLE)
    pair = [transcribe(x, sample_rate, source) for x in (reference, decoded)]
    return float(accumulatable_wer_stats(*([words] for words in pair))["WER"])


@remembered
def transcribe(signal, sample_rate, source=None):
    """What a recogniser hears.

    Arguments
    ---------
    signal : numpy.ndarray
        Shape [T].
    sample_rate : int
        In Hz.
    source : str or None
        SpeechBrain model, a folder or a Hub id; None for PocketSphinx.

    Returns
    -------
    list of str
        Words.
    """
    signal = wideband(signal, sample_rate)
    if source:
        wav = torch.from_numpy(signal).float().unsqueeze(0)
        texts, _ = _speechbrain_recogniser(source).transcribe_batch(
            wav, torch.ones(1)
        )
        # Whisper's normaliser returns words
        return texts[0].split() if isinstance(texts[0], str) else texts[0]
    return _pocketsphinx_words(signal)


def _pocketsphinx_words(signal):
    decoder = _pocketsphinx_decoder()
    # its noise tracker remembers earlier signals otherwise
    decoder.reinit_feat()
    samples = np.round(np.clip(signal, -1.0, 1.0) * 32767).astype(np.int16)
    decoder.start_utt()
    decoder.process_raw(samples.tobytes(), full_utt=True)
    decoder.end_utt()
    heard = decoder.hyp()
    return heard.hypstr.split() if heard else []


@cache
def _pocketsphinx_decoder():
    package = optional("pocketsphinx", *RECOGNISER_PACKAGES)
    return package.Decoder(
        samprate=WIDEBAND_RATE,
        cmn="batch",  # of the signal, not of those before it
        loglevel="FATAL",
    )


@cache
def _speechbrain_recogniser(source):
    """A model as what its parts make it."""
    interfaces = importlib.import_module("speechbrain.inference.ASR")
    loaded = interfaces.Pretrained.from_hparams(
        source, run_opts={"device": "cpu"}
    )
    modules, hparams = dict(loaded.mods), vars(loaded.hparams)
    for name in RECOGNISER_CLASSES:
        kind = getattr(interfaces, name)
        if (
            set(kind.MODULES_NEEDED) <= modules.keys()
            and set(kind.HPARAMS_NEEDED) <= hparams.keys()
        ):
            return kind(modules, hparams, run_opts={"device": "cpu"})
    raise ValueError(
        f"{source!r} is none of SpeechBrain's {', '.join(RECOGNISER_CLASSES)}"
    )
