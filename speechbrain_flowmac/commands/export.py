"""`flowmac export`"""

import os
from pathlib import Path

from speechbrain_flowmac.commands.jobs import add_overwrite
from speechbrain_flowmac.console import UsageError, add_command


def run(args):
    """Makes a model folder."""
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


def add(commands):
    """Adds the command to the command line."""
    text = "Make a model folder of a trained codec and a vocoder."
    command = add_command(commands, "export", run, text)
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
    add_overwrite(command)
