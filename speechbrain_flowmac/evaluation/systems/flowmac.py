"""The codec of this project, through its bitstream."""

import io
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

import speechbrain_flowmac
from speechbrain_flowmac import lobes
from speechbrain_flowmac.bitstream import BitstreamReader, read_tokens
from speechbrain_flowmac.commands.coding import DEFAULT_MODEL
from speechbrain_flowmac.evaluation.systems.base import (
    Coded,
    Family,
    System,
    UnavailableError,
    digest,
    file_digest,
    first_line,
)
from speechbrain_flowmac.inference import FlowMACCodec
from speechbrain_flowmac.models.loading import (
    HPARAMS_FILE,
    MODULE_NAMES,
    ModelError,
    ModelNotFoundError,
    get_file,
)

STRENGTHS = ("temperature", "guidance", "rescale", "spread")
"""Of sampling, in `lobes.sampling`; in options and labels if not the model's."""


@dataclass(frozen=True)
class Samples:
    """A signal [T] in memory, with what the codec asks of an audio file."""

    signal: np.ndarray
    num_channels: int = 1

    @property
    def num_samples(self):
        """T."""
        return len(self.signal)

    def blocks(self):
        """Yields the signal, float32 [1, T]."""
        yield torch.from_numpy(self.signal).float().unsqueeze(0)


class FlowMACSystem(System):
    """A FlowMAC model at a number of codebooks.

    Arguments
    ---------
    name : str
        As it is asked for.
    codebooks : int or None
        1..K; None for all.
    steps, solver : int or str or None
        See `lobes.solvers.SOLVERS`; None for the model's own.
    model : str
        Built-in name, folder or Hub id.
    seed : int
        Of the noise that decoding starts from.
    rate : float or None
        Of merged frames, Hz; None for the model's own.
    **strengths
        Those of `STRENGTHS` that are not the model's own.

    Example
    -------
    >>> system = FlowMACSystem("flowmac:4", codebooks=4, steps=2)
    >>> system.label
    'FlowMAC 1.5 kbps, 2 steps'
    >>> system.options
    {'codebooks': 4, 'steps': 2, 'solver': 'euler'}
    """

    def __init__(
        self,
        name,
        codebooks=None,
        steps=None,
        solver=None,
        model=DEFAULT_MODEL,
        seed=0,
        rate=None,
        **strengths,
    ):
        try:
            self.network = FlowMACCodec.from_hparams(source=model)
            weights = _digest_model(model)
        except (ModelNotFoundError, ModelError) as error:
            raise UnavailableError(f"{name}: {first_line(error)}") from error
        self.name = name
        self.sample_rate = self.network.sample_rate
        changes = {"n_steps": steps, "solver": solver, **strengths}
        self.decoding = {"seed": seed, **changes}
        self.merging = {"frame_rate": rate}
        try:
            merging = self.network.merging(**self.merging)
            sampling = self.network.sampling(**changes)
            quantizer = self.network.codec.quantizer
            self.codebooks = quantizer.check_num_codebooks(codebooks)
        except ValueError as error:
            raise ValueError(f"{name!r}: {error}") from None
        self.options = {
            "codebooks": self.codebooks,
            "steps": sampling.n_steps,
            "solver": type(sampling.solver).__name__.lower(),
        }
        own = self.network.sampling()
        for strength in STRENGTHS:
            value = getattr(sampling, strength)
            if value != getattr(own, strength):
                self.options[strength] = value
        if merging is not None:
            self.options["rate"] = merging.frame_rate
        self.label = self._label(solver, model, seed)
        self.fingerprint = digest(
            speechbrain_flowmac.__version__,
            _digest_code(),
            torch.__version__,
            weights,
            self.options,
            seed,
        )

    def _label(self, solver, model, seed):
        """Rate and steps, and what else is not as it comes."""
        steps = self.options["steps"]
        rate = self.options.get("rate")
        bits = self.network.bit_rate(self.codebooks, rate)
        parts = [
            f"FlowMAC {bits / 1000:.1f} kbps",
            f"{steps} step" + "s" * (steps != 1),
        ]
        if rate is not None:
            parts.append(f"{rate:g} Hz")
        if solver is not None:
            parts.append(solver)
        parts += [
            f"{name} {self.options[name]:g}"
            for name in STRENGTHS
            if name in self.options
        ]
        if model != DEFAULT_MODEL:
            parts.append(Path(model).name)
        if seed:
            parts.append(f"seed {seed}")
        return ", ".join(parts)

    def encode_batch(self, wavs):
        """Codes waveforms, float32 [B, T], to indices, int64 [B, N, K]."""
        return self.network.encode_frames(
            wavs, num_codebooks=self.codebooks, **self.merging
        )[0]

    def decode_batch(self, codes):
        """Decodes indices, int64 [B, N, K], to float32 [B, about T]."""
        return self.network.decode_batch(codes, **self.decoding)

    def encode(self, recording):
        """Writes an `.fmac` stream; without its headers and checksums, it is
        the payload."""
        file = io.BytesIO()
        summary = self.network.write_stream(
            Samples(recording.signal), file, self.codebooks, **self.merging
        )
        return Coded(file.getvalue(), 8 * summary.payload_bytes)

    def decode(self, coded, recording):
        """Reads the stream, float64 [T]."""
        blocks = self.network.read_stream(
            BitstreamReader(io.BytesIO(coded.data)), **self.decoding
        )
        return np.concatenate(list(blocks))[:, 0].astype(np.float64)

    def tokens(self, coded):
        """Indices [N, K] and the codebook size."""
        _, tokens, _ = read_tokens(io.BytesIO(coded.data))
        return tokens[0], self.network.codebook_size


def _seed(text):
    """An integer that is not negative, as noise wants it."""
    if not text.isdecimal():
        raise ValueError(text)
    return int(text)


def _digest_model(model):
    """SHA-256 of the files of a model."""
    names = [HPARAMS_FILE, *(f"{name}.safetensors" for name in MODULE_NAMES)]
    return [file_digest(get_file(model, name)) for name in names]


def _digest_code():
    """SHA-256 of the code that a waveform passes: a version has many states
    while it is worked on, and a cache must not take one for another."""
    package = Path(speechbrain_flowmac.__file__).parent
    modules = ("chunking", "codec", "dynamic_codec", "inference", "stream")
    paths = [
        *(package / f"{module}.py" for module in modules),
        *sorted((package / "bitstream").glob("*.py")),
        *sorted(Path(lobes.__file__).parent.glob("*.py")),
    ]
    return [file_digest(path) for path in paths]


FAMILIES = {
    "flowmac": Family(
        "flowmac[:CODEBOOKS][:steps=N][:solver=NAME][:temperature=X]"
        "[:guidance=W][:rescale=X][:spread=X][:model=MODEL][:seed=N]"
        "[:rate=HZ], where MODEL is a built-in name, a folder or a Hub id, "
        "without ':', and HZ the frame rate of one whose rate is dynamic",
        FlowMACSystem,
        int,
        {
            "steps": int,
            "solver": str,
            "model": str,
            "seed": _seed,
            **dict.fromkeys(("rate", *STRENGTHS), float),
        },
        required=False,
    )
}
