"""EnCodec, DAC and Mimi through the package `transformers`.

EnCodec: Défossez et al., 2210.13438; DAC: Kumar et al., 2306.06546; Mimi:
Défossez et al., 2410.00037. Shapes: B items, T samples, N frames, K codebooks.
"""

import hashlib
import json
import math
import struct
from abc import abstractmethod
from pathlib import Path

import numpy as np
import torch
from torch.nn.utils import parametrize

from speechbrain_flowmac.bitstream import pack_codes, unpack_codes
from speechbrain_flowmac.evaluation.systems.base import (
    Coded,
    Family,
    System,
    UnavailableError,
    digest,
    first_line,
    one_of,
    positive,
)

RANDOM = "random"
NUM_FRAMES = struct.Struct(">I")


class TransformersCodec(System):
    """What the codecs have in common: weights, tokens and bits.

    The stream is the number of frames and the packed codes, most significant
    bit first, frame by frame; without that number it is the payload.

    Arguments
    ---------
    name : str
        As it is asked for.
    wanted : int or float or None
        Number of codebooks, None for all; of EnCodec the bandwidth in kbps.
    hub_id : str
        Where the published weights are.
    weights : str or None
        A folder that `save_pretrained` wrote; "random" for untrained ones,
        which serve to measure speed; None for the published ones.
    **published
        Arguments of the published configuration that are not the package's
        defaults; used where weights are random.
    """

    title: str
    """For people."""

    architecture: str
    """Prefix of the package's classes."""

    most = "num_quantizers"
    """What the configuration calls the number of codebooks that there are."""

    def __init__(self, name, wanted, hub_id, weights=None, **published):
        self.name = name
        self.wanted = wanted
        self.hub_id = hub_id
        self.weights = weights
        config = self._config(published)
        self.sample_rate = config.sampling_rate
        self.bits_per_code = (config.codebook_size - 1).bit_length()
        self.codebook_size = config.codebook_size
        # the rate of one codebook, in bits per second
        self.codebook_rate = self.bits_per_code * float(config.frame_rate)
        self.codebooks = self.check(config)
        self.network = self._model(config)
        self.options = {"codebooks": self.codebooks}
        self.label = f"{self.title} {self._kbps():.3g} kbps"
        if weights == RANDOM:
            self.label += " (random weights)"
        self.fingerprint = digest(
            type(self).__name__,
            self._package().__version__,
            torch.__version__,
            config.to_json_string(),
            _digest_state(self.network),
            self.options,
        )

    def check(self, config):
        """The number of codebooks K; ValueError if a model of this
        configuration does not have it."""
        available = getattr(config, self.most)
        if self.wanted is None:
            return available
        if not 1 <= self.wanted <= available:
            raise ValueError(
                f"{self.name!r}: the model has 1..{available} codebooks, "
                f"found {self.wanted}"
            )
        return self.wanted

    @abstractmethod
    def encode_batch(self, wavs):
        """Codes waveforms, float32 [B, T], to indices, int64 [B, N, K]."""

    @abstractmethod
    def decode_batch(self, codes):
        """Decodes indices, int64 [B, N, K], to float32 [B, about T]."""

    def _kbps(self):
        return self.codebooks * self.codebook_rate / 1000

    def _package(self):
        try:
            import transformers
        except ImportError as error:
            raise UnavailableError(
                f"{self.name} needs transformers: pip install transformers"
            ) from error
        return transformers

    def _config(self, published):
        """Configuration of the weights, or of the published ones before they
        are there, so that a name that means nothing is an error anywhere."""
        made = getattr(self._package(), f"{self.architecture}Config")
        if self.weights in (None, RANDOM):
            return made(**published)
        try:
            config = made.from_pretrained(self._folder())
        except Exception as error:  # OSError, ValueError, those of its checks
            raise self._unavailable(self.weights, error) from error
        if config.model_type != made.model_type:
            raise self._unavailable(
                self.weights, f"they are of {config.model_type}"
            )
        return config

    def _folder(self):
        """The folder of local weights; the package would take one that is
        missing for the name of a model on the Hub."""
        if not (Path(self.weights) / "config.json").is_file():
            raise FileNotFoundError("no config.json there")
        return self.weights

    def _model(self, config):
        made = getattr(self._package(), f"{self.architecture}Model")
        if self.weights == RANDOM:
            return _ready(_untrained(made, config))
        source = self.weights or self.hub_id
        self._package().utils.logging.disable_progress_bar()
        try:
            model, report = made.from_pretrained(
                source, output_loading_info=True
            )
        # the Hub's client has an exception for every way of failing
        except Exception as error:
            raise self._unavailable(source, error) from error
        if report["missing_keys"]:
            # they would be random, and not a word said
            raise self._unavailable(
                source, f"they lack {sorted(report['missing_keys'])[0]}"
            )
        return _ready(model)

    def _unavailable(self, source, reason):
        return UnavailableError(
            f"{self.name}: cannot load the weights {source} "
            f"({first_line(reason)}); give a folder with them as "
            f"weights=FOLDER, or weights={RANDOM} to measure speed alone"
        )

    @torch.inference_mode()
    def encode(self, recording):
        """Packs the codes; they are the payload."""
        wav = torch.from_numpy(recording.signal).float().unsqueeze(0)
        codes = self.encode_batch(wav)[0].numpy()
        packed = pack_codes(codes.reshape(-1), self.bits_per_code)
        return Coded(
            NUM_FRAMES.pack(len(codes)) + packed,
            codes.size * self.bits_per_code,
        )

    @torch.inference_mode()
    def decode(self, coded, recording):
        """Decodes the packed codes, float64 [about T]."""
        codes, _ = self.tokens(coded)
        wav = self.decode_batch(torch.from_numpy(codes).unsqueeze(0))[0]
        # what lies beyond the end was padding
        return wav[: len(recording.signal)].numpy().astype(np.float64)

    def tokens(self, coded):
        """Indices [N, K] and the codebook size."""
        (frames,) = NUM_FRAMES.unpack(coded.data[: NUM_FRAMES.size])
        codes = unpack_codes(
            coded.data[NUM_FRAMES.size :],
            self.bits_per_code,
            frames * self.codebooks,
        )
        return codes.reshape(frames, self.codebooks), self.codebook_size


class EnCodec(TransformersCodec):
    """EnCodec at 24 kHz, at a bandwidth of 1.5, 3, 6, 12 or 24 kbps."""

    title = "EnCodec"
    architecture = "Encodec"

    def __init__(self, name, kbps, weights=None):
        super().__init__(name, kbps, "facebook/encodec_24khz", weights)

    def check(self, config):
        """The codebooks of the bandwidth, see `TransformersCodec`."""
        if self.wanted not in config.target_bandwidths:
            rates = ", ".join(f"{x:g}" for x in config.target_bandwidths)
            raise ValueError(
                f"{self.name!r}: the bit rates in kbps are {rates}"
            )
        if (
            config.normalize
            or config.chunk_length_s
            or config.audio_channels > 1
        ):
            # such as the one at 48 kHz
            raise ValueError(
                f"{self.name!r}: only mono models that code a whole signal "
                "at its own level are known here"
            )
        return int(1000 * self.wanted // self.codebook_rate)

    def encode_batch(self, wavs):
        """See `TransformersCodec`."""
        coded = self.network.encode(wavs.unsqueeze(1), bandwidth=self.wanted)
        return coded.audio_codes[0].mT

    def decode_batch(self, codes):
        """See `TransformersCodec`."""
        decoded = self.network.decode(codes.mT.unsqueeze(0), [None])
        return decoded.audio_values[:, 0]


class DAC(TransformersCodec):
    """Descript's codec at 16 or 24 kHz, at a number of codebooks."""

    MODELS = {
        "16khz": {"sampling_rate": 16000, "n_codebooks": 12},
        "24khz": {"sampling_rate": 24000, "n_codebooks": 32},
    }
    architecture = "Dac"
    most = "n_codebooks"

    def __init__(self, name, model, codebooks=None, weights=None):
        self.title = f"DAC {model.removesuffix('khz')} kHz"
        super().__init__(
            name,
            codebooks,
            f"descript/dac_{model}",
            weights,
            downsampling_ratios=[2, 4, 5, 8],
            **self.MODELS[model],
        )

    def encode_batch(self, wavs):
        """See `TransformersCodec`; zeros fill up the last frame, which the
        model would leave out."""
        # not `hop_length`, which published configurations have wrong
        hop = math.prod(self.network.config.downsampling_ratios)
        missing = -wavs.shape[1] % hop
        wavs = torch.nn.functional.pad(wavs, (0, missing))
        coded = self.network.encode(
            wavs.unsqueeze(1), n_quantizers=self.codebooks
        )
        return coded.audio_codes.mT

    def decode_batch(self, codes):
        """See `TransformersCodec`."""
        return self.network.decode(audio_codes=codes.mT).audio_values


class Mimi(TransformersCodec):
    """Mimi, at 1 to 32 codebooks; speech models use 8."""

    title = "Mimi"
    architecture = "Mimi"

    def __init__(self, name, codebooks, weights=None):
        super().__init__(name, codebooks, "kyutai/mimi", weights)

    def encode_batch(self, wavs):
        """See `TransformersCodec`."""
        coded = self.network.encode(
            wavs.unsqueeze(1), num_quantizers=self.codebooks
        )
        return coded.audio_codes.mT

    def decode_batch(self, codes):
        """See `TransformersCodec`."""
        return self.network.decode(codes.mT).audio_values[:, 0]


def _untrained(made, config):
    """A model with random weights, the same each time."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = made(config)
        for name, buffer in model.named_buffers():
            # codebooks that start as zeros would all be one code
            if name.endswith((".embed", ".embed_sum")):
                buffer.normal_()
    return model


def _ready(model):
    """For inference: weight norm, which is for training, is folded."""
    for part in model.modules():
        for name in list(getattr(part, "parametrizations", {})):
            parametrize.remove_parametrizations(part, name)
    return model.eval()


def _digest_state(model):
    digest_ = hashlib.sha256()
    for name, value in sorted(model.state_dict().items()):
        digest_.update(json.dumps([name, str(value.dtype)]).encode())
        digest_.update(value.contiguous().numpy().tobytes())
    return digest_.hexdigest()


_WEIGHTS = f"[:weights=FOLDER|{RANDOM}]"
FAMILIES = {
    "encodec": Family(
        f"encodec:KBPS{_WEIGHTS}, such as encodec:6",
        EnCodec,
        positive,
        {"weights": str},
    ),
    "dac": Family(
        f"dac:{'|'.join(DAC.MODELS)}[:codebooks=K]{_WEIGHTS}",
        DAC,
        one_of(*DAC.MODELS),
        {"codebooks": int, "weights": str},
    ),
    "mimi": Family(
        f"mimi:CODEBOOKS{_WEIGHTS}, such as mimi:8",
        Mimi,
        int,
        {"weights": str},
    ),
}
