"""The study of flows of digits: data, model, scores, resuming."""

from functools import partial
from pathlib import Path
from urllib.error import URLError

import images
import numpy as np
import pytest
import study
import torch
import train
from images import ImageDataset, load_images, read_idx
from model import NETWORKS, LabelledFlow
from scipy.linalg import sqrtm
from scores import frechet_distance, get_classifier

from speechbrain_flowmac.lobes.flow_matching import FlowMatching
from speechbrain_flowmac.lobes.improved_mean_flow import ImprovedMeanFlow
from speechbrain_flowmac.lobes.mean_flow import MeanFlow
from speechbrain_flowmac.lobes.reshape import Reshape
from speechbrain_flowmac.lobes.sampling import Sampling
from speechbrain_flowmac.training.experiment import load

YAML = str(Path(__file__).parents[2] / "hparams" / "mnist_flow.yaml")
TINY = [
    YAML,
    "--device=cpu",
    "--noprogressbar",
    "--total_steps=2",
    "--warmup_steps=1",
    "--decay_steps=1",
    "--samples_each=1",
    "--sizes={"
    + ", ".join(f"{n}: {{dim: 8, num_layers: 1}}" for n in NETWORKS)
    + "}",
]


@pytest.fixture(scope="module")
def digits():
    return load_images("digits", None)


# Data


def test_digits_are_split_once_and_for_all(digits):
    train_set, test_set = digits
    assert train_set.signals.shape == (1438, 64)
    assert test_set.signals.shape == (359, 64)
    pixels = torch.cat([train_set.signals, test_set.signals])
    assert pixels.mean().abs() < 1e-5 and (pixels.std() - 1).abs() < 1e-5
    for part in digits:
        assert torch.bincount(part.labels).min() > 0.07 * len(part.labels)
    again = load_images("digits", None)
    assert torch.equal(again[1].signals, test_set.signals)
    batch = ImageDataset(test_set).__getitems__([3, 1])
    assert torch.equal(batch.labels, test_set.labels[[3, 1]])


def write_mnist(folder, train=20000, test=10000):
    """MNIST's own files, of random pictures; returns those."""
    chance, written = np.random.default_rng(0), {}
    for part, count in (("train", train), ("t10k", test)):
        pictures = chance.integers(0, 256, (count, 2, 2), dtype=np.uint8)
        labels = chance.integers(0, 10, count, dtype=np.uint8)
        for name, values in (("images", pictures), ("labels", labels)):
            header = [0x800 + values.ndim, *values.shape]
            path = folder / f"{part}-{name}-idx{values.ndim}-ubyte"
            path.write_bytes(
                np.array(header, ">u4").tobytes() + values.tobytes()
            )
            written[part, name] = values
    return written


def test_mnist_is_read_from_its_own_files(tmp_path, monkeypatch):
    written = write_mnist(tmp_path)
    monkeypatch.setattr(images, "fetch_openml", None)
    for found, part in zip(
        load_images("mnist", tmp_path), ("train", "t10k"), strict=True
    ):
        assert found.labels.tolist() == written[part, "labels"].tolist()
        pixels = torch.from_numpy(written[part, "images"]).flatten(1).float()
        correlated = torch.stack([found.signals.flatten(), pixels.flatten()])
        assert torch.corrcoef(correlated)[0, 1] > 1 - 1e-6


@pytest.mark.parametrize("change", ["cut", "magic", "empty"])
def test_a_damaged_file_of_mnist_is_refused(change, tmp_path):
    write_mnist(tmp_path, train=3, test=2)
    path = tmp_path / "t10k-images-idx3-ubyte"
    data = path.read_bytes()
    spoilt = {"cut": data[:-1], "magic": b"\1" + data[1:], "empty": b""}
    path.write_bytes(spoilt[change])
    with pytest.raises(ValueError, match="t10k-images.*no IDX file of 3 axes"):
        read_idx(path, axes=3)


def test_without_a_network_mnist_says_what_to_do(monkeypatch, tmp_path):
    def fetch(*args, **kwargs):
        raise URLError("no route")

    monkeypatch.setattr(images, "fetch_openml", fetch)
    with pytest.raises(OSError, match=f"not in {tmp_path}.*--data_set=digits"):
        load_images("mnist", tmp_path)


def test_unknown_names_are_refused(tmp_path):
    with pytest.raises(ValueError, match="digits or mnist, found 'cifar'"):
        load_images("cifar", None)
    for option in ("objective", "network", "tokens"):
        with pytest.raises(ValueError, match=f"{option} must be .*'nothing'"):
            train.main(
                [*TINY, f"--study_folder={tmp_path}", f"--{option}=nothing"]
            )


# Scores


def test_the_classifier_knows_digits_and_is_kept(digits, tmp_path):
    path = tmp_path / "new" / "classifier.pt"
    state = torch.get_rng_state()
    first = get_classifier(path, digits[0], 8)
    assert torch.equal(torch.get_rng_state(), state)
    assert first.accuracy(*digits[1]) > 0.95
    second = get_classifier(path, None, 8)
    assert torch.equal(first(digits[1].signals), second(digits[1].signals))


def test_frechet_distance_is_that_of_the_formula():
    chance = torch.Generator().manual_seed(0)
    x = torch.randn(200, 5, generator=chance, dtype=torch.float64)
    y = torch.randn(50, 5, generator=chance, dtype=torch.float64)
    y = y @ torch.randn(5, 5, generator=chance, dtype=torch.float64) + 1
    covariances = [torch.cov(part.T).numpy() for part in (x, y)]
    root = sqrtm(covariances[0] @ covariances[1]).real
    expected = (x.mean(0) - y.mean(0)).square().sum().item() + (
        covariances[0] + covariances[1] - 2 * root
    ).trace()
    assert frechet_distance(x, y) == pytest.approx(expected, rel=1e-6)
    assert frechet_distance(y, x) == pytest.approx(expected, rel=1e-6)
    assert frechet_distance(x, x) == pytest.approx(0, abs=1e-9)


# Model


@pytest.mark.parametrize("chosen", study.choices(load(TINY).hparams))
def test_every_model_trains_and_samples(chosen, digits):
    names = ("objective", "network", "tokens")
    own = [f"--{n}={v}" for n, v in zip(names, chosen, strict=True)]
    model = train.make_model(load(TINY + own).hparams)
    chance = torch.Generator().manual_seed(0)
    # what starts at zero wakes up
    for parameter in model.parameters():
        parameter.data += 0.1 * torch.randn(parameter.shape, generator=chance)
    signals, labels = (part[:8] for part in digits[1])
    losses = model(signals, labels, chance)
    losses.total.backward()
    assert losses.mse.isfinite()
    for name, parameter in model.named_parameters():
        assert parameter.grad.isfinite().all(), name
        # the decoder's time stands at 0, where all its sines do too
        assert parameter.grad.any() or name.startswith("decoder"), name
    made = model.sample(labels, Sampling(n_steps=2))
    assert made.shape == (8, 64) and made.isfinite().all()
    other = model.sample(labels, Sampling(n_steps=2), seed=1)
    assert torch.equal(made, other) == (chosen[0] == "autoencoder")


def quarters(images):
    """Mean grey of the four quarters, standardised: digits of 2 x 2 pixels."""
    pictures = images.signals.unflatten(1, (1, 8, 8))
    means = torch.nn.functional.avg_pool2d(pictures, 4).flatten(1)
    return (means - means.mean(0)) / means.std(0)


def trained(objective, num_times, signals, steps=250):
    """A small model of one class."""
    torch.manual_seed(0)
    model = LabelledFlow(
        Reshape("b (n m) -> b n m", m=4),
        num_samples=4,
        num_classes=1,
        network=partial(NETWORKS["mlp"], time_scale=10, dim=64, num_layers=2),
        objective=objective,
        num_times=num_times,
    )
    optimizer = torch.optim.Adam(model.parameters(), 3e-3)
    schedule = torch.optim.lr_scheduler.LinearLR(optimizer, 1, 0.02, steps)
    chance = torch.Generator().manual_seed(1)
    labels = torch.zeros(128, dtype=torch.long)
    for _ in range(steps):
        chosen = torch.randint(len(signals), (128,), generator=chance)
        model(signals[chosen], labels, chance).total.backward()
        optimizer.step()
        optimizer.zero_grad()
        schedule.step()
    return model.eval()


def test_mean_flows_beat_flow_matching_at_one_evaluation(digits):
    """One step of flow matching gives the mean, whatever the noise."""
    train_set, test_set = map(quarters, digits)
    labels = torch.zeros(1000, dtype=torch.long)
    distance = {}
    for objective, num_times in (
        (FlowMatching, 1),
        (MeanFlow, 2),
        (ImprovedMeanFlow, 2),
    ):
        model = trained(objective, num_times, train_set)
        for steps in (1, 32):
            made = model.sample(labels, Sampling(n_steps=steps))
            distance[objective, steps] = frechet_distance(made, test_set)
    for objective in (MeanFlow, ImprovedMeanFlow):
        assert distance[objective, 1] < 0.5 * distance[FlowMatching, 1]
    # all are trained well enough to sample
    for objective in (FlowMatching, MeanFlow, ImprovedMeanFlow):
        assert distance[objective, 32] < 0.1


# The study


def test_a_study_goes_on_where_it_was_stopped(tmp_path, monkeypatch):
    chosen = [("autoencoder", "mlp", "mdct"), ("mean_flow", "mlp", "mdct")]
    monkeypatch.setattr(study, "choices", lambda hparams: chosen)
    arguments = [*TINY, f"--study_folder={tmp_path}"]
    study.main(arguments)
    text = (tmp_path / "study.md").read_text()
    head, _, *rows = [li for li in text.splitlines() if li.startswith("|")]
    assert [row.split(" | ")[0] for row in rows] == [
        "| autoencoder",
        "| mean flow",
    ]
    assert all(row.count("|") == head.count("|") for row in rows)
    assert (tmp_path / "study.png").stat().st_size > 1000

    def refuse(arguments):
        raise AssertionError("nothing is left to train")

    monkeypatch.setattr(train, "main", refuse)
    study.main(arguments)
    assert (tmp_path / "study.md").read_text() == text
    with pytest.raises(ValueError, match="give another --study_folder"):
        study.main([*arguments, "--lr=0.1"])
