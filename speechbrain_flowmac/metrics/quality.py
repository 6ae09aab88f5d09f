"""Models of hearing that compare two signals: PESQ and ViSQOL."""

from functools import cache

from speechbrain_flowmac.metrics.metric import intrusive
from speechbrain_flowmac.metrics.packages import optional
from speechbrain_flowmac.metrics.signals import WIDEBAND_RATE, wideband

PESQ_PACKAGES = ("pesq",)
VISQOL_PACKAGES = ("visqol-python[lattice]",)


@intrusive
def pesq_wb(reference, decoded, sample_rate):
    """Wideband PESQ (ITU-T P.862.2), at 16 kHz.

    Returns
    -------
    float
        1.0 to 4.64, higher is better; NaN where it finds no speech, for a
        silent decoded signal, and for less than a quarter of a second.
    """
    pesq = optional("pesq", *PESQ_PACKAGES)
    if not decoded.any():
        return float("nan")
    pair = [wideband(x, sample_rate) for x in (reference, decoded)]
    try:
        return float(pesq.pesq(WIDEBAND_RATE, *pair, "wb"))
    except (pesq.NoUtterancesError, pesq.BufferTooShortError):
        return float("nan")


@intrusive
def visqol(reference, decoded, sample_rate):
    """ViSQOL version 3 in speech mode, at 16 kHz (Chinen et al., 2004.09584).

    Its deep lattice maps similarity to quality, as in Google's program; the
    package's other mapping is one or two points too kind to degraded speech.

    Returns
    -------
    float
        1 to 5, higher is better; NaN where the signals are too short (a
        second is enough) or too different to be aligned.
    """
    pair = [wideband(x, sample_rate) for x in (reference, decoded)]
    meter = _visqol_meter()
    try:
        return float(meter.measure_from_arrays(*pair, WIDEBAND_RATE).moslqo)
    except (ValueError, IndexError):
        return float("nan")


@cache
def _visqol_meter():
    meter = optional("visqol", *VISQOL_PACKAGES).VisqolApi()
    meter.create(mode="speech", use_lattice_model=True)
    return meter
