"""The pretrained codec: waveforms, tokens and `.fmac` files.

Shapes: B items, T samples, N token frames, K codebooks, C entries, H width.
"""

import warnings
from pathlib import Path

import torch
from speechbrain.dataio.preprocess import AudioNormalizer
from speechbrain.inference.interfaces import Pretrained
from speechbrain.utils.fetching import FetchConfig, LocalStrategy

from speechbrain_flowmac.admission import admit_signals, admit_tokens
from speechbrain_flowmac.audio import open_audio, write_audio
from speechbrain_flowmac.bitstream import BitstreamReader, StreamHeader
from speechbrain_flowmac.files import atomic_write
from speechbrain_flowmac.identity import fingerprint, legacy_fingerprint
from speechbrain_flowmac.models.loading import (
    HPARAMS_FILE,
    MODULE_NAMES,
    build_modules,
    get_file,
    load_weights,
    read_description,
    with_options,
)
from speechbrain_flowmac.stream import (
    Decoder,
    FingerprintMismatchError,
    StreamCoder,
    StreamMismatchError,
    read_stream,
    write_stream,
)


class VocoderNotLoadedError(RuntimeError):
    """Sound was asked of a codec that was loaded without its vocoder."""


class FlowMACCodec(Pretrained):
    """A trained codec with its vocoder.

    Arguments
    ---------
    modules : dict
        `codec` (a `FlowMAC`) and `vocoder`, made for the same mels; without
        a vocoder it codes, and decodes nothing.
    hparams : dict
        The model folder's YAML, loaded.
    **kwargs
        `run_opts` (such as {"device": "cuda"}) and `freeze_params` of
        SpeechBrain's `Pretrained`.

    Example
    -------
    >>> codec = FlowMACCodec.from_hparams(source="flowmac-24khz-3kbps")
    >>> tokens, lengths = codec.encode_batch(torch.randn(1, 24000))
    >>> tokens.shape, lengths.tolist()
    (torch.Size([1, 47, 8]), [47])
    >>> codec.decode_batch(tokens).shape
    torch.Size([1, 24064])
    """

    MODULES_NEEDED = ["codec"]

    def __init__(self, modules=None, hparams=None, **kwargs):
        missing = [n for n in self.MODULES_NEEDED if n not in (modules or {})]
        if missing:
            raise ValueError(f"modules must hold {missing}")
        if "vocoder" in modules:
            modules["codec"].mel_settings.check_same(
                modules["vocoder"].mel_settings, names=("codec", "vocoder")
            )
        super().__init__(modules=modules, hparams=hparams or {}, **kwargs)
        # for `load_audio`; SpeechBrain's default makes 16 kHz of every file
        self.audio_normalizer = AudioNormalizer(self.sample_rate)
        self.train(self.training)

    @classmethod
    def from_hparams(
        cls,
        source,
        hparams_file=HPARAMS_FILE,
        overrides=None,
        overrides_must_match=True,
        savedir=None,
        download_only=False,
        local_strategy=LocalStrategy.COPY,
        fetch_config=FetchConfig(),  # noqa: B008 (frozen, as SpeechBrain has it)
        vocoder=True,
        run_opts=None,
        freeze_params=True,
        **fetch_options,
    ):
        """Loads a model from a folder, the package or the Hub.

        The YAML may only build classes of the codec, weights are safetensors
        and must fit exactly, and a folder never touches the network.

        Arguments
        ---------
        source : str or Path or FetchSource
            Local folder, built-in name, or Hub id. Web addresses are not
            taken.
        hparams_file : str
            Name of the YAML in the source.
        overrides : dict or str or None
            Changes to the YAML: a dict of any values, nested like the YAML,
            or HyperPyYAML. `{"sampling": {"n_steps": 4}}` is one.
        overrides_must_match : bool
            Whether a key that the YAML does not have is a KeyError.
        savedir : str or None
            Where to keep files of a Hub model; None for the Hub's cache.
        download_only : bool
            Only get the files; nothing is built or returned.
        local_strategy : LocalStrategy
            How files get into `savedir`.
        fetch_config : FetchConfig
            SpeechBrain's options for downloads.
        vocoder : bool
            False for tokens alone: the vocoder's weights are not read.
        run_opts : dict or None
            Of SpeechBrain, such as {"device": "cuda"}.
        freeze_params : bool
            Whether the codec is only to be used, not trained.
        **fetch_options
            Fields of `fetch_config` by name: `revision`, `token`,
            `huggingface_cache_dir`, `allow_network`, ...

        Returns
        -------
        FlowMACCodec or None
        """
        fetch_config = with_options(fetch_config, fetch_options)

        def get(filename):
            return get_file(
                source, filename, savedir, local_strategy, fetch_config
            )

        names = MODULE_NAMES if vocoder else MODULE_NAMES[:1]
        described = get(hparams_file)
        if download_only:
            for name in names:
                get(f"{name}.safetensors")
            return None
        description = read_description(described)
        description.override(overrides, overrides_must_match)
        hparams, modules = build_modules(description)
        for name in set(modules) - set(names):
            del hparams[name], modules[name]
        for name, module in modules.items():
            load_weights(module, get(f"{name}.safetensors"))
        return cls(
            modules, hparams, run_opts=run_opts, freeze_params=freeze_params
        )

    def train(self, mode=True):
        """Stays in evaluation mode inside a Brain, unless it is not frozen."""
        frozen = not any(p.requires_grad for p in self.parameters())
        return super().train(mode and not frozen)

    # What it is

    @property
    def codec(self):
        """The `FlowMAC`."""
        return self.mods.codec

    @property
    def vocoder(self):
        """The vocoder."""
        if "vocoder" not in self.mods:
            raise VocoderNotLoadedError(
                "this codec was loaded without its vocoder, for tokens alone"
            )
        return self.mods["vocoder"]

    @property
    def sample_rate(self):
        """In Hz."""
        return self.codec.mel_settings.sample_rate

    @property
    def hop_length(self):
        """Samples per token frame."""
        return self.codec.hop_length

    @property
    def frame_rate(self):
        """Token frames per second."""
        return self.codec.frame_rate

    @property
    def num_codebooks(self):
        """K."""
        return self.codec.quantizer.num_codebooks

    @property
    def codebook_size(self):
        """C."""
        return self.codec.quantizer.codebook_size

    @property
    def bits_per_code(self):
        """Bits that a token takes in a stream."""
        return (self.codebook_size - 1).bit_length()

    @property
    def vocabulary(self):
        """Code vectors after projection, shape [K, C, H]."""
        return self.codec.quantizer.vocabulary

    @property
    def fingerprint(self):
        """32 bytes that tell this codec's tokens from another's.

        They cover front end, encoder and codebooks as they are now; another
        decoder or vocoder for the same tokens does not change them.
        """
        return fingerprint(self.codec.token_state())

    def bit_rate(self, num_codebooks=None):
        """Payload bits per second of one channel.

        Arguments
        ---------
        num_codebooks : int or None
            None for all.

        Returns
        -------
        float
        """
        count = self.codec.quantizer.check_num_codebooks(num_codebooks)
        return self.frame_rate * count * self.bits_per_code

    def _on_device(self, x):
        return x.to(next(self.mods.parameters()).device)

    # Batches

    @torch.no_grad()
    def encode_batch(self, wavs, wav_lens=None, num_codebooks=None):
        """Waveforms to tokens.

        Arguments
        ---------
        wavs : torch.Tensor
            Shape [B, T] or [B, 1, T], at `sample_rate`; see `admission`.
        wav_lens : torch.Tensor or None
            Relative lengths, floats in (0, 1], or exact ones, integers, shape
            [B]; None if all are full.
        num_codebooks : int or None
            Keep the first so many; None for all.

        Returns
        -------
        tuple of torch.Tensor
            Tokens, int64 [B, N, num_codebooks], 0 past an item's end, and
            exact numbers of frames, int64 [B].
        """
        self.codec.quantizer.check_num_codebooks(num_codebooks)
        wavs, num_samples = admit_signals(wavs, wav_lens)
        return self.codec.encode(
            self._on_device(wavs), self._on_device(num_samples), num_codebooks
        )

    @torch.no_grad()
    def decode_batch(self, tokens, lengths=None, seed=0, **changes):
        """Tokens to waveforms.

        Arguments
        ---------
        tokens : torch.Tensor
            Integers in 0..C-1, shape [B, N, k], any k up to K.
        lengths : torch.Tensor or None
            Exact numbers of frames, integers, or relative ones, floats in
            (0, 1], shape [B]; None if all are N.
        seed : int
            Of all noise; the same seed gives the same samples.
        **changes
            To the model's own `Sampling`, such as n_steps (0: the mel
            decoder alone), solver ("euler", "midpoint", "heun", "rk4") and
            guidance; None changes nothing.

        Returns
        -------
        torch.Tensor
            Shape [B, N * hop]; 0 past an item's end.
        """
        tokens, lengths = self.admit_tokens(tokens, lengths)
        sampling = self.sampling(**changes)
        return Decoder(self.codec, self.vocoder, sampling, seed)(
            tokens, lengths
        )

    def sampling(self, **changes):
        """The model's way of sampling, with changes.

        Arguments
        ---------
        **changes
            As for `decode_batch`.

        Returns
        -------
        Sampling
        """
        return self.codec.sampling.with_changes(**changes)

    def admit_tokens(self, tokens, lengths=None):
        """Tokens and lengths as the networks take them, or an error.

        Arguments
        ---------
        tokens, lengths
            As for `decode_batch`.

        Returns
        -------
        tuple
            int64 [B, N, k] and exact numbers of frames, int64 [B], or None
            if all are N.
        """
        tokens, frames = admit_tokens(
            tokens, lengths, self.num_codebooks, self.codebook_size
        )
        tokens, frames = self._on_device(tokens), self._on_device(frames)
        full = bool((frames == tokens.shape[1]).all())
        return tokens, None if full else frames

    def forward(self, wavs, wav_lens=None):
        """Tokens [B, N, K] and their embeddings [B, N, H]."""
        tokens, _ = self.encode_batch(wavs, wav_lens)
        return tokens, self.codec.quantizer.decode(tokens)

    # Tokens for other recipes (the interface of DASB)

    def sig_to_tokens(self, signal, lengths=None, num_codebooks=None, **kwargs):
        """Waveforms to tokens.

        Arguments
        ---------
        signal, lengths
            As for `encode_batch`.
        num_codebooks : int or None
            None for all.
        **kwargs
            Ignored, as the interface asks.

        Returns
        -------
        torch.Tensor
            int64, shape [B, N, num_codebooks].
        """
        return self.encode_batch(signal, lengths, num_codebooks)[0]

    def tokens_to_sig(
        self, tokens, length=None, n_steps=None, solver=None, seed=0, **kwargs
    ):
        """Tokens to waveforms.

        Arguments
        ---------
        tokens, n_steps, solver, seed
            As for `decode_batch`.
        length : torch.Tensor or None
            Its `lengths`. Relative ones may be those of the signal: no frame
            is lost, and at most one is gained.
        **kwargs
            Ignored, as the interface asks.

        Returns
        -------
        torch.Tensor
            Shape [B, N * hop].
        """
        return self.decode_batch(
            tokens, length, n_steps=n_steps, solver=solver, seed=seed
        )

    def get_pretrained_embeddings(
        self, vocab_size=None, num_codebooks=None, **kwargs
    ):
        """Code vectors, codebook by codebook.

        Arguments
        ---------
        vocab_size : int or None
            Must be C if given.
        num_codebooks : int or None
            None for all.
        **kwargs
            Ignored, as the interface asks.

        Returns
        -------
        torch.Tensor
            Shape [num_codebooks * C, H].
        """
        if vocab_size not in (None, self.codebook_size):
            raise ValueError(
                f"vocab_size must be {self.codebook_size}, found {vocab_size}"
            )
        count = self.codec.quantizer.check_num_codebooks(num_codebooks)
        return self.vocabulary[:count].flatten(0, 1)

    # Files

    def coder(self):
        """What codes streams with this model, a `StreamCoder`."""
        return StreamCoder(self.codec, getattr(self.mods, "vocoder", None))

    def encode_file(self, path, num_codebooks=None, mix=True):
        """Audio file to tokens.

        Arguments
        ---------
        path : str
            Any file that libsndfile reads, at any rate.
        num_codebooks : int or None
            None for all.
        mix : bool
            Mix channels down; otherwise code each.

        Returns
        -------
        torch.Tensor
            int64, shape [channels, N, K].
        """
        with open_audio(path, self.sample_rate, mix) as audio:
            blocks = map(self._on_device, audio.blocks())
            parts = self.coder().encode(blocks, num_codebooks)
            return torch.cat([part.cpu() for part in parts], dim=1)

    def header(self, num_channels=1, num_codebooks=None):
        """The header of a stream of this model.

        Arguments
        ---------
        num_channels : int
            1..255.
        num_codebooks : int or None
            None for all.

        Returns
        -------
        StreamHeader
        """
        return StreamHeader(
            fingerprint=self.fingerprint[:8],
            sample_rate=self.sample_rate,
            hop_length=self.hop_length,
            num_channels=num_channels,
            num_codebooks=self.codec.quantizer.check_num_codebooks(
                num_codebooks
            ),
            bits_per_code=self.bits_per_code,
        )

    def write_stream(self, audio, file, num_codebooks=None, progress=None):
        """Codes audio into an open file.

        Arguments
        ---------
        audio : AudioReader
            From `open_audio`.
        file, progress
            As for `stream.write_stream`.
        num_codebooks : int or None
            None for all.

        Returns
        -------
        StreamSummary
        """
        header = self.header(audio.num_channels, num_codebooks)
        return write_stream(self.coder(), audio, file, header, progress)

    def read_stream(self, reader, seed=0, **changes):
        """Decodes an open stream.

        Arguments
        ---------
        reader : BitstreamReader
            Its damaged chunks are concealed if it was told so.
        seed, **changes
            As for `decode_batch`.

        Returns
        -------
        iterator of numpy.ndarray
            float32, shape [n, channels], as `stream.read_stream` has it.
        """
        # before the first block is asked for, so before a file is made
        self.check_stream(reader.header)
        sampling = self.sampling(**changes)
        return read_stream(self.coder(), reader, sampling, seed)

    def check_stream(self, header):
        """Refuses a stream that this model cannot have written.

        A header's checksum only finds accidents: whoever forges one can
        state any rate, so none is taken from it.

        Arguments
        ---------
        header : StreamHeader
            Of the stream.
        """
        ours, theirs = self.fingerprint[:8], header.fingerprint
        # older streams state the hash of the whole codec
        if theirs != ours and theirs != legacy_fingerprint(self.codec)[:8]:
            raise FingerprintMismatchError(
                "the stream was written by another model: its fingerprint is "
                f"{theirs.hex()}, this model's is {ours.hex()}"
            )
        for name, found, ours in (
            ("sample rate", header.sample_rate, self.sample_rate),
            ("hop length", header.hop_length, self.hop_length),
            ("bits per code", header.bits_per_code, self.bits_per_code),
        ):
            if found != ours:
                raise StreamMismatchError(
                    f"the stream says {name} {found}, the model has {ours}"
                )
        if header.num_codebooks > self.num_codebooks:
            raise StreamMismatchError(
                f"the stream has {header.num_codebooks} codebooks, the model "
                f"{self.num_codebooks}"
            )

    def compress(self, source, target, num_codebooks=None, mix=True):
        """Audio file to `.fmac` file.

        Arguments
        ---------
        source : str
            Any file that libsndfile reads, at any rate. Of one that is cut,
            what is there is coded, with a warning.
        target : str
            Written whole or not at all.
        num_codebooks : int or None
            None for all.
        mix : bool
            Mix channels down; otherwise code each.

        Returns
        -------
        StreamSummary
            With length and sizes.
        """
        with open_audio(source, self.sample_rate, mix) as audio:
            with atomic_write(target) as file:
                summary = self.write_stream(audio, file, num_codebooks)
            if audio.shortfall:
                warnings.warn(f"{source}: {audio.shortfall}", stacklevel=2)
        return summary

    def decompress(self, source, target, on_damage="raise", **options):
        """`.fmac` file to audio file.

        Arguments
        ---------
        source : str
            A `.fmac` file.
        target : str
            Its ending says the format (wav, flac, ...); written whole or not
            at all.
        on_damage : str
            "raise", "conceal" or "conceal-all", see `BitstreamReader`.
        **options
            As for `decode_batch`: seed, n_steps, solver, guidance.

        Returns
        -------
        StreamSummary
        """
        with open(source, "rb") as file:
            reader = BitstreamReader(file, on_damage=on_damage)
            blocks = self.read_stream(reader, **options)
            with atomic_write(target) as out:
                write_audio(out, Path(target).suffix, reader.header, blocks)
            return reader.summary
