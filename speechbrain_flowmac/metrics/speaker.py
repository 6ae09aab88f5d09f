"""Speaker similarity: is it still the same voice?"""

import os
import warnings
from functools import cache

import numpy as np
import torch

from speechbrain_flowmac.metrics.metric import intrusive
from speechbrain_flowmac.metrics.packages import optional
from speechbrain_flowmac.metrics.signal_cache import remembered
from speechbrain_flowmac.metrics.signals import wideband

# webrtcvad, which it listens for speech with, asks setuptools for its version
SPEAKER_PACKAGES = ("resemblyzer", "setuptools<82")
# SpeechBrain model that embeds speakers, a folder or a Hub id
SPEAKER_VARIABLE = "FLOWMAC_SPEAKER"


@intrusive
def speaker_similarity(reference, decoded, sample_rate):
    """Cosine of the angle between two embeddings of speakers, at 16 kHz.

    The embeddings are those of Resemblyzer (Wan et al., 1710.10467), whose
    weights are in its package. They are never negative, and neither is their
    cosine. Set the environment variable FLOWMAC_SPEAKER to a SpeechBrain
    model, a folder or a Hub id such as speechbrain/spkrec-ecapa-voxceleb
    (Desplanques et al., 2005.07143), for those of that model, whose cosines
    are lower. Its YAML can run code: use only what you trust.

    Returns
    -------
    float
        -1 to 1, higher is better; NaN where Resemblyzer finds no speech.
    """
    source = os.environ.get(SPEAKER_VARIABLE)
    first, second = (
        embed_speaker(x, sample_rate, source) for x in (reference, decoded)
    )
    if first is None or second is None:
        return float("nan")
    lengths = np.linalg.norm(first) * np.linalg.norm(second)
    return float(first @ second / lengths) if lengths else float("nan")


@remembered
def embed_speaker(signal, sample_rate, source=None):
    """An embedding of the speaker.

    Arguments
    ---------
    signal : numpy.ndarray
        Shape [T].
    sample_rate : int
        In Hz.
    source : str or None
        SpeechBrain model, a folder or a Hub id; None for Resemblyzer.

    Returns
    -------
    numpy.ndarray or None
        float64, shape [E]; None where there is no speech.
    """
    signal = wideband(signal, sample_rate)
    if source:
        wav = torch.from_numpy(signal).float().unsqueeze(0)
        with torch.no_grad():
            embedding = _speechbrain_encoder(source).encode_batch(wav)[0, 0]
        return embedding.double().numpy()
    package, encoder = _resemblyzer()
    # its preprocessing would divide by the level of silence
    speech = package.preprocess_wav(signal) if signal.any() else signal[:0]
    if not len(speech):
        return None
    return encoder.embed_utterance(speech).astype(np.float64)


@cache
def _resemblyzer():
    with warnings.catch_warnings():
        # it imports from a namespace that scipy is giving up
        warnings.simplefilter("ignore", DeprecationWarning)
        package = optional("resemblyzer", *SPEAKER_PACKAGES)
    return package, package.VoiceEncoder("cpu", verbose=False)


@cache
def _speechbrain_encoder(source):
    from speechbrain.inference.classifiers import EncoderClassifier

    return EncoderClassifier.from_hparams(source, run_opts={"device": "cpu"})
