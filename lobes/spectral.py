"""STFT pair of frame-rate vocoders: F frames for F * hop samples.

    samples  |        F * hop        |
    frame f  starts at f * hop - pad, pad = (n_fft - hop) / 2

The same framing as the mel's, so that frame f of a vocoder is centred on
hop f of the signal.
"""

import torch
from torch import nn
from torch.nn import functional as F


class FramedSTFT(nn.Module):
    """Hann-windowed STFT and its inverse by weighted overlap-add.

    Arguments
    ---------
    n_fft : int
        FFT and window size, a multiple of `hop_length`; n_fft - hop_length
        is even.
    hop_length : int
        Samples per frame.

    Example
    -------
    >>> stft = FramedSTFT(1024, 256)
    >>> signal = torch.randn(2, 40 * 256)
    >>> spectrum = stft(signal)
    >>> spectrum.shape
    torch.Size([2, 40, 513])
    >>> stft.inverse(spectrum).allclose(signal, atol=1e-4)
    True
    """

    def __init__(self, n_fft, hop_length):
        super().__init__()
        if n_fft % hop_length or (n_fft - hop_length) % 2:
            raise ValueError(
                "n_fft must be a multiple of hop_length, and their difference "
                f"even; found {n_fft} and {hop_length}"
            )
        self.n_fft = n_fft
        self.hop_length = hop_length
        self.pad = (n_fft - hop_length) // 2
        self.num_bins = n_fft // 2 + 1
        self.register_buffer(
            "window", torch.hann_window(n_fft), persistent=False
        )

    def forward(self, signal):
        """[B, F * hop] to complex [B, F, n_fft / 2 + 1]."""
        return torch.stft(
            F.pad(signal, (self.pad, self.pad)),
            self.n_fft,
            self.hop_length,
            window=self.window.to(signal.dtype),
            center=False,
            return_complex=True,
        ).mT

    def _overlap_add(self, frames):
        """[B, F, n_fft] to [B, F * hop], the padding cut off."""
        overlap = self.n_fft // self.hop_length
        hops = frames.unflatten(-1, (overlap, self.hop_length))
        num_frames = frames.shape[1]
        # hop j of frame f lands on hop f + j of the padded signal
        total = sum(
            F.pad(hops[:, :, j], (0, 0, j, overlap - 1 - j))
            for j in range(overlap)
        )
        end = self.pad + num_frames * self.hop_length
        return total.flatten(1)[:, self.pad : end]

    def inverse(self, spectrum, mask=None):
        """Synthesis, least squares in the sense of Griffin and Lim (1984).

        Arguments
        ---------
        spectrum : torch.Tensor
            Complex, shape [B, F, n_fft / 2 + 1].
        mask : torch.Tensor or None
            Shape [B, F], True where valid. An item ends with its last valid
            frame, as if the others did not exist.

        Returns
        -------
        torch.Tensor
            Shape [B, F * hop].
        """
        frames = torch.fft.irfft(spectrum, n=self.n_fft)
        # spectra are never of half precision, windows of a cast model are
        window = self.window.to(frames.dtype)
        frames = frames * window
        weight = window.square().expand(1, spectrum.shape[1], -1)
        if mask is not None:
            mask = mask.unsqueeze(-1).to(frames.dtype)
            frames = frames * mask
            weight = weight * mask
        weight = self._overlap_add(weight).clamp(min=1e-8)
        signal = self._overlap_add(frames) / weight
        if mask is not None:
            # the last valid frames ring on past the end
            signal = signal * mask.squeeze(-1).repeat_interleave(
                self.hop_length, dim=1
            )
        return signal
