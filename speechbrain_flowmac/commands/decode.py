"""`flowmac decode`"""

from speechbrain_flowmac.commands.coding import (
    AUDIO_ENDING,
    STREAM_ENDING,
    add_decoder,
    add_model,
    check_audio_targets,
    decode_into,
    load_model,
)
from speechbrain_flowmac.commands.jobs import add_files, plan, run_jobs
from speechbrain_flowmac.commands.messages import report
from speechbrain_flowmac.commands.pipes import opened, output
from speechbrain_flowmac.console import add_command


def run(args):
    """Decodes .fmac files into audio."""
    jobs = plan(args, {STREAM_ENDING}, AUDIO_ENDING, AUDIO_ENDING)
    check_audio_targets(jobs)
    codec = load_model(args)

    def work(job):
        with (
            opened(job.source) as stream,
            output(job.target, args.stops) as file,
        ):
            summary, notes = decode_into(
                file, job.target, codec, stream, job.source, args
            )
        return report(job, summary, *notes)

    return run_jobs(jobs, work, args)


def add(commands):
    """Adds the command to the command line."""
    text = "Decode .fmac files into audio."
    command = add_command(commands, "decode", run, text)
    add_files(command, ".fmac")
    add_decoder(command)
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
    add_model(command)
