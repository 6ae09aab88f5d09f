"""The pretrained codec: waveforms, tokens and `.fmac` files.

Shapes: B items, T samples, N token frames, K codebooks, C entries, H width.
With a dynamic frame rate, tokens are those of frames of time wherever no
durations are beside them.
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
from speechbrain_flowmac.lobes.merging import Merging
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
        """C, of the largest codebook."""
        return self.codec.quantizer.codebook_size

    @property
    def codebook_sizes(self):
        """C of each codebook: a semantic one may be larger than the rest."""
        return self.codec.quantizer.codebook_sizes

    @property
    def code_bits(self):
        """Bits that a token of each codebook takes in a stream."""
        return [(size - 1).bit_length() for size in self.codebook_sizes]

    @property
    def bits_per_code(self):
        """Bits that a token takes in a stream, of all codebooks but the first
        where that is a semantic one."""
        return self.code_bits[-1]

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

    def bit_rate(self, num_codebooks=None, merged_rate=None):
        """Payload bits per second of one channel.

        Arguments
        ---------
        num_codebooks : int or None
            None for all.
        merged_rate : float or None
            Frames in a second once they are merged, where they are; None for
            all frames, the most that there can be.

        Returns
        -------
        float
        """
        count = self.codec.quantizer.check_num_codebooks(num_codebooks)
        rate = self.frame_rate if merged_rate is None else merged_rate
        # a bit for each frame of time says whether it is new
        marks = 0.0 if self.codec.merging is None else self.frame_rate
        return rate * sum(self.code_bits[:count]) + marks

    def _on_device(self, x):
        return x.to(next(self.mods.parameters()).device)

    # Batches

    @torch.no_grad()
    def encode_batch(self, wavs, wav_lens=None, num_codebooks=None, **merging):
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
        **merging
            Of a codec with a dynamic frame rate, merging_threshold (-1..1)
            or frame_rate (Hz, at most); None for the model's own.

        Returns
        -------
        tuple of torch.Tensor
            Tokens, int64 [B, N, num_codebooks], 0 past an item's end, and
            exact numbers of frames, int64 [B]. Of a codec with a dynamic
            frame rate, tokens of merged frames and their durations in frames,
            int64 [B, N]. `decode_batch` takes either pair.
        """
        changed = self.merging(**merging)
        if changed is None:
            return self.encode_frames(wavs, wav_lens, num_codebooks)
        signals = self._admit_signals(wavs, wav_lens, num_codebooks)
        return self.codec.encode_merged(*signals, num_codebooks, changed)

    @torch.no_grad()
    def encode_frames(self, wavs, wav_lens=None, num_codebooks=None, **merging):
        """Waveforms to tokens, one for each frame of time.

        Arguments
        ---------
        wavs, wav_lens, num_codebooks, **merging
            As for `encode_batch`.

        Returns
        -------
        tuple of torch.Tensor
            Tokens [B, N, num_codebooks] and numbers of frames [B], whatever
            the codec: merged frames are repeated.
        """
        changed = self.merging(**merging)
        options = {} if changed is None else {"merging": changed}
        signals = self._admit_signals(wavs, wav_lens, num_codebooks)
        return self.codec.encode(*signals, num_codebooks, **options)

    @torch.no_grad()
    def get_semantic_features(self, wavs, wav_lens=None):
        """What the recogniser of a semantic stream knows of each frame.

        Arguments
        ---------
        wavs, wav_lens
            As for `encode_batch`.

        Returns
        -------
        tuple of torch.Tensor
            Features [B, N, D], 0 past an item's end, and exact numbers of
            frames, int64 [B].
        """
        if self.codec.merging is None:
            raise ValueError("this codec has no semantic stream")
        return self.codec.semantic_features(
            *self._admit_signals(wavs, wav_lens)
        )

    def _admit_signals(self, wavs, wav_lens, num_codebooks=None):
        self.codec.quantizer.check_num_codebooks(num_codebooks)
        wavs, num_samples = admit_signals(wavs, wav_lens)
        return self._on_device(wavs), self._on_device(num_samples)

    def merging(self, **changes):
        """The model's way of merging frames, with changes.

        Arguments
        ---------
        **changes
            As for `encode_batch`.

        Returns
        -------
        Merging or None
            None where the frame rate is fixed.
        """
        changed = Merging().with_changes(**changes) != Merging()
        if self.codec.merging is not None:
            return self.codec.merging.with_changes(**changes)
        if changed:
            raise ValueError(
                "this codec has a fixed frame rate, found "
                f"{', '.join(changes)}: only one with a dynamic frame rate "
                "merges frames"
            )
        return None

    @torch.no_grad()
    def decode_batch(self, tokens, lengths=None, seed=0, **changes):
        """Tokens to waveforms.

        Arguments
        ---------
        tokens : torch.Tensor
            Integers in 0..C-1, shape [B, N, k], any k up to K.
        lengths : torch.Tensor or None
            Exact numbers of frames, integers, or relative ones, floats in
            (0, 1], shape [B]; None if all are N. Or durations of merged
            frames, integers [B, N]: N is then the longest of their sums.
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
        tokens, frames = admit_tokens(tokens, lengths, self.codebook_sizes)
        tokens, frames = self._on_device(tokens), self._on_device(frames)
        full = bool((frames == tokens.shape[1]).all())
        return tokens, None if full else frames

    def forward(self, wavs, wav_lens=None):
        """Tokens [B, N, K] of frames of time, their embeddings [B, N, H]."""
        tokens, _ = self.encode_frames(wavs, wav_lens)
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
            int64, shape [B, N, num_codebooks], one for each frame of time.
        """
        return self.encode_frames(signal, lengths, num_codebooks)[0]

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

    def coder(self, **merging):
        """What codes streams with this model, a `StreamCoder`."""
        return StreamCoder(
            self.codec,
            getattr(self.mods, "vocoder", None),
            merging=self.merging(**merging),
        )

    def encode_file(self, path, num_codebooks=None, mix=True, **merging):
        """Audio file to tokens.

        Arguments
        ---------
        path : str
            Any file that libsndfile reads, at any rate.
        num_codebooks : int or None
            None for all.
        mix : bool
            Mix channels down; otherwise code each.
        **merging
            As for `encode_batch`.

        Returns
        -------
        torch.Tensor
            int64, shape [channels, N, K], one for each frame of time.
        """
        coder = self.coder(**merging)
        with open_audio(path, self.sample_rate, mix) as audio:
            blocks = map(self._on_device, audio.blocks())
            parts = coder.encode(blocks, num_codebooks)
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
            first_code_bits=self._first_code_bits,
            runs=self.codec.merging is not None,
        )

    @property
    def _first_code_bits(self):
        """As a header states it."""
        first, *_, last = [*self.code_bits, self.code_bits[-1]]
        return 0 if first == last else first

    def write_stream(
        self, audio, file, num_codebooks=None, progress=None, **merging
    ):
        """Codes audio into an open file.

        Arguments
        ---------
        audio : AudioReader
            From `open_audio`.
        file, progress
            As for `stream.write_stream`.
        num_codebooks : int or None
            None for all.
        **merging
            As for `encode_batch`.

        Returns
        -------
        StreamSummary
        """
        header = self.header(audio.num_channels, num_codebooks)
        coder = self.coder(**merging)
        return write_stream(coder, audio, file, header, progress)

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
            (
                "bits per code of the first codebook",
                header.code_bits[0],
                self.code_bits[0],
            ),
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

    def compress(self, source, target, num_codebooks=None, mix=True, **merging):
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
        **merging
            As for `encode_batch`.

        Returns
        -------
        StreamSummary
            With length and sizes.
        """
        with open_audio(source, self.sample_rate, mix) as audio:
            with atomic_write(target) as file:
                summary = self.write_stream(
                    audio, file, num_codebooks, **merging
                )
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
