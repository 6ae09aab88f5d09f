"""What is said about a file: sizes, rates, speed."""

from pathlib import Path

from speechbrain_flowmac.console import bar, printable

SIZES = (
    "{file_bytes} bytes ({header_bytes} header + {framing_bytes} framing + "
    "{payload_bytes} payload)"
)


def samples_bar(total, name):
    """A progress bar over the samples of one file; total None if unknown."""
    name = printable(Path(name).name)
    return bar(total, unit="sample", unit_scale=True, desc=name)


def facts(summary):
    """What a stream holds, with sizes and rates.

    Arguments
    ---------
    summary : StreamSummary
        Of a stream.

    Returns
    -------
    dict
        Rates in bit/s over the time that the samples last.
    """
    header = summary.header
    return {
        "version": header.version,
        "seconds": summary.seconds,
        "samples": summary.num_samples,
        "sample_rate": header.sample_rate,
        "channels": header.num_channels,
        "frames": summary.num_frames,
        "hop_length": header.hop_length,
        "frame_rate": header.sample_rate / header.hop_length,
        "codebooks": header.num_codebooks,
        "bits_per_code": header.bits_per_code,
        "first_code_bits": header.code_bits[0],
        "runs": header.runs,
        "fingerprint": header.fingerprint.hex(),
        "chunks": summary.num_chunks,
        "frames_per_chunk": header.frames_per_chunk,
        "header_bytes": header.header_bytes,
        "framing_bytes": summary.framing_bytes,
        "payload_bytes": summary.payload_bytes,
        "file_bytes": summary.stream_bytes,
        "payload_bit_rate": summary.payload_bit_rate,
        "file_bit_rate": summary.stream_bit_rate,
    }


def report(job, summary, *more):
    """The line that is printed for a file.

    Arguments
    ---------
    job : Job
        The file.
    summary : StreamSummary
        Of its stream.
    *more : str
        Anything else to say.

    Returns
    -------
    str
    """
    found = facts(summary)
    channels = f" x {found['channels']} channels"
    parts = [
        f"{summary.seconds:.3f} s",
        f"{summary.num_samples} samples{channels * (found['channels'] > 1)}",
        SIZES.format(**found),
        f"{found['payload_bit_rate'] / 1000:.3f} kbps payload",
        f"{found['file_bit_rate'] / 1000:.3f} kbps file",
        *more,
    ]
    return f"{job.source} -> {job.target}: {', '.join(parts)}"


def speed(name, seconds, summary):
    """How long something took, and as part of the duration of the audio."""
    factor = seconds / summary.seconds
    return f"{name} in {seconds:.2f} s, real-time factor {factor:.3f}"
