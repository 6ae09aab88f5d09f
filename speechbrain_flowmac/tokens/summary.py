"""What an extraction found: hours, bits, use of the codebooks, failures."""

import math

import torch


def summarise(done, num_utterances, codebook_sizes):
    """The statistics of all shards together.

    Arguments
    ---------
    done : list of dict
        Of each shard: `counts` [K][C], `audio_seconds`, `frames`,
        `process_seconds` and `failures` (reasons by utterance).
    num_utterances : int
        That have tokens.
    codebook_sizes : sequence of int
        C of each codebook.

    Returns
    -------
    dict
        `utterances`, `hours`, `bits` of all frames of time, `failures`,
        `hours_per_process_hour`, and by codebook `used` (fraction of the
        entries) and `entropy` (bits of a code, by its frequency alone).

    Example
    -------
    >>> shard = {
    ...     "counts": [[2, 2, 0, 0]],
    ...     "audio_seconds": 3600.0,
    ...     "frames": 4,
    ...     "process_seconds": 36.0,
    ...     "failures": {},
    ... }
    >>> summary = summarise([shard], num_utterances=1, codebook_sizes=[4])
    >>> summary["entropy"], summary["used"], summary["bits"]
    ([1.0], [0.5], 8)
    """
    sizes = torch.tensor(codebook_sizes)
    code_bits = [(size - 1).bit_length() for size in codebook_sizes]
    counts = sum(torch.tensor(shard["counts"]) for shard in done).double()
    total = counts.sum(1, keepdim=True).clamp(min=1)
    entropy = torch.special.entr(counts / total).sum(1) / math.log(2)
    audio = sum(shard["audio_seconds"] for shard in done)
    spent = sum(shard["process_seconds"] for shard in done)
    failures = {}
    for shard in done:
        failures.update(shard["failures"])
    return {
        "utterances": num_utterances,
        "hours": audio / 3600,
        "bits": sum(s["frames"] for s in done) * sum(code_bits),
        "code_bits": code_bits,
        "hours_per_process_hour": audio / spent if spent else 0.0,
        "used": ((counts > 0).sum(1) / sizes).tolist(),
        "entropy": entropy.tolist(),
        "failures": failures,
    }


def describe(summary):
    """The summary as lines for people.

    Arguments
    ---------
    summary : dict
        From `summarise`.

    Returns
    -------
    str
    """
    spent = sum(summary["code_bits"])
    lines = [
        f"{summary['utterances']} utterances, {summary['hours']:.3f} hours, "
        f"{summary['bits'] / 8e6:.3f} MB of tokens",
        f"{summary['hours_per_process_hour']:.0f} hours of audio per hour of "
        "a process",
        f"entropy {sum(summary['entropy']):.2f} of {spent} bits a frame",
        "codebook  used  entropy",
    ]
    rows = zip(summary["used"], summary["entropy"], strict=True)
    lines += [
        f"{k:8d}  {used:4.0%}  {entropy:7.2f}"
        for k, (used, entropy) in enumerate(rows, 1)
    ]
    lines += [f"{len(summary['failures'])} utterances have no tokens:"]
    lines += [f"  {n}: {why}" for n, why in summary["failures"].items()]
    return "\n".join(lines)
