"""WARP-Q: what it costs to warp decoded speech onto the reference.

Written from Jassim et al., "Speech quality assessment with WARP-Q" (IET Signal
Processing, 2022), with the settings of the authors' package.
"""

import numpy as np

from speechbrain_flowmac.metrics.metric import intrusive
from speechbrain_flowmac.metrics.packages import optional
from speechbrain_flowmac.metrics.signal_cache import remembered
from speechbrain_flowmac.metrics.signals import WIDEBAND_RATE, wideband

# webrtcvad asks setuptools for its version
WARPQ_PACKAGES = ("librosa", "webrtcvad", "setuptools<82")

WINDOW, HOP = 512, 64  # samples: 32 ms every 4 ms
MFCC = dict(n_mfcc=13, fmax=5000, lifter=3, n_fft=2 * WINDOW)
NORMALISED = 201  # frames over which cepstra get mean 0 and deviation 1
PATCH, PATCH_HOP = 92, 42  # frames: about 0.4 s every 0.2 s
STEPS = np.array([[1, 0], [0, 3], [1, 3]])  # of the path: decoded, reference
VOICE_FRAME = 480  # samples: 30 ms


@intrusive
def warpq(reference, decoded, sample_rate):
    """WARP-Q of speech, at 16 kHz.

    Cepstra of each 0.4 s of what was decoded are aligned with the stretch of
    the reference that they fit best, by subsequence dynamic time warping, so
    that neither delays nor another timing count. The score is the median of
    the costs, per frame.

    Returns
    -------
    float
        0 to about 3.5, lower is better; NaN where either has less than
        0.4 s of speech.
    """
    dtw = optional("librosa", *WARPQ_PACKAGES).sequence.dtw
    wanted, found = (_cepstra(x, sample_rate) for x in (reference, decoded))
    if wanted is None or found is None:
        return float("nan")
    costs = []
    for start in range(0, found.shape[1] - PATCH + 1, PATCH_HOP):
        patch = found[:, start : start + PATCH]
        total = dtw(
            patch,
            wanted,
            subseq=True,
            backtrack=False,
            step_sizes_sigma=STEPS,
            weights_mul=np.ones(3),
        )
        costs.append(total[-1].min() / PATCH)
    return float(np.median(costs))


@remembered
def _cepstra(signal, sample_rate):
    """Normalised MFCCs of the speech in a signal [13, N], or None."""
    librosa = optional("librosa", *WARPQ_PACKAGES)
    speech = _speech(wideband(signal, sample_rate).astype(np.float32))
    if len(speech) < 2 * WINDOW or len(speech) // HOP + 1 < PATCH:
        return None
    cepstra = librosa.feature.mfcc(
        y=speech, sr=WIDEBAND_RATE, win_length=WINDOW, hop_length=HOP, **MFCC
    )
    centred = cepstra - _windows(cepstra).mean(-1)
    return centred / (_windows(centred).std(-1) + 2**-30)


def _windows(rows):
    """What is around each frame, mirrored at the ends: [13, N, 201]."""
    half = NORMALISED // 2
    padded = np.pad(rows, ((0, 0), (half, half)), "symmetric")
    return np.lib.stride_tricks.sliding_window_view(padded, NORMALISED, -1)


def _speech(signal):
    """The frames that are taken for speech, and those beside them."""
    voice = optional("webrtcvad", *WARPQ_PACKAGES).Vad(0)
    pcm = np.clip(signal * 32768, -32768, 32767).astype(np.int16)
    padded = np.pad(pcm, (0, VOICE_FRAME - len(pcm) % VOICE_FRAME))
    frames = padded.reshape(-1, VOICE_FRAME)
    found = [voice.is_speech(x.tobytes(), WIDEBAND_RATE) for x in frames]
    kept = np.convolve(found, np.ones(3), mode="same") > 0
    return signal[np.repeat(kept, VOICE_FRAME)[: len(signal)]]
