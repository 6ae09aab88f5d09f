"""Short-time objective intelligibility, plain and extended."""

import warnings

from speechbrain_flowmac.metrics.metric import intrusive
from speechbrain_flowmac.metrics.packages import optional

STOI_PACKAGES = ("pystoi",)


@intrusive
def stoi(reference, decoded, sample_rate):
    """Short-time objective intelligibility (Taal et al., 2011), at 10 kHz.

    Returns
    -------
    float
        About 0 to 1, higher is better; NaN where fewer than 0.4 s of the
        reference are speech.
    """
    return _stoi(reference, decoded, sample_rate, extended=False)


@intrusive
def estoi(reference, decoded, sample_rate):
    """Extended short-time objective intelligibility (Jensen and Taal, 2016).

    Returns
    -------
    float
        About 0 to 1, higher is better; NaN where fewer than 0.4 s of the
        reference are speech.
    """
    return _stoi(reference, decoded, sample_rate, extended=True)


def _stoi(reference, decoded, sample_rate, extended):
    pystoi = optional("pystoi", *STOI_PACKAGES)
    with warnings.catch_warnings():
        # said where it returns a small number for want of speech
        warnings.filterwarnings("error", "Not enough STFT frames")
        try:
            return float(
                pystoi.stoi(reference, decoded, sample_rate, extended=extended)
            )
        # the latter where there is not even a frame
        except (RuntimeWarning, IndexError):
            return float("nan")
