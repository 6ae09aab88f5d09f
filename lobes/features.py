"""Log-mel spectrograms in the BigVGAN convention.

    samples  |--------- T ---------|zeros to N * hop|
    padded   |pad| N * hop                        |pad|   by reflection
    frames   N = ceil(T / hop), frame n starts at n * hop - pad

with pad = (n_fft - hop) / 2, so that frame n is centred on the n-th hop.
"""

from dataclasses import dataclass

import torch
from torch import nn

from speechbrain_flowmac.lobes.front_end import (
    FrontEnd,
    FrontEndMismatchError,
    FrontEndSettings,
)

# all of these can be imported from here too, where they once were
from speechbrain_flowmac.lobes.lengths import (  # noqa: F401
    absolute_lengths,
    length_mask,
    num_frames,
)
from speechbrain_flowmac.lobes.mel_scale import (  # noqa: F401
    hz_to_mel,
    mel_filterbank,
    mel_to_hz,
)
from speechbrain_flowmac.lobes.normalizer import (  # noqa: F401
    MelNormalizer,
    RunningStatistics,
)

MAGNITUDE_FLOOR = 1e-9
MEL_FLOOR = 1e-5


# its name from when there were only mels
MelMismatchError = FrontEndMismatchError


@dataclass(frozen=True)
class MelSettings(FrontEndSettings):
    """What defines a mel front end; it travels with the weights.

    Arguments
    ---------
    sample_rate : int
        In Hz.
    n_fft : int
        FFT size in samples.
    hop_length : int
        Samples per frame.
    win_length : int
        Length of the Hann window in samples, at most `n_fft`.
    n_mels : int
        Number of mel bands.
    f_min : float
        Lower edge of the first band in Hz.
    f_max : float or None
        Upper edge of the last band in Hz; None is half the sample rate.

    Example
    -------
    >>> MelSettings(sample_rate=24000).frame_rate
    46.875
    """

    kind = "mel"

    sample_rate: int = 24000
    n_fft: int = 2048
    hop_length: int = 512
    win_length: int = 2048
    n_mels: int = 128
    f_min: float = 0.0
    f_max: float | None = None

    def __post_init__(self):
        f_max = self.sample_rate / 2 if self.f_max is None else self.f_max
        object.__setattr__(self, "f_max", float(f_max))
        object.__setattr__(self, "f_min", float(self.f_min))
        if not 0 < self.win_length <= self.n_fft:
            raise ValueError(
                f"win_length must be in 1..n_fft={self.n_fft}, "
                f"found {self.win_length}"
            )
        if self.n_fft < self.hop_length or (self.n_fft - self.hop_length) % 2:
            raise ValueError(
                "n_fft - hop_length must be even and not negative, found "
                f"n_fft={self.n_fft}, hop_length={self.hop_length}"
            )
        if not 0 <= self.f_min < self.f_max <= self.sample_rate / 2:
            raise ValueError(
                "bands need 0 <= f_min < f_max <= sample_rate / 2, found "
                f"f_min={self.f_min}, f_max={self.f_max}, "
                f"sample_rate={self.sample_rate}"
            )

    @property
    def frame_length(self):
        """Samples that a frame depends on."""
        return self.n_fft

    @property
    def width(self):
        """Features of a frame."""
        return self.n_mels


class LogMel(FrontEnd):
    """Natural-log mel spectrogram, as BigVGAN's weights expect it.

    Magnitudes of a Hann-windowed STFT, not centred, after reflection of
    (n_fft - hop) / 2 samples at both ends; Slaney's mel filters; natural
    logarithm of the value clamped at 1e-5. Each item of a batch is reflected
    at its own end, so that padding changes nothing.

    Arguments
    ---------
    settings : MelSettings
        The front end.

    Example
    -------
    >>> features = LogMel(MelSettings())
    >>> features(torch.randn(2, 24000)).shape
    torch.Size([2, 47, 128])
    """

    def __init__(self, settings):
        super().__init__(settings)
        window = torch.hann_window(settings.win_length, dtype=torch.float32)
        filters = mel_filterbank(
            settings.sample_rate,
            settings.n_fft,
            settings.n_mels,
            settings.f_min,
            settings.f_max,
        )
        self.register_buffer("window", window, persistent=False)
        self.register_buffer("filters", filters, persistent=False)

    def _reflected(self, wav, num_samples):
        """Pads each item to whole hops with zeros, then by reflection."""
        hop = self.settings.hop_length
        pad = (self.settings.n_fft - hop) // 2
        frames = num_frames(wav.shape[1], hop)
        wav = nn.functional.pad(wav, (0, frames * hop - wav.shape[1]))
        position = torch.arange(-pad, frames * hop + pad, device=wav.device)
        if num_samples is None:
            last = frames * hop - 1
            folded = _fold(position, last)
            return wav[:, folded.clamp(max=last)]
        last = num_frames(num_samples, hop) * hop - 1
        folded = _fold(position[None], last[:, None])
        # past an item's own end any sample will do: its frames are masked
        return wav.gather(1, folded.clamp(max=frames * hop - 1))

    def forward(self, wav, num_samples=None):
        """Computes the log-mel spectrogram in float32.

        Arguments
        ---------
        wav : torch.Tensor
            Signals, shape [B, T], in [-1, 1]; past an item's end, zeros.
        num_samples : torch.Tensor or None
            Exact lengths, int64 [B]; None if all are T.

        Returns
        -------
        torch.Tensor
            Shape [B, N, M] with N = ceil(T / hop). Frames past
            ceil(num_samples / hop) mean nothing.
        """
        if wav.ndim != 2 or wav.shape[1] == 0:
            raise ValueError(
                f"expected signals of shape [B, T], found {list(wav.shape)}"
            )
        s = self.settings
        with torch.autocast(wav.device.type, enabled=False):
            spectrum = torch.stft(
                self._reflected(wav.to(self.filters.dtype), num_samples),
                n_fft=s.n_fft,
                hop_length=s.hop_length,
                win_length=s.win_length,
                window=self.window,
                center=False,
                return_complex=True,
            )
            power = spectrum.real.square() + spectrum.imag.square()
            magnitude = torch.sqrt(power + MAGNITUDE_FLOOR)
            mel = self.filters @ magnitude
            return mel.clamp(min=MEL_FLOOR).log().transpose(1, 2)


def _fold(position, last):
    """Reflects positions into 0..last, as often as it takes."""
    period = 2 * last
    folded = position.remainder(period)
    return torch.where(folded > last, period - folded, folded)
