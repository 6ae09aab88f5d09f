"""Networks that guess a listening test's mean opinion score.

They hear the decoded signal alone: they tell whether it sounds like good
speech, not whether it is still what was said, nor who said it.
"""

import contextlib
import sys
from functools import cache

import numpy as np
import torch

from speechbrain_flowmac.metrics.metric import reference_free
from speechbrain_flowmac.metrics.packages import optional
from speechbrain_flowmac.metrics.signal_cache import remembered
from speechbrain_flowmac.metrics.signals import WIDEBAND_RATE, wideband

DISTILLMOS_PACKAGES = ("distillmos",)
# the package does not say what else it imports
DNSMOS_PACKAGES = ("speechmos", "librosa", "onnxruntime")


@reference_free
def distillmos(reference, decoded, sample_rate):
    """DistillMOS (Stahl and Gamper, 2502.05356), at 16 kHz.

    Returns
    -------
    float
        1 to 5, higher is better.
    """
    model = _distillmos_model()
    wav = torch.from_numpy(wideband(decoded, sample_rate)).float()
    with torch.no_grad():
        return float(model(wav.unsqueeze(0)))


@cache
def _distillmos_model():
    package = optional("distillmos", *DISTILLMOS_PACKAGES)
    # it prints where its weights lie
    with contextlib.redirect_stdout(sys.stderr):
        return package.ConvTransformerSQAModel().eval()


@reference_free
def dnsmos_overall(reference, decoded, sample_rate):
    """DNSMOS P.835 (Reddy et al., 2110.01763): overall quality, at 16 kHz.

    Returns
    -------
    float
        1 to 5, higher is better.
    """
    return _dnsmos(decoded, sample_rate)["ovrl_mos"]


@reference_free
def dnsmos_signal(reference, decoded, sample_rate):
    """DNSMOS P.835: how little the speech is distorted.

    Returns
    -------
    float
        1 to 5, higher is better.
    """
    return _dnsmos(decoded, sample_rate)["sig_mos"]


@reference_free
def dnsmos_background(reference, decoded, sample_rate):
    """DNSMOS P.835: how little the background intrudes.

    Returns
    -------
    float
        1 to 5, higher is better.
    """
    return _dnsmos(decoded, sample_rate)["bak_mos"]


@remembered
def _dnsmos(signal, sample_rate):
    """All scores of one run of the models, which the package caches."""
    dnsmos = optional("speechmos.dnsmos", *DNSMOS_PACKAGES)
    signal = np.clip(wideband(signal, sample_rate), -1.0, 1.0)
    scores = dnsmos.run(signal, WIDEBAND_RATE)
    return {name: float(score) for name, score in scores.items()}
