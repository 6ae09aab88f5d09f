#!/usr/bin/env python3
"""Time of our BigVGAN on the CPU, against NVIDIA's code with the same weights.

> python benchmarks/bigvgan_cpu.py --threads 1

Both synthesise the same second of audio in turn, so that whatever else the
machine does slows both; the first run of each is not counted. Needs the
package `bigvgan` (pip install -e ".[test]").
"""

import argparse
import time
import warnings
from statistics import median

import torch
from bigvgan.bigvgan import BigVGAN as Reference
from bigvgan.env import AttrDict

from speechbrain_flowmac.lobes.bigvgan import BigVGAN, fold_weight_norm
from speechbrain_flowmac.lobes.features import MelSettings
from speechbrain_flowmac.models.importers.bigvgan import translate_config

SHARED = {
    "resblock": "1",
    "resblock_kernel_sizes": [3, 7, 11],
    "resblock_dilation_sizes": [[1, 3, 5], [1, 3, 5], [1, 3, 5]],
    "activation": "snakebeta",
    "snake_logscale": True,
    "num_mels": 100,
    "n_fft": 1024,
    "hop_size": 256,
    "win_size": 1024,
    "sampling_rate": 24000,
    "fmin": 0,
    "fmax": None,
}
CONFIGS = {
    "bigvgan_base_24khz_100band": {
        **SHARED,
        "upsample_rates": [8, 8, 2, 2],
        "upsample_kernel_sizes": [16, 16, 4, 4],
        "upsample_initial_channel": 512,
    },
    "bigvgan_v2_24khz_100band_256x, 384 of its 1536 channels": {
        **SHARED,
        "upsample_rates": [4, 4, 2, 2, 2, 2],
        "upsample_kernel_sizes": [8, 8, 4, 4, 4, 4],
        "upsample_initial_channel": 384,
        "use_tanh_at_final": False,
        "use_bias_at_final": False,
    },
}


def make_pair(config):
    """NVIDIA's model and ours, with the same weights and no weight norm."""
    theirs = Reference(AttrDict(config)).eval()
    mel, model = translate_config(config)
    ours = BigVGAN(MelSettings(**mel), **model).eval()
    ours.load_state_dict(fold_weight_norm(theirs.state_dict()))
    theirs.remove_weight_norm()
    return theirs, ours


def seconds(model, x):
    """Wall time of a call."""
    start = time.perf_counter()
    model(x)
    return time.perf_counter() - start


@torch.inference_mode()
def main():
    """Prints times and their ratio for each config."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--repetitions", type=int, default=10)
    parser.add_argument("--frames", type=int, default=94, help="1 s is 94")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    warnings.filterwarnings("ignore", category=FutureWarning)
    for name, config in CONFIGS.items():
        torch.manual_seed(0)
        theirs, ours = make_pair(config)
        mel = 2 * torch.randn(1, args.frames, config["num_mels"]) - 5
        inputs = {theirs: mel.mT.contiguous(), ours: mel}
        times = {model: [] for model in inputs}
        for repetition in range(args.repetitions + 1):
            for model, x in inputs.items():
                elapsed = seconds(model, x)
                if repetition:
                    times[model].append(elapsed)
        # of each repetition, so that a busy moment counts for both
        ratio = median(
            mine / other
            for mine, other in zip(times[ours], times[theirs], strict=True)
        )
        print(
            f"{name}: {args.threads} threads, {args.repetitions} repetitions\n"
            f"    reference {min(times[theirs]):.3f} s, ours "
            f"{min(times[ours]):.3f} s at best; ours / reference "
            f"{min(times[ours]) / min(times[theirs]):.2f} at best, "
            f"{ratio:.2f} in the median"
        )


if __name__ == "__main__":
    main()
