"""`flowmac info`"""

import json

from speechbrain_flowmac.commands.coding import STREAM_ENDING
from speechbrain_flowmac.commands.jobs import find_inputs
from speechbrain_flowmac.commands.messages import SIZES, facts
from speechbrain_flowmac.commands.pipes import opened
from speechbrain_flowmac.console import add_command, complain, printable, say

TEXT = f"""\
{{file}}, version {{version}}
  audio      {{seconds:.3f}} s: {{samples}} samples at {{sample_rate}} Hz, \
channels: {{channels}}
  tokens     {{frames}} frames of {{hop_length}} samples, \
{{frame_rate:g}} per second{{runs}}
  codebooks  {{codebooks}} of {{bits_per_code}} bits{{first}}
  model      {{fingerprint}}
  payload    {{payload_bytes}} bytes, {{payload_kbps:.3f}} kbps
  file       {SIZES}, {{file_kbps:.3f}} kbps
  chunks     {{chunks}} of at most {{frames_per_chunk}} frames, \
{{damaged_chunks}} damaged"""


def inspect(source):
    """What a stream says about itself, and whether it is whole.

    Arguments
    ---------
    source : str
        Path, or "-" for stdin.

    Returns
    -------
    dict
        `facts`, with the number of damaged chunks, whether the end is there,
        and the number of bytes after it.
    """
    from speechbrain_flowmac.bitstream import BitstreamReader

    with opened(source) as file:
        reader = BitstreamReader(file, on_damage="conceal")
        for _ in reader:
            pass
        trailing = 0
        while block := file.read(1 << 20):
            trailing += len(block)
    return {
        "file": source,
        **facts(reader.summary),
        "damaged_chunks": reader.summary.damaged_chunks,
        "complete": reader.summary.complete,
        "trailing_bytes": trailing,
    }


def describe(about):
    """The lines that are printed for a stream."""
    first = about["first_code_bits"]
    other = first != about["bits_per_code"]
    words = {
        "file": printable(about["file"]),
        "first": f", the first of {first}" * other,
        "runs": ", not again those that repeat" * about["runs"],
    }
    return TEXT.format(
        payload_kbps=about["payload_bit_rate"] / 1000,
        file_kbps=about["file_bit_rate"] / 1000,
        **about | words,
    )


def find_fault(about):
    """What is wrong with a stream, or None."""
    if about["damaged_chunks"]:
        return (
            f"{about['damaged_chunks']} of {about['chunks']} chunks are "
            "damaged or missing"
        )
    if not about["complete"]:
        return "the end is missing"
    if about["trailing_bytes"]:
        return f"{about['trailing_bytes']} bytes follow the last chunk"
    return None


def run(args):
    """Says what .fmac files hold."""
    from speechbrain_flowmac.bitstream import BitstreamError

    inputs, _ = find_inputs(args.inputs, {STREAM_ENDING})
    code, found = 0, []
    for path, _ in inputs:
        try:
            about = inspect(str(path))
            found.append(about)
            if not args.json:
                for line in describe(about).splitlines():
                    say(line)
            if fault := find_fault(about):
                raise BitstreamError(fault)
        except BrokenPipeError:
            raise
        except Exception as error:
            complain(error, args.debug, str(path))
            code = 1
    if args.json:
        print(json.dumps(found, indent=2))
    return code


def add(commands):
    """Adds the command to the command line."""
    text = "Say what .fmac files hold; check them."
    command = add_command(commands, "info", run, text)
    command.add_argument(
        "inputs",
        nargs="+",
        metavar="FILE",
        help="files, folders (searched), patterns, or - for stdin",
    )
    command.add_argument("--json", action="store_true", help="print JSON")
