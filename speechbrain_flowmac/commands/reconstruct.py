"""`flowmac reconstruct`"""

import tempfile

from speechbrain_flowmac.commands.coding import (
    AUDIO_ENDING,
    add_decoder,
    add_encoder,
    add_model,
    check_audio_targets,
    load_model,
    round_trip,
)
from speechbrain_flowmac.commands.jobs import add_files, plan, run_jobs
from speechbrain_flowmac.commands.messages import report
from speechbrain_flowmac.commands.pipes import output
from speechbrain_flowmac.console import add_command, audio_endings


def run(args):
    """Codes and decodes audio."""
    jobs = plan(args, audio_endings(), AUDIO_ENDING, f".flowmac{AUDIO_ENDING}")
    check_audio_targets(jobs)
    codec = load_model(args)

    def work(job):
        with (
            tempfile.TemporaryFile() as coded,
            output(job.target, args.stops) as file,
        ):
            summary, notes = round_trip(
                coded, file, job.target, codec, job.source, args
            )
        return report(job, summary, *notes)

    return run_jobs(jobs, work, args)


def add(commands):
    """Adds the command to the command line."""
    text = "Code and decode: what it sounds like."
    command = add_command(commands, "reconstruct", run, text)
    add_files(command, "audio")
    add_encoder(command)
    add_decoder(command)
    add_model(command)
