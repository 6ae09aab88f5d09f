"""SpeechBrain models that hear what can be known: levels of a signal.

A recogniser here hears a word every quarter of a second: "speech" or
"silence". A speaker encoder embeds the mean of each half of a signal. Both
come as folders that SpeechBrain loads.
"""

from types import SimpleNamespace

import numpy as np
import torch
from torch import nn

BLOCK = 4000  # samples of a word, at 16 kHz
WORDS = ["silence", "speech"]

_PARTS = {
    "EncoderASR": """
tokenizer: !new:evaluation_speech_models.Tokenizer
decoding_function: !name:evaluation_speech_models.decode
    threshold: 0.01
modules:
    encoder: !new:evaluation_speech_models.Levels
""",
    "EncoderDecoderASR": """
tokenizer: !new:evaluation_speech_models.Tokenizer
modules:
    encoder: !new:evaluation_speech_models.Levels
    decoder: !new:evaluation_speech_models.Decoder
""",
    "WhisperASR": """
language: en
sample_rate: 16000
normalized_transcripts: {normalized}
whisper: !new:evaluation_speech_models.Whisper
modules:
    whisper: !ref <whisper>
    decoder: !new:evaluation_speech_models.Decoder
""",
    "EncoderClassifier": """
modules:
    compute_features: !new:evaluation_speech_models.Levels
    mean_var_norm: !new:evaluation_speech_models.Same
    embedding_model: !new:evaluation_speech_models.Halves
    classifier: !new:torch.nn.Identity
""",
}


def make_speech_model(folder, kind, normalized=False):
    """Writes a model folder.

    Arguments
    ---------
    folder : Path
        Made.
    kind : str
        Class of SpeechBrain's interfaces that it is for.
    normalized : bool
        Whether a Whisper makes its words plain.

    Returns
    -------
    str
        The folder, a source for `from_hparams`.
    """
    folder.mkdir()
    (folder / "hyperparams.yaml").write_text(
        "pretrainer: !new:speechbrain.utils.parameter_transfer.Pretrainer\n"
        + _PARTS[kind].replace("{normalized}", str(normalized))
    )
    return str(folder)


class Levels(nn.Module):
    """[B, T] -> RMS level of blocks, [B, N, 1]."""

    def forward(self, wavs, wav_lens=None):
        """Levels of whole blocks."""
        blocks = wavs.unfold(1, BLOCK, BLOCK)
        return blocks.square().mean(2, keepdim=True).sqrt()


def decode(levels, wav_lens=None, threshold=0.01):
    """Token of each block."""
    return (levels[..., 0] > threshold).long().tolist()


class Decoder(nn.Module):
    """Like SpeechBrain's searchers: tokens come first of four."""

    def forward(self, levels, wav_lens):
        """Tokens, and what nobody asks for."""
        return decode(levels), None, None, None


class Tokenizer:
    """Like SentencePiece."""

    def decode_ids(self, tokens):
        """Text of tokens."""
        return " ".join(WORDS[token] for token in tokens)


class WhisperTokenizer:
    """Like the one of transformers."""

    def decode(self, tokens, skip_special_tokens):
        """Text of tokens."""
        assert skip_special_tokens
        return " " + Tokenizer().decode_ids(tokens)

    def normalize(self, text):
        """Plain text."""
        return text.upper()


class Whisper(nn.Module):
    """Like SpeechBrain's Whisper."""

    def __init__(self):
        super().__init__()
        self.tokenizer = WhisperTokenizer()
        self.levels = Levels()

    def _get_mel(self, wavs):
        return wavs

    def forward_encoder(self, wavs):
        """Levels."""
        return self.levels(wavs)


class Same(nn.Module):
    """Features as they are."""

    def forward(self, features, lengths):
        """The features."""
        return features


class Halves(nn.Module):
    """[B, N, 1] -> means of both halves, [B, 1, 2]."""

    def forward(self, features, lengths):
        """An embedding."""
        halves = features[..., 0].chunk(2, dim=1)
        return torch.stack([half.mean(1) for half in halves], -1)[:, None]


def blocks_of(words, seed=0):
    """A signal in which a recogniser hears given words.

    Arguments
    ---------
    words : str
        Of `WORDS`.
    seed : int
        Of the noise that stands for speech.

    Returns
    -------
    numpy.ndarray
        float64 [T] at 16 kHz.
    """
    noise = np.random.default_rng(seed).normal(size=(len(words.split()), BLOCK))
    gains = [[0.1 * WORDS.index(word)] for word in words.split()]
    return (noise * gains).ravel()


def fake_pocketsphinx(calls):
    """A module in the place of PocketSphinx.

    Arguments
    ---------
    calls : list
        Gets what the decoder is made with and asked for.

    Returns
    -------
    types.SimpleNamespace
    """

    class FakeDecoder:
        def __init__(self, **options):
            calls.append(options)

        def reinit_feat(self):
            calls.append("reinit_feat")

        def start_utt(self):
            calls.append("start_utt")

        def process_raw(self, data, full_utt):
            assert full_utt
            self.samples = np.frombuffer(data, np.int16)
            calls.append(len(self.samples))

        def end_utt(self):
            calls.append("end_utt")

        def hyp(self):
            blocks = torch.from_numpy(self.samples / 32768)[None]
            (tokens,) = decode(Levels()(blocks))
            if not any(tokens):
                return None
            return SimpleNamespace(hypstr=Tokenizer().decode_ids(tokens))

    return SimpleNamespace(Decoder=FakeDecoder)
