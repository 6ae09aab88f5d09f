"""The modified discrete cosine transform: overlapping frames, no redundancy.

Princen, Johnson and Bradley (1987). With hop N, frames of 2 N samples x,
window w and k = 0 ... N - 1,

    X[k] = sqrt(2 / N) sum_n w[n] x[n] cos(pi / N (n + N/2 + 1/2) (k + 1/2))

N coefficients for N new samples. The inverse is the transpose: what one frame
aliases, its neighbours cancel. The signal gets N zeros on both sides, so that
its first and last samples lie in two frames as well,

    0 0 0 0|a a a a|b b b b|0 0 0 0
    [  frame 0     ]
            [  frame 1     ]
                    [  frame 2     ]

and the whole transform is orthonormal: it keeps the energy of any signal.
"""

import math

import torch
from torch import nn
from torch.nn import functional as F

from speechbrain_flowmac.lobes.lengths import num_frames


def sine_window(length):
    """sin(pi (n + 1/2) / length), the window of MP3's long blocks.

    Arguments
    ---------
    length : int
        Samples 2 N.

    Returns
    -------
    torch.Tensor
        float64 [length].

    Example
    -------
    >>> sine_window(4).square()
    tensor([0.1464, 0.8536, 0.8536, 0.1464], dtype=torch.float64)
    """
    n = torch.arange(length, dtype=torch.float64)
    return torch.sin(math.pi * (n + 0.5) / length)


def kbd_window(length, alpha=4.0):
    """Kaiser-Bessel-derived window, of AAC and AC-3.

    Running sums of a Kaiser window: less leakage far from a tone than the
    sine window has, more near it.

    Arguments
    ---------
    length : int
        Samples 2 N, even.
    alpha : float
        Shape of the Kaiser window, whose beta is pi alpha; 4 in AAC.

    Returns
    -------
    torch.Tensor
        float64 [length].

    Example
    -------
    >>> window = kbd_window(8)
    >>> power = window[:4].square() + window[4:].square()
    >>> bool((power - 1).abs().max() < 1e-12)
    True
    """
    kaiser = torch.kaiser_window(
        length // 2 + 1,
        periodic=False,
        beta=math.pi * alpha,
        dtype=torch.float64,
    )
    rise = (kaiser.cumsum(0)[:-1] / kaiser.sum()).sqrt()
    return torch.cat([rise, rise.flip(0)])


class MDCT(nn.Module):
    """Signals to MDCT frames and back, by FFT.

    Computes in float32, or in float64 where the input is. A frame of an item
    depends on that item alone; zeros past its end give frames of zeros.

    Arguments
    ---------
    hop_length : int
        N, also the number of coefficients of a frame.
    window : callable
        `window(2 N) -> [2 N]`, symmetric with w[n]^2 + w[n + N]^2 = 1.

    Example
    -------
    >>> mdct = MDCT(512)
    >>> wav = torch.randn(2, 24000)
    >>> tokens = mdct.to_tokens(wav)
    >>> tokens.shape, mdct.num_tokens(24000)
    (torch.Size([2, 48, 512]), 48)
    >>> again = mdct.from_tokens(tokens, 24000)
    >>> bool((again - wav).abs().max() < 1e-5)
    True
    """

    def __init__(self, hop_length, window=sine_window):
        super().__init__()
        if hop_length < 1:
            raise ValueError(
                f"hop_length must be at least 1, found {hop_length}"
            )
        self.hop_length = hop_length
        # Plain attributes in double precision: casts of the module must not
        # round them.
        self._window = window(2 * hop_length)
        self._check_window()
        shift = (hop_length + 1) / 2
        n = torch.arange(2 * hop_length, dtype=torch.float64)
        k = n[:hop_length]
        turn = -math.pi / hop_length
        self._time_in = torch.polar(self._window, turn * n / 2)
        self._bins_out = self._unit(turn * shift * (k + 0.5))
        self._bins_in = self._unit(turn * shift * k)
        self._time_out = torch.polar(self._window, turn * (n + shift) / 2)

    def _unit(self, angles):
        """exp(j angle), scaled so that the transform is orthonormal."""
        scale = math.sqrt(2 / self.hop_length)
        return torch.polar(torch.full_like(angles, scale), angles)

    def _check_window(self):
        """Refuses windows that do not reconstruct."""
        window, hop = self._window, self.hop_length
        if window.shape != (2 * hop,):
            raise ValueError(
                f"the window must have {2 * hop} samples, found shape "
                f"{list(window.shape)}"
            )
        power = window[:hop].square() + window[hop:].square()
        error = max(
            (power - 1).abs().max().item(),
            (window - window.flip(0)).abs().max().item(),
        )
        if not error < 1e-9:
            raise ValueError(
                "the window must be symmetric with w[n]^2 + w[n + N]^2 = 1 "
                f"for perfect reconstruction; it is off by {error:.2g}"
            )

    def num_tokens(self, num_samples):
        """Frames of a signal: one more than hops that it touches.

        Arguments
        ---------
        num_samples : int or torch.Tensor
            T.

        Returns
        -------
        int or torch.Tensor
        """
        return num_frames(num_samples, self.hop_length) + 1

    def to_tokens(self, signal):
        """The transform.

        Arguments
        ---------
        signal : torch.Tensor
            Shape [B, T], any T.

        Returns
        -------
        torch.Tensor
            Coefficients, shape [B, ceil(T / N) + 1, N].
        """
        hop = self.hop_length
        missing = -signal.shape[1] % hop
        return self._analyse(F.pad(signal, (hop, hop + missing)))

    def _analyse(self, signal):
        """Coefficients of all frames that lie in a signal."""
        hop = self.hop_length
        signal = signal.to(torch.promote_types(signal.dtype, torch.float32))
        frames = signal.unfold(1, 2 * hop, hop)
        spectrum = torch.fft.fft(frames * _like(self._time_in, frames))
        return (spectrum[..., :hop] * _like(self._bins_out, frames)).real

    def from_tokens(self, tokens, num_samples=None):
        """The inverse.

        Arguments
        ---------
        tokens : torch.Tensor
            Coefficients, shape [B, F, N].
        num_samples : int or None
            T, where the signal ends; None for all (F - 1) N samples.

        Returns
        -------
        torch.Tensor
            Shape [B, T].
        """
        hop = self.hop_length
        whole = (tokens.shape[1] - 1) * hop
        num_samples = self._check_tokens(tokens, whole, num_samples)
        frames = self._synthesise(tokens)
        overlap = frames[:, 1:, :hop] + frames[:, :-1, hop:]
        return overlap.flatten(1)[:, :num_samples]

    def _check_tokens(self, tokens, whole, num_samples):
        """The length to give, at most that of the whole signal."""
        hop = self.hop_length
        if tokens.shape[1] < 1 or tokens.shape[2] != hop:
            raise ValueError(
                f"expected frames of {hop} coefficients, [B, F >= 1, {hop}], "
                f"found shape {list(tokens.shape)}"
            )
        num_samples = whole if num_samples is None else num_samples
        if not 0 <= num_samples <= whole:
            raise ValueError(
                f"{tokens.shape[1]} frames hold up to {whole} samples, found "
                f"num_samples={num_samples}"
            )
        return num_samples

    def _synthesise(self, tokens):
        """Windowed frames [B, F, 2 N], which are to be overlapped."""
        tokens = tokens.to(torch.promote_types(tokens.dtype, torch.float32))
        width = 2 * self.hop_length
        spectrum = torch.fft.fft(tokens * _like(self._bins_in, tokens), width)
        return (spectrum * _like(self._time_out, tokens)).real


def _like(factors, tensor):
    """Complex factors in the precision and on the device of a real tensor."""
    return factors.to(tensor.dtype.to_complex()).to(tensor.device)
