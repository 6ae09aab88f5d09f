"""Work that needs a model: coding and decoding files."""

import sys
import time
from pathlib import Path

from speechbrain_flowmac.commands.messages import samples_bar, speed
from speechbrain_flowmac.console import (
    PIPE,
    UsageError,
    finite_number,
    one_line,
    whole_number,
)

DEFAULT_MODEL = "flowmac-24khz-3kbps"
STREAM_ENDING = ".fmac"
AUDIO_ENDING = ".wav"

# Formats that keep the sample rate and take more than one channel
OUTPUT_ENDINGS = (
    ".wav",
    ".flac",
    ".ogg",
    ".mp3",
    ".aiff",
    ".au",
    ".caf",
    ".rf64",
    ".w64",
)


def check_audio_targets(jobs):
    """Refuses outputs whose ending is no audio format.

    Arguments
    ---------
    jobs : list of Job
        Whose targets are audio.
    """
    for job in jobs:
        if ending_of(job.target).lower() not in OUTPUT_ENDINGS:
            raise UsageError(
                f"cannot write {job.target}, its ending must be one of "
                f"{' '.join(OUTPUT_ENDINGS)}"
            )


def ending_of(target):
    """The ending of an audio output; wav for stdout or if there is none."""
    return Path(target).suffix or AUDIO_ENDING


def load_model(args):
    """The model that the options ask for, with the options checked.

    Arguments
    ---------
    args : argparse.Namespace
        `model`, `device`, `threads`, and what `encode` and `decode` take.

    Returns
    -------
    FlowMACCodec
    """
    import torch

    from speechbrain_flowmac import FlowMACCodec

    if args.threads is not None:
        torch.set_num_threads(args.threads)
    run_opts = {}
    if args.device is not None:
        run_opts["device"] = args.device
        try:
            torch.empty(0, device=args.device)
        except (AssertionError, RuntimeError) as error:
            reason = one_line(error).partition(". ")[0]
            raise UsageError(f"device {args.device!r}: {reason}") from error
    try:
        codec = FlowMACCodec.from_hparams(args.model, run_opts=run_opts)
    except FileNotFoundError as error:
        raise UsageError(one_line(error)) from error
    try:
        if "codebooks" in args:
            codec.bit_rate(args.codebooks)
            codec.merging(**merging_changes(args))
        if "seed" in args:
            # one frame: options that the model cannot do show at once
            frame = torch.zeros(1, 1, 1, dtype=torch.int64)
            codec.decode_batch(frame, **sampling_changes(args))
    except ValueError as error:
        raise UsageError(one_line(error)) from error
    return codec


def sampling_changes(args):
    """Changes to the model's sampling, by their names in `Sampling`."""
    return {
        "n_steps": args.steps,
        "solver": args.solver,
        "temperature": args.temperature,
        "guidance": args.guidance,
        "rescale": args.rescale,
        "spread": args.spread,
    }


def merging_changes(args):
    """Changes to how the model merges frames, by their names in `Merging`."""
    return {
        "merging_threshold": args.merging_threshold,
        "frame_rate": args.frame_rate,
    }


def encode_into(file, codec, source, args):
    """Codes an audio file into an open file.

    Arguments
    ---------
    file : binary file object
        Gets the stream.
    codec : FlowMACCodec
        The model.
    source : str
        Path, or "-" for stdin.
    args : argparse.Namespace
        Options of the encoder.

    Returns
    -------
    tuple
        `StreamSummary`, and a list of what to say about it.
    """
    from speechbrain_flowmac.audio import open_audio

    pipe = sys.stdin.buffer if source == PIPE else None
    mix = args.channels == "mix"
    with (
        open_audio(pipe or source, codec.sample_rate, mix) as audio,
        samples_bar(audio.expected_samples, source) as progress,
    ):
        start = time.perf_counter()
        summary = codec.write_stream(
            audio,
            file,
            args.codebooks,
            progress.update,
            **merging_changes(args),
        )
        notes = [speed("encoded", time.perf_counter() - start, summary)]
        if audio.shortfall:
            notes.append(audio.shortfall)
    return summary, notes


def decode_into(file, target, codec, stream, name, args):
    """Decodes an open stream into an open audio file.

    Arguments
    ---------
    file : binary file object
        Open for writing.
    target : str
        Its path, whose ending says the format, or "-" for stdout.
    codec : FlowMACCodec
        The model.
    stream : binary file object
        Holds the stream.
    name : str
        To show.
    args : argparse.Namespace
        Options of the decoder; `on_damage` if damage may occur.

    Returns
    -------
    tuple
        `StreamSummary`, and a list of what to say about it.
    """
    from speechbrain_flowmac.audio import write_audio
    from speechbrain_flowmac.bitstream import BitstreamReader
    from speechbrain_flowmac.wav_pipe import write_wav

    changes = sampling_changes(args)
    reader = BitstreamReader(stream, getattr(args, "on_damage", "raise"))
    start = time.perf_counter()
    with samples_bar(reader.num_samples, name) as progress:

        def shown(blocks):
            for block in blocks:
                yield block
                progress.update(len(block))

        blocks = codec.read_stream(reader, args.seed, **changes)
        if target == PIPE:
            write_wav(file, reader.header, shown(blocks), reader.num_samples)
        else:
            ending = ending_of(target)
            write_audio(file, ending, reader.header, shown(blocks))
    summary = reader.summary
    count = codec.codec.flow.evaluations(codec.sampling(**changes))
    notes = [
        speed("decoded", time.perf_counter() - start, summary),
        f"{'adaptive' if count is None else count} function "
        f"evaluation{'s' * (count != 1)}",
    ]
    if summary.damaged_chunks:
        notes.append(
            f"{summary.damaged_chunks} of {summary.num_chunks} chunks damaged "
            "and concealed"
        )
    if not summary.complete:
        notes.append("the end is missing")
    return summary, notes


def round_trip(coded, file, target, codec, source, args):
    """Codes and decodes through a real stream.

    Arguments
    ---------
    coded : binary file object
        Empty, for reading and writing; gets the stream.
    file, target, codec, source, args
        As for `encode_into` and `decode_into`.

    Returns
    -------
    tuple
        `StreamSummary`, and a list of what to say about it.
    """
    summary, notes = encode_into(coded, codec, source, args)
    coded.seek(0)
    _, more = decode_into(file, target, codec, coded, source, args)
    return summary, [*notes, *more]


def add_model(parser):
    """Adds the options of the model."""
    group = parser.add_argument_group("model")
    group.add_argument(
        "--model",
        default=DEFAULT_MODEL,
        metavar="SOURCE",
        help="built-in name, folder or Hub id (default: %(default)s)",
    )
    group.add_argument("--device", help="cpu, cuda, cuda:1; default: the best")
    group.add_argument(
        "--threads",
        type=whole_number(1, 1024),
        metavar="N",
        help="CPU threads; default: torch's",
    )


def add_encoder(parser):
    """Adds the options of the encoder."""
    group = parser.add_argument_group("encoder")
    group.add_argument(
        "--codebooks",
        type=whole_number(1, 255),
        metavar="K",
        help="code with the first K codebooks; default: all",
    )
    group.add_argument(
        "--channels",
        choices=("mix", "each"),
        default="mix",
        help="mix channels down, or code each (default: %(default)s)",
    )
    group.add_argument(
        "--frame-rate",
        type=finite_number,
        metavar="HZ",
        help="frames a second at most, of a model that merges frames",
    )
    group.add_argument(
        "--merging-threshold",
        type=finite_number,
        metavar="X",
        help="likeness above which frames merge, -1..1; 1 merges none",
    )


def add_decoder(parser):
    """Adds the options of the decoder."""
    group = parser.add_argument_group("decoder")
    group.add_argument(
        "--steps",
        type=whole_number(0, 100_000),
        metavar="N",
        help="steps of the solver; default: the model's",
    )
    group.add_argument(
        "--solver",
        metavar="NAME",
        help="euler, midpoint, heun or rk4; default: the model's",
    )
    group.add_argument(
        "--temperature",
        type=finite_number,
        metavar="X",
        help="of the noise that sampling starts from; default: the model's",
    )
    group.add_argument(
        "--guidance",
        type=finite_number,
        metavar="W",
        help="scale of classifier-free guidance; default: the model's",
    )
    group.add_argument(
        "--rescale",
        type=finite_number,
        metavar="X",
        help="of the guided field to its spread, 0..1; default: the model's",
    )
    group.add_argument(
        "--spread",
        type=finite_number,
        metavar="X",
        help="how much of the spread that a decoded mel lost it gets back; "
        "0 suits --steps that sample; default: the model's",
    )
    group.add_argument(
        "--seed",
        type=whole_number(0, 2**63 - 1),
        default=0,
        help="of all noise; the same seed gives the same samples",
    )
