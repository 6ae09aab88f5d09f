"""The spread over bands that decoding takes from a mel.

What minimises an error says the mean of all that may have been, and a mean is
flatter than each of them: peaks are lower, valleys are filled, the more so the
fewer codebooks there are. The ratio of both spreads is measured once, and every
frame is stretched by it about its own mean. Toda and Tokuda, "A Speech
Parameter Generation Algorithm Considering Global Variance" (IEICE Trans. Inf. &
Syst. E90-D, 2007), do the same along an utterance; a frame by itself needs no
context, so a stream is decoded as its whole is.
"""

import torch
from torch import nn


class MelSpread(nn.Module):
    """Stretches log-mels over their bands and keeps the power of each frame.

    Arguments
    ---------
    ratios : sequence of float
        Spread of true log-mels over that of decoded ones, for 1, 2, ... K
        codebooks; `recipes/LibriTTS/codec/mel_spread.py` measures them.

    Example
    -------
    >>> spread = MelSpread([1.5, 1.2])
    >>> mel = torch.tensor([[[0.0, -1.0, -2.0]]])
    >>> wide = spread(mel, num_codebooks=1)
    >>> wide[0, 0] - wide[0, 0, 0]
    tensor([ 0.0000, -1.5000, -3.0000])
    >>> torch.allclose(wide.exp().square().sum(), mel.exp().square().sum())
    True
    """

    def __init__(self, ratios):
        super().__init__()
        self.ratios = [float(ratio) for ratio in ratios]
        if not all(0 < ratio < float("inf") for ratio in self.ratios):
            raise ValueError(f"ratios must be above 0, found {self.ratios}")

    def forward(self, mel, num_codebooks, strength=1.0):
        """Stretches.

        Arguments
        ---------
        mel : torch.Tensor
            Natural logarithm of magnitudes, shape [..., M].
        num_codebooks : int
            That it was decoded from, 1..K.
        strength : float
            0 changes nothing, 1 gives all of the spread back.

        Returns
        -------
        torch.Tensor
            Shape [..., M].
        """
        if num_codebooks > len(self.ratios):
            raise ValueError(
                f"expected 1..{len(self.ratios)} codebooks, as there are "
                f"ratios, found {num_codebooks}"
            )
        ratio = 1 + strength * (self.ratios[num_codebooks - 1] - 1)
        mean = mel.mean(-1, keepdim=True)
        wide = mean + ratio * (mel - mean)
        return wide + (log_power(mel) - log_power(wide)) / 2


def log_power(mel):
    """Logarithm of the summed squares of magnitudes, shape [..., 1]."""
    return torch.logsumexp(2 * mel, -1, keepdim=True)
