"""How good sampled digits are, as a small classifier sees them."""

import os
import time
from pathlib import Path

import torch
from torch import nn
from torch.nn import functional as F

FEATURES = 32
STEPS = 300
BATCH = 256


class Classifier(nn.Module):
    """Two convolutions and two linear layers.

    Arguments
    ---------
    side : int
        Height and width of the pictures, even.
    """

    def __init__(self, side):
        super().__init__()
        self.side = side
        self.body = nn.Sequential(
            nn.Conv2d(1, 16, 3, padding=1),
            nn.GELU(),
            nn.Conv2d(16, 32, 3, stride=2, padding=1),
            nn.GELU(),
            nn.Flatten(),
            nn.Linear(32 * (side // 2) ** 2, FEATURES),
            nn.GELU(),
        )
        self.head = nn.Linear(FEATURES, 10)

    def features(self, signals):
        """[B, side * side] to [B, FEATURES]."""
        return self.body(signals.unflatten(1, (1, self.side, self.side)))

    def forward(self, signals):
        """Logits [B, 10]."""
        return self.head(self.features(signals))

    @torch.no_grad()
    def accuracy(self, signals, labels):
        """Share of pictures that look like their labels."""
        return (self(signals).argmax(1) == labels).float().mean().item()


def get_classifier(path, images, side):
    """Loads the classifier, or trains it; the seed is always the same.

    Arguments
    ---------
    path : str
        Where it is kept.
    images : Images
        To train on.
    side : int
        Of the pictures.

    Returns
    -------
    Classifier
    """
    with torch.random.fork_rng():
        torch.manual_seed(0)
        classifier = Classifier(side)
        path = Path(path)
        if path.exists():
            classifier.load_state_dict(torch.load(path, weights_only=True))
            return classifier.eval()
        optimizer = torch.optim.AdamW(classifier.parameters(), 2e-3)
        for _ in range(STEPS):
            chosen = torch.randint(len(images.labels), (BATCH,))
            logits = classifier(images.signals[chosen])
            F.cross_entropy(logits, images.labels[chosen]).backward()
            optimizer.step()
            optimizer.zero_grad()
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_suffix(".part")
    torch.save(classifier.state_dict(), part)
    os.replace(part, path)
    return classifier.eval()


def frechet_distance(one, other):
    """Of Gaussians with the moments of two sets (Heusel et al., 1706.08500).

        |m_1 - m_2|^2 + tr(C_1 + C_2 - 2 (C_1 C_2)^(1/2))

    Arguments
    ---------
    one, other : torch.Tensor
        Features, shapes [B, D], at least two of each.

    Returns
    -------
    float

    Example
    -------
    >>> x = torch.randn(100, 3)
    >>> round(frechet_distance(x, x + torch.tensor([3.0, 4.0, 0.0])), 3)
    25.0
    """
    one, other = one.double(), other.double()
    shift = (one.mean(0) - other.mean(0)).square().sum()
    # the trace of the root, by singular values of the roots' product
    roots = [_centred(x) for x in (one, other)]
    common = torch.linalg.svdvals(roots[0] @ roots[1].T).sum()
    spread = sum(root.square().sum() for root in roots)
    return (shift + spread - 2 * common).item()


def _centred(x):
    """A root R of the covariance, R^T R."""
    return (x - x.mean(0)) / (len(x) - 1) ** 0.5


@torch.no_grad()
def score_samples(model, classifier, images, samplings, each):
    """Accuracy and Frechet distance by number of evaluations.

    Arguments
    ---------
    model : LabelledFlow
        In evaluation mode.
    classifier : Classifier
        From `get_classifier`.
    images : Images
        What samples should be like.
    samplings : list of Sampling
        One for each number of steps.
    each : int
        Samples of each class.

    Returns
    -------
    list of dict
        steps, accuracy and frechet.
    """
    labels = torch.arange(10).repeat(each)
    real = classifier.features(images.signals)
    scores = []
    for sampling in samplings:
        made = model.sample(labels, sampling)
        distance = frechet_distance(classifier.features(made), real)
        scores.append(
            {
                "steps": sampling.n_steps,
                "accuracy": classifier.accuracy(made, labels),
                "frechet": distance,
            }
        )
    return scores


def seconds_per_step(model, images, batch_size, repeats=10):
    """CPU time of the objective and its gradients.

    Arguments
    ---------
    model : LabelledFlow
        Gradients are left behind.
    images : Images
        At least one batch.
    batch_size : int
        Pictures of a step.
    repeats : int
        Steps that are timed, after one that is not.

    Returns
    -------
    float
    """
    generator = torch.Generator().manual_seed(0)
    batch = [part[:batch_size] for part in images]
    model.train()
    for step in range(repeats + 1):
        if step == 1:
            start = time.process_time()
        model(*batch, generator).total.backward()
    return (time.process_time() - start) / repeats
