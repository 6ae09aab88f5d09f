"""The command line: `flowmac encode`, `decode`, `reconstruct`, `transcode`,
`info`, `demo`, `export`, `evaluate`, `mushra` and `mushra-results`.

Exit codes: 0 if all went well, 1 if any file failed, 2 for a command that
cannot be carried out as it was given (nothing is touched then), 128 + n when
stopped by signal n. Every error is one line on stderr.

torch is imported only by what needs a model, so `--help` and `info` are
quick.
"""

import argparse
import glob
import json
import os
import shutil
import sys
import tempfile
import time
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

from tqdm import tqdm

from speechbrain_flowmac import __version__
from speechbrain_flowmac.bitstream import (
    BitstreamError,
    BitstreamReader,
    atomic_write,
    transcode,
)
from speechbrain_flowmac.console import (
    PIPE,
    Stopped,
    Stops,
    UsageError,
    audio_endings,
    bar,
    complain,
    finite_number,
    one_line,
    whole_number,
)
from speechbrain_flowmac.evaluation import mushra_command
from speechbrain_flowmac.evaluation.command import add_command

STREAM_ENDING = ".fmac"
AUDIO_ENDING = ".wav"
DEFAULT_MODEL = "flowmac-24khz-3kbps"
EXAMPLE_FILE = "example.wav"

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


class Job(NamedTuple):
    """One file to work on.

    Arguments
    ---------
    source : str
        Path, or "-" for stdin.
    target : str
        Path, or "-" for stdout.
    """

    source: str
    target: str


# Inputs and outputs


def matches(name, endings):
    """Files that an input names, with their paths relative to it.

    Arguments
    ---------
    name : str
        A file, a folder (searched for `endings`) or a pattern.
    endings : set of str
        Lower case, such as ".wav".

    Yields
    ------
    tuple of Path
        The file, and its path relative to the folder, or to the part of the
        pattern that has no wildcards.
    """
    path = Path(name)
    if path.is_dir():
        for found in sorted(path.rglob("*")):
            if found.suffix.lower() in endings and found.is_file():
                yield found, found.relative_to(path)
    elif path.exists():
        yield path, Path(path.name)
    elif glob.has_magic(name):
        fixed = list(path.parts[:-1])
        while any(glob.has_magic(part) for part in fixed):
            fixed.pop()
        root = Path(*fixed)
        for match in sorted(glob.glob(name, recursive=True)):
            for found, _ in matches(match, endings):
                yield found, found.relative_to(root)


def find_inputs(names, endings):
    """All input files, each once.

    Arguments
    ---------
    names : list of str
        Files, folders, patterns, or only "-".
    endings : set of str
        What to look for in folders.

    Returns
    -------
    tuple
        A list of (file, relative path), and whether there can be more than
        one, so that outputs belong into a folder.
    """
    if PIPE in names:
        if len(names) > 1:
            raise UsageError("'-' (stdin) must be the only input")
        return [(Path(PIPE), Path("stdin"))], False
    found = {}
    for name in names:
        here = list(matches(name, endings))
        if not here and Path(name).is_dir():
            raise UsageError(f"nothing to do in folder {name}")
        if not here:
            raise UsageError(f"no such file: {name}")
        for path, relative in here:
            found.setdefault(path.resolve(), (path, relative))
    single = len(names) == 1 and Path(names[0]).exists()
    return list(found.values()), not single or Path(names[0]).is_dir()


def plan(args, endings, ending, beside):
    """What to do for each input, checked before anything is done.

    Arguments
    ---------
    args : argparse.Namespace
        `inputs`, `out` and `overwrite`.
    endings : set of str
        What to look for in folders.
    ending : str
        Of outputs in folders.
    beside : str
        Ending of an output that is written beside its input.

    Returns
    -------
    list of Job
    """
    inputs, many = find_inputs(args.inputs, endings)
    out = args.out
    if out is None and args.inputs == [PIPE]:
        out = PIPE
    if out == PIPE and many:
        raise UsageError("only a single file can go to '-' (stdout)")
    in_folder = out not in (None, PIPE) and (
        many or Path(out).is_dir() or out.endswith(("/", os.sep))
    )
    jobs = []
    for path, relative in inputs:
        if out is None:
            target = str(path.with_suffix(beside))
        elif in_folder:
            target = str(Path(out) / relative.with_suffix(ending))
        else:
            target = out
        jobs.append(Job(str(path), target))
    if in_folder and Path(out).exists() and not Path(out).is_dir():
        raise UsageError(f"several outputs need a folder, {out} is a file")
    check_targets(jobs, args.overwrite)
    if not in_folder and out not in (None, PIPE):
        folder = Path(out).parent
        if not folder.is_dir():
            raise UsageError(f"no such folder: {folder}")
    return jobs


def check_targets(jobs, overwrite):
    """Refuses outputs that would destroy something.

    Arguments
    ---------
    jobs : list of Job
        All jobs of the command.
    overwrite : bool
        Whether files may be replaced (inputs never).
    """
    sources = {Path(job.source).resolve() for job in jobs}
    writers = {}
    for job in jobs:
        if job.target == PIPE:
            if sys.stdout.isatty():
                raise UsageError("will not write binary data to a terminal")
            continue
        target = Path(job.target)
        place = target.resolve()
        other = writers.setdefault(place, job.source)
        if other != job.source:
            raise UsageError(
                f"{other} and {job.source} would both become {target}"
            )
        if place in sources:
            raise UsageError(f"{target} is an input, it would be replaced")
        if target.is_dir():
            raise UsageError(f"{target} is a folder")
        if os.path.lexists(target) and not overwrite:
            raise UsageError(f"{target} exists (--overwrite replaces it)")


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


@contextmanager
def opened(source):
    """A source as a binary file object.

    Arguments
    ---------
    source : str
        Path, or "-" for stdin.

    Yields
    ------
    binary file object
    """
    if source == PIPE:
        yield sys.stdin.buffer
    else:
        with open(source, "rb") as file:
            yield file


@contextmanager
def output(target, stops):
    """A file that appears only when it is complete.

    Arguments
    ---------
    target : str
        Path, whose folder is made if needed, or "-" for stdout.
    stops : Stops
        A signal that came on the way leaves nothing behind.

    Yields
    ------
    binary file object
        Can seek.
    """
    if target == PIPE:
        with tempfile.TemporaryFile() as spool:
            yield spool
            stops.check()
            spool.seek(0)
            shutil.copyfileobj(spool, sys.stdout.buffer)
            sys.stdout.buffer.flush()
        return
    with new_folder(Path(target).parent), atomic_write(target) as file:
        yield file
        stops.check()


@contextmanager
def new_folder(folder):
    """Makes a folder; takes it away again on an error, unless it is used.

    Arguments
    ---------
    folder : Path
        Made with its parents; may exist.
    """
    made = [path for path in (folder, *folder.parents) if not path.exists()]
    folder.mkdir(parents=True, exist_ok=True)
    try:
        yield
    except BaseException:
        for path in made:
            with suppress(OSError):
                path.rmdir()
        raise


# Messages


def samples_bar(total, name):
    """A progress bar over the samples of one file."""
    return bar(total, unit="sample", unit_scale=True, desc=Path(name).name)


def facts(header):
    """What a header says, with sizes and rates.

    Arguments
    ---------
    header : StreamHeader
        Of a stream.

    Returns
    -------
    dict
        Rates in bit/s: of the payload over the time that its frames last,
        of the file over the time that its samples last.
    """
    seconds = header.num_samples / header.sample_rate
    coded = header.num_frames * header.hop_length / header.sample_rate
    checksums = header.file_bytes - header.header_bytes - header.payload_bytes
    return {
        "seconds": seconds,
        "samples": header.num_samples,
        "sample_rate": header.sample_rate,
        "channels": header.num_channels,
        "frames": header.num_frames,
        "hop_length": header.hop_length,
        "frame_rate": header.sample_rate / header.hop_length,
        "codebooks": header.num_codebooks,
        "bits_per_code": header.bits_per_code,
        "fingerprint": header.fingerprint.hex(),
        "chunks": header.num_chunks,
        "frames_per_chunk": header.frames_per_chunk,
        "header_bytes": header.header_bytes,
        "checksum_bytes": checksums,
        "payload_bytes": header.payload_bytes,
        "file_bytes": header.file_bytes,
        "payload_bit_rate": 8 * header.payload_bytes / coded,
        "file_bit_rate": 8 * header.file_bytes / seconds,
    }


def report(job, header, *more):
    """The line that is printed for a file.

    Arguments
    ---------
    job : Job
        The file.
    header : StreamHeader
        Of its stream.
    *more : str
        Anything else to say.

    Returns
    -------
    str
    """
    found = facts(header)
    channels = f" x {header.num_channels} channels"
    parts = [
        f"{found['seconds']:.3f} s",
        f"{header.num_samples} samples{channels * (header.num_channels > 1)}",
        "{file_bytes} bytes ({header_bytes} header + {checksum_bytes} CRC + "
        "{payload_bytes} payload)".format(**found),
        f"{found['payload_bit_rate'] / 1000:.3f} kbps payload",
        f"{found['file_bit_rate'] / 1000:.3f} kbps file",
        *more,
    ]
    return f"{job.source} -> {job.target}: {', '.join(parts)}"


def speed(name, seconds, header):
    """How long something took, and as part of the duration of the audio."""
    factor = seconds * header.sample_rate / header.num_samples
    return f"{name} in {seconds:.2f} s, real-time factor {factor:.3f}"


def run_jobs(jobs, work, args):
    """Works on files one by one; goes on after one that fails.

    Arguments
    ---------
    jobs : list of Job
        The files.
    work : callable
        Takes a job, returns the line to print.
    args : argparse.Namespace
        `debug`.

    Returns
    -------
    int
        Exit code.
    """
    piped = any(job.target == PIPE for job in jobs)
    lines = sys.stderr if piped else sys.stdout
    failed = []
    with bar(len(jobs), unit="file") as progress:
        for job in jobs:
            try:
                line = work(job)
            except BrokenPipeError:
                raise
            except Exception as error:
                complain(error, args.debug, job.source)
                failed.append(job.source)
            else:
                tqdm.write(line, file=lines)
            progress.update()
    if failed and len(jobs) > 1:
        names = ", ".join(failed)
        text = f"{len(failed)} of {len(jobs)} files failed: {names}"
        tqdm.write(f"flowmac: error: {text}", file=sys.stderr)
    return 1 if failed else 0


# Work that needs a model


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

    from speechbrain_flowmac.inference import FlowMACCodec

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
        if "seed" in args:
            # one frame: options that the model cannot do show at once
            frame = torch.zeros(1, 1, 1, dtype=torch.int64)
            codec.decode_batch(frame, **sampling_options(args))
    except ValueError as error:
        raise UsageError(one_line(error)) from error
    return codec


def sampling_options(args):
    """Options of the decoder, by their names in `FlowMACCodec`."""
    return {
        "n_steps": args.steps,
        "solver": args.solver,
        "guidance": args.guidance,
        "seed": args.seed,
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
        `channels` and `codebooks`.

    Returns
    -------
    tuple
        `StreamHeader`, and the seconds that it took.
    """
    if Path(source).is_file():
        return _encode(file, codec, source, source, args)
    with opened(source) as pipe:
        return _encode(file, codec, pipe, source, args)


def _encode(file, codec, source, name, args):
    from speechbrain_flowmac.audio import open_audio

    mix = args.channels == "mix"
    with (
        open_audio(source, codec.sample_rate, mix) as audio,
        samples_bar(audio.num_samples, name) as progress,
    ):
        start = time.perf_counter()
        header = codec.write_stream(
            audio, file, args.codebooks, progress.update
        )
        return header, time.perf_counter() - start


class CountingReader:
    """A `BitstreamReader` that counts damaged chunks.

    Arguments
    ---------
    reader : BitstreamReader
        Yields the chunks.
    """

    def __init__(self, reader):
        self.reader = reader
        self.header = reader.header
        self.damaged = 0

    def __iter__(self):
        for chunk in self.reader:
            self.damaged += not chunk.ok
            yield chunk


def decode_into(file, ending, codec, stream, name, args):
    """Decodes an open stream into an open audio file.

    Arguments
    ---------
    file : binary file object
        Can seek.
    ending : str
        Says the format, such as ".wav".
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
        `StreamHeader`, and a list of what to say about it.
    """
    from speechbrain_flowmac.audio import write_audio

    options = sampling_options(args)
    on_damage = getattr(args, "on_damage", "raise")
    reader = CountingReader(BitstreamReader(stream, on_damage))
    header = reader.header
    start = time.perf_counter()
    with samples_bar(header.num_samples, name) as progress:

        def shown(blocks):
            for block in blocks:
                yield block
                progress.update(len(block))

        blocks = codec.read_stream(reader, **options)
        write_audio(file, ending, header, shown(blocks))
    options.pop("seed")
    count = codec.codec.flow.evaluations(codec.sampling(**options))
    notes = [
        speed("decoded", time.perf_counter() - start, header),
        f"{'adaptive' if count is None else count} function "
        f"evaluation{'s' * (count != 1)}",
    ]
    if reader.damaged:
        notes.append(
            f"{reader.damaged} of {header.num_chunks} chunks damaged and "
            "concealed"
        )
    return header, notes


def round_trip(coded, file, ending, codec, source, args):
    """Codes and decodes through a real stream.

    Arguments
    ---------
    coded : binary file object
        Empty, for reading and writing; gets the stream.
    file, ending, codec, source, args
        As for `encode_into` and `decode_into`.

    Returns
    -------
    tuple
        `StreamHeader`, and a list of what to say about it.
    """
    header, seconds = encode_into(coded, codec, source, args)
    coded.seek(0)
    _, notes = decode_into(file, ending, codec, coded, source, args)
    return header, [speed("encoded", seconds, header), *notes]


# Commands


def encode(args):
    """`flowmac encode`"""
    jobs = plan(args, audio_endings(), STREAM_ENDING, STREAM_ENDING)
    codec = load_model(args)

    def work(job):
        with output(job.target, args.stops) as file:
            header, seconds = encode_into(file, codec, job.source, args)
        return report(job, header, speed("encoded", seconds, header))

    return run_jobs(jobs, work, args)


def decode(args):
    """`flowmac decode`"""
    jobs = plan(args, {STREAM_ENDING}, AUDIO_ENDING, AUDIO_ENDING)
    check_audio_targets(jobs)
    codec = load_model(args)

    def work(job):
        ending = ending_of(job.target)
        with (
            opened(job.source) as stream,
            output(job.target, args.stops) as file,
        ):
            header, notes = decode_into(
                file, ending, codec, stream, job.source, args
            )
        return report(job, header, *notes)

    return run_jobs(jobs, work, args)


def reconstruct(args):
    """`flowmac reconstruct`"""
    jobs = plan(args, audio_endings(), AUDIO_ENDING, f".flowmac{AUDIO_ENDING}")
    check_audio_targets(jobs)
    codec = load_model(args)

    def work(job):
        ending = ending_of(job.target)
        with (
            tempfile.TemporaryFile() as coded,
            output(job.target, args.stops) as file,
        ):
            header, notes = round_trip(
                coded, file, ending, codec, job.source, args
            )
        return report(job, header, *notes)

    return run_jobs(jobs, work, args)


def transcode_files(args):
    """`flowmac transcode`"""
    jobs = plan(args, {STREAM_ENDING}, STREAM_ENDING, STREAM_ENDING)

    def work(job):
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "stream"
            with opened(job.source) as stream:
                header = transcode(stream, path, args.codebooks)
            with (
                open(path, "rb") as stream,
                output(job.target, args.stops) as file,
            ):
                shutil.copyfileobj(stream, file)
        return report(job, header)

    return run_jobs(jobs, work, args)


def inspect(source):
    """What a stream says about itself, and whether it is whole.

    Arguments
    ---------
    source : str
        Path, or "-" for stdin.

    Returns
    -------
    dict
        `facts`, with the indices of damaged chunks and the number of bytes
        after the last chunk.
    """
    with opened(source) as file:
        reader = BitstreamReader(file, on_damage="conceal-all")
        header = reader.header
        damaged = 0
        for index in range(header.num_chunks):
            if not file.peek(1):
                # a header can promise more than is worth counting
                damaged += header.num_chunks - index
                break
            damaged += not next(reader).ok
        trailing = 0
        while block := file.read(1 << 20):
            trailing += len(block)
    return {
        "file": source,
        **facts(header),
        "damaged_chunks": damaged,
        "trailing_bytes": trailing,
    }


INFO_TEXT = """\
{file}
  audio      {seconds:.3f} s: {samples} samples at {sample_rate} Hz, \
channels: {channels}
  tokens     {frames} frames of {hop_length} samples, {frame_rate:g} per second
  codebooks  {codebooks} of {bits_per_code} bits
  model      {fingerprint}
  payload    {payload_bytes} bytes, {payload_kbps:.3f} kbps
  file       {file_bytes} bytes ({header_bytes} header + {checksum_bytes} CRC \
+ {payload_bytes} payload), {file_kbps:.3f} kbps
  chunks     {chunks} of {frames_per_chunk} frames, {damaged_chunks} damaged"""


def info(args):
    """`flowmac info`"""
    inputs, _ = find_inputs(args.inputs, {STREAM_ENDING})
    code, found = 0, []
    for path, _ in inputs:
        try:
            about = inspect(str(path))
            found.append(about)
            if not args.json:
                text = INFO_TEXT.format(
                    payload_kbps=about["payload_bit_rate"] / 1000,
                    file_kbps=about["file_bit_rate"] / 1000,
                    **about,
                )
                print(text)
            if about["damaged_chunks"]:
                raise BitstreamError(
                    f"{about['damaged_chunks']} of {about['chunks']} chunks "
                    "are damaged or missing"
                )
            if about["trailing_bytes"]:
                raise BitstreamError(
                    f"{about['trailing_bytes']} bytes follow the last chunk"
                )
        except BrokenPipeError:
            raise
        except Exception as error:
            complain(error, args.debug, str(path))
            code = 1
    if args.json:
        print(json.dumps(found, indent=2))
    return code


def demo(args):
    """`flowmac demo`"""
    from speechbrain_flowmac.models.loading import (
        ModelNotFoundError,
        resolve_source,
    )

    folder = Path(args.out)
    if folder.exists() and not folder.is_dir():
        raise UsageError(f"{folder} is not a folder")
    try:
        example = Path(resolve_source(args.model)) / EXAMPLE_FILE
    except ModelNotFoundError as error:
        raise UsageError(one_line(error)) from error
    if not example.is_file():
        raise UsageError(f"model {args.model} comes without {EXAMPLE_FILE}")
    names = ("original.wav", "coded.fmac", "decoded.wav")
    jobs = [Job(str(example), str(folder / name)) for name in names]
    for job in jobs:
        check_targets([job], args.overwrite)
    codec = load_model(args)
    original, stream, decoded = (job.target for job in jobs)
    with (
        tempfile.TemporaryFile() as coded,
        output(original, args.stops) as copy,
        output(stream, args.stops) as file,
        output(decoded, args.stops) as audio,
    ):
        copy.write(example.read_bytes())
        header, notes = round_trip(
            coded, audio, AUDIO_ENDING, codec, str(example), args
        )
        coded.seek(0)
        shutil.copyfileobj(coded, file)
    print(report(Job(original, stream), header, *notes))
    print(f"{original} has {example.stat().st_size} bytes.")
    print(f"Listen to {original} and {decoded}")
    return 0


def export_model(args):
    """`flowmac export`"""
    target = Path(args.target)
    if os.path.lexists(target) and not args.overwrite:
        raise UsageError(f"{target} exists (--overwrite replaces it)")
    if args.card is not None and not Path(args.card).is_file():
        raise UsageError(f"no such file: {args.card}")

    from speechbrain_flowmac.models.export import (
        ExportError,
        check_replaceable,
        export,
    )
    from speechbrain_flowmac.models.importers import find_importer

    try:
        find_importer(args.codec, "codec")
        find_importer(args.vocoder, "vocoder")
        check_replaceable(target)
    except ExportError as error:
        raise UsageError(str(error)) from error
    codec = export(args.codec, args.vocoder, target, args.card)
    size = sum(path.stat().st_size for path in target.iterdir())
    print(
        f"{target}: {size} bytes, {codec.bit_rate() / 1000:.3f} kbps, "
        f"fingerprint {codec.fingerprint[:8].hex()}"
    )
    return 0


# Arguments


class Parser(argparse.ArgumentParser):
    """A parser whose errors are one line."""

    def error(self, message):
        """Prints the message and exits with 2."""
        self.exit(2, f"flowmac: error: {message} (see {self.prog} --help)\n")


def _add_files(parser, what, required=False):
    parser.add_argument(
        "inputs",
        nargs="+",
        metavar="IN",
        help=f"{what}: files, folders (searched), patterns, or - for stdin",
    )
    parser.add_argument(
        "-o",
        "--out",
        metavar="OUT",
        required=required,
        help="a file, a folder if there are several inputs, or - for stdout"
        + ("" if required else "; default: beside the input"),
    )
    _add_overwrite(parser)


def _add_overwrite(parser):
    parser.add_argument(
        "--overwrite", action="store_true", help="replace existing outputs"
    )


def _add_model(parser):
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


def _add_encoder(parser):
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


def _add_decoder(parser):
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
        "--guidance",
        type=finite_number,
        metavar="W",
        help="scale of classifier-free guidance; default: the model's",
    )
    group.add_argument(
        "--seed",
        type=whole_number(0, 2**63 - 1),
        default=0,
        help="of all noise; the same seed gives the same samples",
    )


def build_parser():
    """The parser of the command line.

    Returns
    -------
    argparse.ArgumentParser

    Example
    -------
    >>> build_parser().parse_args(["encode", "a.wav"]).channels
    'mix'
    """
    parser = Parser(
        prog="flowmac",
        description="FlowMAC, a neural audio codec: 24 kHz at 3 kbps.",
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=__version__)
    commands = parser.add_subparsers(metavar="COMMAND", required=True)

    def add(name, function, text):
        command = commands.add_parser(
            name, help=text, description=text, allow_abbrev=False
        )
        command.add_argument(
            "--debug", action="store_true", help="show tracebacks"
        )
        command.set_defaults(run=function)
        return command

    command = add("encode", encode, "Code audio into .fmac files.")
    _add_files(command, "audio")
    _add_encoder(command)
    _add_model(command)

    command = add("decode", decode, "Decode .fmac files into audio.")
    _add_files(command, ".fmac")
    _add_decoder(command)
    command.add_argument(
        "--on-damage",
        choices=("raise", "conceal"),
        default="raise",
        help="refuse damaged files, or fill the gaps (default: %(default)s)",
    )
    command.add_argument(
        "--conceal-all",
        action="store_const",
        dest="on_damage",
        const="conceal-all",
        help="also fill more than ten times what a file holds",
    )
    _add_model(command)

    command = add(
        "reconstruct", reconstruct, "Code and decode: what it sounds like."
    )
    _add_files(command, "audio")
    _add_encoder(command)
    _add_decoder(command)
    _add_model(command)

    command = add(
        "transcode",
        transcode_files,
        "Lower the bit rate of .fmac files; needs no model.",
    )
    _add_files(command, ".fmac", required=True)
    command.add_argument(
        "--codebooks",
        type=whole_number(1, 255),
        metavar="K",
        required=True,
        help="codebooks to keep",
    )

    command = add("info", info, "Say what .fmac files hold; check them.")
    command.add_argument(
        "inputs",
        nargs="+",
        metavar="FILE",
        help="files, folders (searched), patterns, or - for stdin",
    )
    command.add_argument("--json", action="store_true", help="print JSON")

    command = add(
        "demo", demo, "Code and decode the example that comes with a model."
    )
    command.add_argument(
        "-o",
        "--out",
        default="flowmac_demo",
        metavar="FOLDER",
        help="where to write (default: %(default)s)",
    )
    _add_overwrite(command)
    _add_encoder(command)
    _add_decoder(command)
    _add_model(command)

    command = add(
        "export",
        export_model,
        "Make a model folder of a trained codec and a vocoder.",
    )
    command.add_argument(
        "codec",
        metavar="CODEC",
        help="training folder; or a model, whose codec is taken: its folder "
        "or name",
    )
    command.add_argument(
        "vocoder",
        metavar="VOCODER",
        help="training folder; or a model, whose vocoder is taken; or a "
        "BigVGAN checkpoint: a folder with config.json and "
        "bigvgan_generator.pt, or a Hub id such as "
        "nvidia/bigvgan_v2_24khz_100band_256x",
    )
    command.add_argument("target", metavar="TARGET", help="folder to make")
    command.add_argument("--card", metavar="README", help="model card")
    _add_overwrite(command)

    add_command(commands)
    mushra_command.add_commands(commands)
    return parser


def main(argv=None):
    """Runs the command line.

    Arguments
    ---------
    argv : list of str or None
        Arguments; None for those of the process.

    Returns
    -------
    int
        Exit code.
    """
    try:
        args = build_parser().parse_args(argv)
    except SystemExit as stop:
        return stop.code or 0
    args.argv = sys.argv[1:] if argv is None else argv
    try:
        with Stops() as args.stops:
            code = args.run(args)
            sys.stdout.flush()
            return code
    except UsageError as error:
        complain(error, args.debug)
        return 2
    except Stopped as stop:
        return 128 + stop.args[0]
    except BrokenPipeError:
        # whoever read stdout has seen enough; what is left goes nowhere
        with suppress(OSError):
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, sys.stdout.fileno())
        return 1
    except Exception as error:
        complain(error, args.debug)
        return 1


if __name__ == "__main__":
    sys.exit(main())
