"""Moves a trained model to the mels of another front end.

Tensors of the same name and shape are copied: trunks, codebooks, most of a
head. The layers that see mels are fitted to what the old ones made of the old
mels: in closed form where they are linear, else by some minutes of
distillation. Training then goes on from there.
"""

import torch
from torch.nn import functional as F
from tqdm import tqdm

from speechbrain_flowmac.lobes.encoder import join_frames


class LinearFit:
    """Least squares with an intercept, y = W x + b, over batches, in float64.

    Arguments
    ---------
    ridge : float
        Added to the normal equations, relative to their mean diagonal.

    Example
    -------
    >>> fit = LinearFit()
    >>> x = torch.randn(100, 3)
    >>> fit.update(x, x @ torch.ones(3, 2) + 1)
    >>> weight, bias = fit.solve()
    >>> weight.allclose(torch.ones(2, 3), atol=1e-3), weight.shape
    (True, torch.Size([2, 3]))
    """

    def __init__(self, ridge=1e-6):
        self.ridge = ridge
        self.gram = self.cross = 0.0

    def update(self, x, y):
        """Adds pairs x [..., D] and y [..., E]."""
        x = F.pad(x.flatten(0, -2).double(), (0, 1), value=1.0)
        self.gram = self.gram + x.T @ x
        self.cross = self.cross + x.T @ y.flatten(0, -2).double()

    def solve(self):
        """Weight [E, D] and bias [E], float32."""
        size = len(self.gram)
        ridge = self.ridge * self.gram.diagonal().mean()
        solution = torch.linalg.solve(
            self.gram + ridge * torch.eye(size, dtype=torch.float64),
            self.cross,
        ).float()
        return solution[:-1].T, solution[-1]


def copy_matching(old, new):
    """Copies the tensors that two modules share by name and shape.

    Arguments
    ---------
    old : torch.nn.Module
        From here.
    new : torch.nn.Module
        To here.
    """
    source, target = old.state_dict(), new.state_dict()
    new.load_state_dict(
        {
            name: source[name]
            if name in source
            and source[name].shape == value.shape
            # buffers that say what a front end is stay what they are
            and not name.startswith(("features.", "normalizer."))
            else value
            for name, value in target.items()
        }
    )


@torch.no_grad()
def move_codec(old, new, batches):
    """Gives a codec the knowledge of one with the same tokens per second.

    The new encoder's input layer first rebuilds the old mel, and the old
    decoder's output layer is followed by a map to the new mel, token frame by
    token frame. Mean and deviation of the new normaliser must be set.

    Arguments
    ---------
    old : FlowMAC
        Trained.
    new : FlowMAC
        Of the same trunks; changed in place.
    batches : iterable of torch.Tensor
        Waveforms [B, T], T a multiple of the hop.

    Raises
    ------
    ValueError
        If the token rates differ.
    """
    if old.frame_rate != new.frame_rate:
        raise ValueError(
            f"the codec to move has {old.frame_rate:g} token frames per "
            f"second, the new one {new.frame_rate:g}"
        )
    copy_matching(old, new)
    to_old, to_new = LinearFit(), LinearFit()
    for wav in batches:
        before, after = (_stacked_mels(codec, wav) for codec in (old, new))
        to_old.update(after, before)
        to_new.update(before, after)
    weight, bias = to_old.solve()
    layer = old.encoder.project_in
    _set(
        new.encoder.project_in,
        layer.weight @ weight,
        layer.bias + layer.weight @ bias,
    )
    weight, bias = to_new.solve()
    layer = old.decoder.project_out
    _set(
        new.decoder.project_out,
        weight @ layer.weight,
        bias + weight @ layer.bias,
    )


def _stacked_mels(codec, wav):
    """Normalised mels [B, N, stride * M], a row for each token frame."""
    mel = codec.normalizer(codec.features(wav))
    return join_frames(mel, codec.encoder.stride)


def move_vocoder(old, new, old_features, new_features, batches, more, lr=2e-3):
    """Gives a harmonic vocoder the knowledge of another.

    The layers before the trunk learn to give the trunk what the old ones
    gave, and the pitch head to say what the old one said. Gains that are the
    first to start from an envelope are then told what the features already
    say of it.

    Arguments
    ---------
    old : ISTFTVocoder
        Trained.
    new : ISTFTVocoder
        Of the same trunk and synthesis; changed in place.
    old_features : LogMel
        Front end of the old one.
    new_features : LogMel
        That of the new one.
    batches : sized iterable of torch.Tensor
        Waveforms [B, T]; each is a step.
    more : iterable of torch.Tensor
        Waveforms [B, T], to fit the gains on.
    lr : float
        Peak learning rate.
    """
    copy_matching(old, new)
    learnt = [new.embed, new.norm_in, new.split, new.head.pitch]
    parameters = [p for part in learnt for p in part.parameters()]
    optimizer = torch.optim.AdamW(parameters, lr=lr, betas=(0.9, 0.98))
    steps = len(batches)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: min(1, (steps - step) / (0.4 * steps))
    )
    for wav in tqdm(batches, desc="distillation", dynamic_ncols=True):
        with torch.no_grad():
            mel = old_features(wav)
            wanted = old.trunk_input(mel)
            bins, voicing = old.head.pitch.logits(mel)
        mel = new_features(wav)
        error = F.mse_loss(new.trunk_input(mel), wanted) / wanted.var()
        loss = error + _pitch_difference(
            new.head.pitch.logits(mel), bins, voicing.sigmoid()
        )
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        schedule.step()
    if new.head.envelope is not None and old.head.envelope is None:
        _subtract_known_envelope(new, new_features, more)


def _pitch_difference(logits, bins, voiced):
    """Cross-entropy of F0, weighted by voicing, plus that of voicing."""
    wrong = -(bins.softmax(-1) * logits[0].log_softmax(-1)).sum(-1)
    f0 = (voiced * wrong).sum() / voiced.sum().clamp(min=1e-3)
    return f0 + F.binary_cross_entropy_with_logits(logits[1], voiced)


@torch.no_grad()
def _subtract_known_envelope(vocoder, features, batches):
    """Takes from both log gains what features say of the envelope."""
    fit = LinearFit(ridge=1e-5)
    head = vocoder.head
    for wav in batches:
        mel = features(wav)
        fit.update(vocoder.features(mel), head.envelope(mel))
    weight, bias = fit.solve()
    bins = head.stft.num_bins
    for part in (0, 2):  # harmonics and noise; their phase lies between
        rows = slice(part * bins, (part + 1) * bins)
        head.project.weight[rows] -= weight
        head.project.bias[rows] -= bias


def _set(layer, weight, bias):
    layer.weight.copy_(weight)
    layer.bias.copy_(bias)
