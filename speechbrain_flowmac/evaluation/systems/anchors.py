"""Low-pass anchors of listening tests (Recommendation ITU-R BS.1534-3).

Its low anchor passes 3.5 kHz within 0.1 dB and is down by 25 dB at 4 kHz and
by 50 dB at 4.5 kHz; its mid anchor passes 7 kHz, for which it draws no mask.
Here each is down by 60 dB within half a kilohertz.
"""

import numpy as np
import scipy
from scipy.signal import firwin, kaiserord, oaconvolve

from speechbrain_flowmac.evaluation.systems.base import (
    SAMPLE_RATE,
    Coded,
    Family,
    System,
    digest,
    positive,
)

ATTENUATION = 60.0  # in dB; the pass-band is then flat to 0.01 dB
TRANSITION = 500.0  # in Hz


def lowpass(cutoff, sample_rate):
    """Impulse response of a linear-phase low-pass filter, odd in length, by
    Kaiser's window.

    The pass-band ends at `cutoff` in Hz; half a kilohertz above it begins the
    stop-band, which must lie below half the sample rate.

    Example
    -------
    >>> response = lowpass(3500, 24000)
    >>> round(float(response.sum()), 6)
    1.0
    """
    if cutoff + TRANSITION >= sample_rate / 2:
        raise ValueError(
            f"a low-pass anchor at {sample_rate} Hz must be below "
            f"{(sample_rate / 2 - TRANSITION) / 1000:g} kHz, found "
            f"{cutoff / 1000:g} kHz"
        )
    taps, beta = kaiserord(ATTENUATION, TRANSITION / (sample_rate / 2))
    return firwin(
        taps | 1,
        cutoff + TRANSITION / 2,
        window=("kaiser", beta),
        fs=sample_rate,
    )


class LowPass(System):
    """An anchor: the signal without what is above `khz`, not delayed."""

    kind = "anchor"
    sample_rate = SAMPLE_RATE

    def __init__(self, name, khz):
        self.name = name
        self.label = f"Low-pass {khz:g} kHz"
        self.filter = lowpass(1000 * khz, self.sample_rate)
        self.fingerprint = digest(scipy.__version__, self.filter.tobytes())

    def encode(self, recording):
        """Filters; has no bit rate."""
        filtered = oaconvolve(recording.signal, self.filter)
        # the middle of a linear-phase filter is its delay
        start = len(self.filter) // 2
        kept = filtered[start : start + len(recording.signal)]
        return Coded(kept.astype(np.float64).tobytes(), None)

    def decode(self, coded, recording):
        """What was filtered, float64 [T]."""
        return np.frombuffer(coded.data, np.float64).copy()


FAMILIES = {
    "lowpass": Family(
        "lowpass:KHZ, such as lowpass:3.5 or lowpass:7", LowPass, positive
    )
}
