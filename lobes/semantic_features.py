"""What a frozen recogniser makes of speech, at the codec's frame rate."""

import torch
from torch import nn


def resample_frames(frames, lengths, ratio, num_out):
    """Frames at another rate, by linear interpolation.

    Arguments
    ---------
    frames : torch.Tensor
        Shape [B, N, D].
    lengths : torch.Tensor
        Exact numbers of frames, int64 [B]; what lies past them is not used.
    ratio : float
        Frames in per frame out; at 1 nothing changes.
    num_out : int
        Frames out.

    Returns
    -------
    torch.Tensor
        Shape [B, num_out, D]; past an item's end its last frame goes on.

    Example
    -------
    >>> frames = torch.tensor([[[0.0], [2.0], [4.0]]])
    >>> resample_frames(frames, torch.tensor([3]), 0.5, 6).flatten().tolist()
    [0.0, 0.5, 1.5, 2.5, 3.5, 4.0]
    """
    steps = torch.arange(num_out, device=frames.device, dtype=torch.float64)
    centres = ((steps + 0.5) * ratio - 0.5).clamp(min=0)
    last = (lengths - 1).unsqueeze(1)
    low = torch.minimum(centres.floor().long()[None], last)
    high = torch.minimum(low + 1, last)
    share = (centres - centres.floor()).to(frames).unsqueeze(-1)
    low, high = (
        frames.gather(1, index.unsqueeze(-1).expand(-1, -1, frames.shape[2]))
        for index in (low, high)
    )
    return low + share * (high - low)


class RecogniserFeatures(nn.Module):
    """What a `CTCRecogniser` of normalised log-mels knows before its output.

    It is frozen: training never changes it, and never reaches through it.

    Arguments
    ---------
    recogniser : CTCRecogniser
        Of mels; it halves their rate.
    dim : int
        Width D of its encoder.

    Example
    -------
    >>> from speechbrain_flowmac.lobes.ctc_recogniser import (
    ...     CTCRecogniser,
    ...     LSTMEncoder,
    ... )
    >>> recogniser = CTCRecogniser(
    ...     nn.Linear(10, 8), LSTMEncoder(8, 1), dim=8, num_symbols=29
    ... )
    >>> features = RecogniserFeatures(recogniser, dim=8)
    >>> mel, mask = torch.randn(1, 5, 10), torch.ones(1, 5, dtype=torch.bool)
    >>> frames, lengths = features(None, mel, mask)
    >>> frames.shape, lengths.tolist()
    (torch.Size([1, 3, 8]), [3])
    """

    stride = 2
    """Mel frames per frame."""

    def __init__(self, recogniser, dim):
        super().__init__()
        self.recogniser = recogniser.requires_grad_(False)
        self.dim = dim
        self.eval()

    def train(self, mode=True):
        """Stays in evaluation mode."""
        return super().train(False)

    @torch.no_grad()
    def forward(self, wav, mel, mask):
        """Listens.

        Arguments
        ---------
        wav : torch.Tensor
            Shape [B, T]; this recogniser hears the mel instead.
        mel : torch.Tensor
            Normalised log-mel, shape [B, N, M].
        mask : torch.Tensor
            Shape [B, N], True where valid.

        Returns
        -------
        tuple of torch.Tensor
            Features [B, N', D] and exact lengths, int64 [B].
        """
        # the same features under anyone's autocast
        with torch.autocast(mel.device.type, enabled=False):
            features, lengths = self.recogniser.encode(mel.float(), mask.sum(1))
        return features, lengths
