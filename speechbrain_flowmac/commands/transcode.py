"""`flowmac transcode`"""

from speechbrain_flowmac.commands.coding import STREAM_ENDING
from speechbrain_flowmac.commands.jobs import add_files, plan, run_jobs
from speechbrain_flowmac.commands.messages import report
from speechbrain_flowmac.commands.pipes import opened, output
from speechbrain_flowmac.console import add_command, whole_number


def run(args):
    """Drops codebooks of .fmac files."""
    from speechbrain_flowmac.bitstream import transcode

    jobs = plan(args, {STREAM_ENDING}, STREAM_ENDING, STREAM_ENDING)

    def work(job):
        with (
            opened(job.source) as stream,
            output(job.target, args.stops) as file,
        ):
            summary = transcode(stream, file, args.codebooks)
        return report(job, summary)

    return run_jobs(jobs, work, args)


def add(commands):
    """Adds the command to the command line."""
    text = "Lower the bit rate of .fmac files; needs no model."
    command = add_command(commands, "transcode", run, text)
    add_files(command, ".fmac", required=True)
    command.add_argument(
        "--codebooks",
        type=whole_number(1, 255),
        metavar="K",
        required=True,
        help="codebooks to keep",
    )
