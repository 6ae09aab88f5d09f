"""The MDCT of finite signals: as many frames as hops.

`lobes.mdct` needs one frame more, as every sample lies in two. Here frames
overlap by half a hop about the borders between hops, and signals end without
overlap:

    hops       |a a a a|b b b b|c c c c|
    frame 0    [      ]
    frame 1          [         ]
    frame 2                  [       ]

N coefficients for N samples, orthonormal for every whole number of hops. An
end without overlap is one beyond which the signal goes on, mirrored: there
its frame is folded, and what is folded onto it is what the window took away.
With the window w and x_i, i = 0 ... N/2 - 1, counted from the end inwards,

    w[N/2 + i] x_i + w[N/2 - 1 - i] e_i = x_i.
"""

import torch
from torch.nn import functional as F

from speechbrain_flowmac.lobes.lengths import num_frames
from speechbrain_flowmac.lobes.mdct import MDCT, sine_window


class BlockMDCT(MDCT):
    """Signals of whole hops to as many MDCT frames, and back.

    Frame n has N coefficients and depends on hop n and half a hop on each
    side. Items of a batch end where each ends: padding changes nothing.

    Arguments
    ---------
    hop_length : int
        N, even.
    window : callable
        As for `MDCT`.

    Example
    -------
    >>> mdct = BlockMDCT(512)
    >>> wav = torch.randn(2, 24000)
    >>> tokens = mdct.to_tokens(wav)
    >>> tokens.shape, mdct.num_tokens(24000)
    (torch.Size([2, 47, 512]), 47)
    >>> again = mdct.from_tokens(tokens, 24000)
    >>> bool((again - wav).abs().max() < 1e-5)
    True
    """

    def __init__(self, hop_length, window=sine_window):
        if hop_length % 2:
            raise ValueError(f"hop_length must be even, found {hop_length}")
        super().__init__(hop_length, window)
        half = hop_length // 2
        inside = self._window[half:hop_length]
        self._beyond = (1 - inside) / self._window[:half].flip(0)
        self._gain = 1 / inside

    def num_tokens(self, num_samples):
        """Frames of a signal: ceil(T / N)."""
        return num_frames(num_samples, self.hop_length)

    def to_tokens(self, signal, num_samples=None):
        """The transform.

        Arguments
        ---------
        signal : torch.Tensor
            Shape [B, T], zeros past an item's end.
        num_samples : torch.Tensor or None
            Exact lengths, int64 [B]; None if all are T.

        Returns
        -------
        torch.Tensor
            Coefficients, shape [B, ceil(T / N), N]; frames past an item's
            end mean nothing.
        """
        half = self.hop_length // 2
        frames = self.num_tokens(signal.shape[1])
        if num_samples is not None:
            frames = self.num_tokens(num_samples)
        missing = -signal.shape[1] % self.hop_length
        signal = F.pad(signal, (half, half + missing))
        beyond = self._beyond.to(signal)
        left = signal[:, half : 2 * half] * beyond
        inside, steps = self._before_end(signal, frames)
        signal = signal.scatter(
            1, inside + 1 + 2 * steps, signal.gather(1, inside) * beyond
        )
        signal = torch.cat([-left.flip(1), signal[:, half:]], dim=1)
        return self._analyse(signal)

    def from_tokens(self, tokens, num_samples=None, num_tokens=None):
        """The inverse.

        Arguments
        ---------
        tokens : torch.Tensor
            Coefficients, shape [B, F, N].
        num_samples : int or None
            T, where to cut the signal; None for all F N samples.
        num_tokens : torch.Tensor or None
            Exact numbers of frames, int64 [B]; None if all are F.

        Returns
        -------
        torch.Tensor
            Shape [B, T]; zeros past an item's end.
        """
        hop, half = self.hop_length, self.hop_length // 2
        count = tokens.shape[1]
        self._check_tokens(tokens, count * hop, num_samples)
        frames = F.pad(self._synthesise(tokens), (0, 0, 1, 1))
        if num_tokens is not None:
            ends = torch.arange(-1, count + 1, device=tokens.device)
            past = ends >= num_tokens[:, None]
            frames = frames.masked_fill(past.unsqueeze(-1), 0.0)
        signal = frames[:, 1:, :hop] + frames[:, :-1, hop:]
        signal = signal.flatten(1)
        gain = self._gain.to(signal)
        inside, _ = self._before_end(
            signal, count if num_tokens is None else num_tokens
        )
        signal = signal.scatter(1, inside, signal.gather(1, inside) * gain)
        first = signal[:, half : 2 * half] * gain
        signal = torch.cat([first, signal[:, 2 * half :]], dim=1)
        signal = signal[:, : count * hop]
        if num_tokens is not None:
            past = torch.arange(count * hop, device=signal.device)
            past = past >= num_tokens[:, None] * hop
            signal = signal.masked_fill(past, 0.0)
        return signal[:, :num_samples]

    def _before_end(self, signal, frames):
        """Indices [B, N/2] of the last samples of items that start at N/2,
        last first, and 0 ... N/2 - 1."""
        half = self.hop_length // 2
        steps = torch.arange(half, device=signal.device)
        ends = torch.as_tensor(frames, device=signal.device) * self.hop_length
        inside = half + ends.reshape(-1, 1) - 1 - steps
        return inside.expand(len(signal), half), steps
