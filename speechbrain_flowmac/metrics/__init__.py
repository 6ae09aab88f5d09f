"""Objective quality of coded speech, and accuracy of F0.

`METRICS` is the table of all metrics of two waveforms, which are called as
`function(reference, decoded, sample_rate)` with arrays [T] and a rate in Hz, and
return a float, NaN where they have nothing to say. They are of two kinds:

* An intrusive metric measures how far the decoded signal is from the
  reference. A generative codec makes up detail that listeners accept and that
  the reference does not have, and loses points for it.
* A reference-free metric judges the decoded signal alone. It does not notice
  when a codec says something else, or in another voice: look at WER, STOI and
  speaker similarity as well.

Which to believe: the codecs of one published listening test (seven conditions,
so weak evidence) were scored with most of these. DNSMOS and DistillMOS agreed
best with the listeners, then WARP-Q and ViSQOL. PESQ, ESTOI, MCD and voicing
errors ranked the codecs the wrong way round: generative and mel-resynthesis
codecs lost points with them without losing listeners. Speaker similarity said
nothing. So steer by DistillMOS, DNSMOS and ViSQOL; take PESQ, STOI and ESTOI
as guards against unintelligible output, and choose between two good models by
none of those three. Report all.

What they hear: PESQ, ViSQOL, WARP-Q, DistillMOS, DNSMOS, WER, speaker similarity and
F0 work at 16 kHz and hear nothing above 8 kHz, STOI and ESTOI nothing above
5 kHz. The distances work at 24 kHz and hear up to 12 kHz.
"""

import os

from speechbrain_flowmac.metrics.cepstrum import mcd, mel_cepstral_distortion
from speechbrain_flowmac.metrics.distances import (
    log_mel_distance,
    mel_distance,
    si_sdr,
    stft_distance,
)
from speechbrain_flowmac.metrics.intelligibility import (
    STOI_PACKAGES,
    estoi,
    stoi,
)
from speechbrain_flowmac.metrics.metric import (
    INTRUSIVE,
    REFERENCE_FREE,
    Metric,
)
from speechbrain_flowmac.metrics.mos import (
    DISTILLMOS_PACKAGES,
    DNSMOS_PACKAGES,
    distillmos,
    dnsmos_background,
    dnsmos_overall,
    dnsmos_signal,
)
from speechbrain_flowmac.metrics.packages import is_installed, pip_install
from speechbrain_flowmac.metrics.pitch import (
    SWIFT_F0_PACKAGES,
    PitchErrors,
    f0_cents,
    f0_gross,
    harvest_f0,
    pitch_errors,
    voicing_error,
)
from speechbrain_flowmac.metrics.quality import (
    PESQ_PACKAGES,
    VISQOL_PACKAGES,
    pesq_wb,
    visqol,
)
from speechbrain_flowmac.metrics.recognition import (
    RECOGNISER_PACKAGES,
    RECOGNISER_VARIABLE,
    word_error_rate,
)
from speechbrain_flowmac.metrics.roughness import mel_roughness
from speechbrain_flowmac.metrics.signals import REFERENCE_LEVEL_DB, to_level
from speechbrain_flowmac.metrics.speaker import (
    SPEAKER_PACKAGES,
    SPEAKER_VARIABLE,
    speaker_similarity,
)
from speechbrain_flowmac.metrics.warpq import WARPQ_PACKAGES, warpq

__all__ = [
    "INTRUSIVE",
    "METRICS",
    "REFERENCE_FREE",
    "REFERENCE_LEVEL_DB",
    "Metric",
    "PitchErrors",
    "available",
    "distillmos",
    "dnsmos_background",
    "dnsmos_overall",
    "dnsmos_signal",
    "estoi",
    "f0_cents",
    "f0_gross",
    "harvest_f0",
    "log_mel_distance",
    "mcd",
    "mel_cepstral_distortion",
    "mel_distance",
    "mel_roughness",
    "pesq_wb",
    "pitch_errors",
    "si_sdr",
    "speaker_similarity",
    "stft_distance",
    "stoi",
    "to_level",
    "visqol",
    "voicing_error",
    "warpq",
    "word_error_rate",
]

# What all metrics of a package have in common, after their function
_PESQ = (INTRUSIVE, PESQ_PACKAGES)
_STOI = (INTRUSIVE, STOI_PACKAGES)
_VISQOL = (INTRUSIVE, VISQOL_PACKAGES)
_WARPQ = (INTRUSIVE, WARPQ_PACKAGES)
_F0 = (INTRUSIVE, SWIFT_F0_PACKAGES)
_DNSMOS = (REFERENCE_FREE, DNSMOS_PACKAGES)
_DISTILLMOS = (REFERENCE_FREE, DISTILLMOS_PACKAGES)
_SPEAKER = (INTRUSIVE, SPEAKER_PACKAGES, SPEAKER_VARIABLE)
_WER = (INTRUSIVE, RECOGNISER_PACKAGES, RECOGNISER_VARIABLE)

METRICS = {
    "pesq": Metric("PESQ-WB", 2, True, pesq_wb, *_PESQ),
    "stoi": Metric("STOI", 3, True, stoi, *_STOI),
    "estoi": Metric("ESTOI", 3, True, estoi, *_STOI),
    "visqol": Metric("ViSQOL", 2, True, visqol, *_VISQOL),
    "warpq": Metric("WARP-Q", 2, False, warpq, *_WARPQ),
    "distillmos": Metric("DistillMOS", 2, True, distillmos, *_DISTILLMOS),
    "dnsmos": Metric("DNSMOS", 2, True, dnsmos_overall, *_DNSMOS),
    "dnsmos_sig": Metric("DNSMOS SIG", 2, True, dnsmos_signal, *_DNSMOS),
    "dnsmos_bak": Metric("DNSMOS BAK", 2, True, dnsmos_background, *_DNSMOS),
    "si_sdr": Metric("SI-SDR, dB", 1, True, si_sdr),
    "mel": Metric("log-mel L1", 3, False, mel_distance),
    "stft": Metric("MR-STFT", 3, False, stft_distance),
    "mcd": Metric("MCD, dB", 2, False, mcd),
    "f0_cents": Metric("F0 error, cents", 1, False, f0_cents, *_F0),
    "f0_gross": Metric("F0 gross errors, %", 1, False, f0_gross, *_F0),
    "voicing": Metric("voicing errors, %", 1, False, voicing_error, *_F0),
    "speaker": Metric("speaker", 3, True, speaker_similarity, *_SPEAKER),
    "wer": Metric("WER, %", 1, False, word_error_rate, *_WER),
}


def available(name):
    """Why a metric cannot run here, found without importing its packages.

    Arguments
    ---------
    name : str
        Key of `METRICS`.

    Returns
    -------
    str or None
        One line that says what to install; None if it can run.

    Example
    -------
    >>> available("mel")
    """
    metric = METRICS[name]
    if metric.variable and os.environ.get(metric.variable):
        return None
    if all(map(is_installed, metric.packages)):
        return None
    return f"{metric.heading} needs {pip_install(metric.packages)}"
