"""Seeded noise that can be made from any frame on.

Decoding starts from noise, and the same seed must give the same samples
whether a signal is decoded whole, in a batch or in chunks. So noise is a
function of the seed and of the absolute frame, made in blocks by a
counter-based generator (Philox; Salmon et al., SC 2011).
"""

import numpy as np
import torch

BLOCK_FRAMES = 64


def seeded_noise(seed, stream, start, num_frames, width):
    """White Gaussian noise, float32 [num_frames, width] on the CPU.

    `start` is the absolute index of the first frame. Seeds are 0 or more;
    noises of different seeds or streams are independent.

    Example
    -------
    >>> whole = seeded_noise(7, 0, 0, 200, 3)
    >>> part = seeded_noise(7, 0, 60, 10, 3)
    >>> bool((whole[60:70] == part).all())
    True
    """
    if seed < 0:
        raise ValueError(f"seed must not be negative, found {seed}")
    first = start // BLOCK_FRAMES
    last = -(-(start + num_frames) // BLOCK_FRAMES)
    blocks = [
        np.random.Generator(
            np.random.Philox(key=[seed, stream], counter=[0, 0, 0, block])
        ).standard_normal((BLOCK_FRAMES, width), dtype=np.float32)
        for block in range(first, max(last, first + 1))
    ]
    skip = start - first * BLOCK_FRAMES
    noise = np.concatenate(blocks)[skip : skip + num_frames]
    return torch.from_numpy(noise)
