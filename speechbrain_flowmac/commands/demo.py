"""`flowmac demo`"""

import shutil
import tempfile
from pathlib import Path

from speechbrain_flowmac.commands.coding import (
    add_decoder,
    add_encoder,
    add_model,
    load_model,
    round_trip,
)
from speechbrain_flowmac.commands.jobs import Job, add_overwrite, check_targets
from speechbrain_flowmac.commands.messages import report
from speechbrain_flowmac.commands.pipes import output
from speechbrain_flowmac.console import (
    UsageError,
    add_command,
    one_line,
    say,
)

EXAMPLE_FILE = "example.wav"


def run(args):
    """Codes and decodes the example of a model."""
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
        summary, notes = round_trip(
            coded, audio, decoded, codec, str(example), args
        )
        coded.seek(0)
        shutil.copyfileobj(coded, file)
    say(report(Job(original, stream), summary, *notes))
    say(f"{original} has {example.stat().st_size} bytes.")
    say(f"Listen to {original} and {decoded}")
    return 0


def add(commands):
    """Adds the command to the command line."""
    text = "Code and decode the example that comes with a model."
    command = add_command(commands, "demo", run, text)
    command.add_argument(
        "-o",
        "--out",
        default="flowmac_demo",
        metavar="FOLDER",
        help="where to write (default: %(default)s)",
    )
    add_overwrite(command)
    add_encoder(command)
    add_decoder(command)
    add_model(command)
