"""NVIDIA's BigVGAN as a reference: configs, random weights, checkpoints."""

import json

import torch
from bigvgan.bigvgan import BigVGAN as Reference
from bigvgan.env import AttrDict

from speechbrain_flowmac.models.importers.bigvgan import (
    CONFIG_FILE,
    WEIGHTS_FILE,
)

# What defines the model in config.json of NVIDIA's repositories of these
# names on the Hugging Face Hub (the same as configs/ of NVIDIA/BigVGAN).
COMMON = {
    "resblock": "1",
    "resblock_kernel_sizes": [3, 7, 11],
    "resblock_dilation_sizes": [[1, 3, 5], [1, 3, 5], [1, 3, 5]],
    "activation": "snakebeta",
    "snake_logscale": True,
    "n_fft": 1024,
    "win_size": 1024,
    "fmin": 0,
}
V1 = {"num_mels": 100, "hop_size": 256, "sampling_rate": 24000, "fmax": 12000}
V2 = {"use_tanh_at_final": False, "use_bias_at_final": False, "fmax": None}
PUBLIC = {
    "bigvgan_24khz_100band": {
        **COMMON,
        **V1,
        "upsample_rates": [4, 4, 2, 2, 2, 2],
        "upsample_kernel_sizes": [8, 8, 4, 4, 4, 4],
        "upsample_initial_channel": 1536,
    },
    "bigvgan_base_24khz_100band": {
        **COMMON,
        **V1,
        "upsample_rates": [8, 8, 2, 2],
        "upsample_kernel_sizes": [16, 16, 4, 4],
        "upsample_initial_channel": 512,
    },
    "bigvgan_v2_24khz_100band_256x": {
        **COMMON,
        **V1,
        **V2,
        "upsample_rates": [4, 4, 2, 2, 2, 2],
        "upsample_kernel_sizes": [8, 8, 4, 4, 4, 4],
        "upsample_initial_channel": 1536,
    },
    "bigvgan_v2_44khz_128band_512x": {
        **COMMON,
        **V2,
        "num_mels": 128,
        "n_fft": 2048,
        "hop_size": 512,
        "win_size": 2048,
        "sampling_rate": 44100,
        "upsample_rates": [8, 4, 2, 2, 2, 2],
        "upsample_kernel_sizes": [16, 8, 4, 4, 4, 4],
        "upsample_initial_channel": 1536,
    },
}
V2_24K = PUBLIC["bigvgan_v2_24khz_100band_256x"]


def shrunk(config, channels=64):
    """A config with fewer channels."""
    return {**config, "upsample_initial_channel": channels}


def reference(config, seed=0, gain=1.1):
    """NVIDIA's model with random weights, loud enough to be heard."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = Reference(AttrDict(config)).eval()
        for name, parameter in model.named_parameters():
            if name.endswith(("alpha", "beta")):
                start = 0.0 if config["snake_logscale"] else 1.5
                parameter.data = start + 0.4 * torch.rand_like(parameter)
            elif name.endswith("weight_g"):
                parameter.data *= gain * (
                    0.8 + 0.4 * torch.rand_like(parameter)
                )
    return model


def save_checkpoint(folder, config, state=None):
    """Writes a folder in NVIDIA's layout, by default with random weights."""
    folder.mkdir()
    state = reference(config).state_dict() if state is None else state
    torch.save({"generator": state}, folder / WEIGHTS_FILE)
    (folder / CONFIG_FILE).write_text(json.dumps(config))
    return folder
