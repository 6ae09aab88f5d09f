"""What a frozen teacher makes of speech, at the codec's frame rate."""

import torch
from torch import nn
from torch.nn import functional as F
from torch.nn.utils.rnn import pad_sequence
from torchaudio.functional import resample

from speechbrain_flowmac.lobes.encoder import join_frames
from speechbrain_flowmac.lobes.lengths import num_frames


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


class FrozenTeacher(nn.Module):
    """What a frozen network knows of speech, frame by frame.

    Training never changes it, and never reaches through it.

    Arguments
    ---------
    network : torch.nn.Module
        What stays as it is, in float32.
    dim : int
        Width D of its features.
    """

    def __init__(self, network, dim):
        super().__init__()
        self.dim = dim
        network.float().requires_grad_(False)

    def train(self, mode=True):
        """Stays in evaluation mode."""
        return super().train(False)

    @torch.no_grad()
    def forward(self, wav, mel, mask):
        """Listens.

        Arguments
        ---------
        wav : torch.Tensor
            Shape [B, T], zeros past an item's end.
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
            return self.listen(wav.float(), mel.float(), mask)


class RecogniserFeatures(FrozenTeacher):
    """What a `CTCRecogniser` of normalised log-mels knows before its output.

    Arguments
    ---------
    recogniser : CTCRecogniser
        Of mels; it halves their rate.
    dim : int
        Width D of its encoder.
    join : int
        Mel frames in a row of what it takes.

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
    >>> frames, lengths = features(torch.zeros(1, 5), mel, mask)
    >>> frames.shape, lengths.tolist()
    (torch.Size([1, 3, 8]), [3])
    """

    def __init__(self, recogniser, dim, join=1):
        super().__init__(recogniser, dim)
        self.recogniser = recogniser
        self.join = join
        self.eval()

    @property
    def stride(self):
        """Mel frames per frame."""
        return 2 * self.join

    def listen(self, wav, mel, mask):
        """It hears the mel alone."""
        rows = join_frames(mel * mask.unsqueeze(-1), self.join)
        return self.recogniser.encode(rows, num_frames(mask.sum(1), self.join))


class EncoderFeatures(FrozenTeacher):
    """What an encoder of waveforms knows, such as SpeechBrain has many.

    Whatever takes signals [B, T] and relative lengths [B], and gives [B, N', D]
    (or a tuple that begins with it): SpeechBrain's wrappers of self-supervised
    models, or a `LengthsCapableSequential` of a front end and a Conformer.

    Arguments
    ---------
    encoder : torch.nn.Module
        Of any frame rate.
    dim : int
        D.
    sample_rate : int
        Of the signals that it takes, Hz.
    hop_length : int
        Samples of these per frame.
    mel_settings : MelSettings
        The codec's front end.

    Example
    -------
    >>> from speechbrain.lobes.features import Fbank
    >>> from speechbrain.nnet.containers import LengthsCapableSequential
    >>> from speechbrain_flowmac.lobes.features import MelSettings
    >>> encoder = LengthsCapableSequential(Fbank(n_mels=20))
    >>> settings = MelSettings(24000, 1024, 256, 1024)
    >>> teacher = EncoderFeatures(encoder, 20, 16000, 160, settings)
    >>> mel, mask = torch.randn(1, 94, 80), torch.ones(1, 94, dtype=torch.bool)
    >>> frames, lengths = teacher(torch.randn(1, 24000), mel, mask)
    >>> frames.shape, lengths.tolist(), teacher.stride
    (torch.Size([1, 101, 20]), [101], 0.9375)
    """

    def __init__(self, encoder, dim, sample_rate, hop_length, mel_settings):
        super().__init__(encoder, dim)
        self.encoder = encoder
        self.sample_rate = sample_rate
        self.mel_settings = mel_settings
        mel_rate = mel_settings.sample_rate / mel_settings.hop_length
        self.stride = mel_rate * hop_length / sample_rate
        self.eval()

    def listen(self, wav, mel, mask):
        """It hears the signal, each item alone unless all are as long."""
        samples = mask.sum(1) * self.mel_settings.hop_length
        wav = F.pad(wav, (0, max(int(samples.max()) - wav.shape[1], 0)))
        if len(samples.unique()) == 1:
            features = self._encode(wav[:, : int(samples[0])])
            lengths = samples.new_full(samples.shape, features.shape[1])
            return features, lengths
        # how encoders mind padding differs: tokens must not
        features = [
            self._encode(item[None, :count])[0]
            for item, count in zip(wav, samples.tolist(), strict=True)
        ]
        lengths = samples.new_tensor([len(item) for item in features])
        return pad_sequence(features, batch_first=True), lengths

    def _encode(self, wav):
        wav = resample(wav, self.mel_settings.sample_rate, self.sample_rate)
        features = self.encoder(wav, wav.new_ones(len(wav)))
        return features[0] if isinstance(features, tuple) else features
