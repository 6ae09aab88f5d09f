"""`flowmac encode`"""

from speechbrain_flowmac.commands.coding import (
    STREAM_ENDING,
    add_encoder,
    add_model,
    encode_into,
    load_model,
)
from speechbrain_flowmac.commands.jobs import add_files, plan, run_jobs
from speechbrain_flowmac.commands.messages import report
from speechbrain_flowmac.commands.pipes import output
from speechbrain_flowmac.console import add_command, audio_endings


def run(args):
    """Codes audio into .fmac files."""
    jobs = plan(args, audio_endings(), STREAM_ENDING, STREAM_ENDING)
    codec = load_model(args)

    def work(job):
        with output(job.target, args.stops) as file:
            summary, notes = encode_into(file, codec, job.source, args)
        return report(job, summary, *notes)

    return run_jobs(jobs, work, args)


def add(commands):
    """Adds the command to the command line."""
    text = "Code audio into .fmac files."
    command = add_command(commands, "encode", run, text)
    add_files(command, "audio")
    add_encoder(command)
    add_model(command)
