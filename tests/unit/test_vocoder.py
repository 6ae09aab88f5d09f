"""What every vocoder keeps to: lengths, batches, chunks, seeds, training."""

import copy
from pathlib import Path
from pydoc import locate

import pytest
import torch
import yaml
from tiny_vocoders import (
    HOP,
    VOCODERS,
    bigvgan,
    free_phase,
    noise,
)

from speechbrain_flowmac.lobes.features import length_mask
from speechbrain_flowmac.lobes.istft_vocoder import Head
from speechbrain_flowmac.lobes.vocoder import Vocoder

ROOT = Path(__file__).resolve().parents[2]
HPARAMS = sorted((ROOT / "hparams").glob("*.yaml"))


@pytest.fixture(params=VOCODERS)
def vocoder(request):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return VOCODERS[request.param]()


def mels(vocoder, seed, *shape):
    """Noise as wide as the vocoder's features."""
    return noise(seed, *shape, vocoder.mel_settings.width)


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def labels(frames=18):
    """F0 in Hz, a third of it unvoiced."""
    f0 = 100 + 100 * torch.rand(2, frames, generator=seeded(2))
    f0[:, ::3] = 0.0
    return f0


def assert_same(joined, whole, tolerance=1e-3):
    peak = whole.abs().max().item()
    torch.testing.assert_close(joined, whole, atol=tolerance * peak, rtol=0)


def descendants(kind):
    for child in kind.__subclasses__():
        yield child
        yield from descendants(child)


def test_every_vocoder_and_head_is_here():
    made = [make() for make in VOCODERS.values()]
    heads = {type(v.head) for v in made if hasattr(v, "head")}
    for kind, tried in ((Vocoder, {type(v) for v in made}), (Head, heads)):
        ours = {
            child
            for child in descendants(kind)
            if child.__module__.startswith("speechbrain_flowmac.lobes")
        }
        assert ours == tried


@pytest.mark.parametrize("path", HPARAMS, ids=lambda path: path.stem)
def test_vocoders_of_the_yamls_keep_to_it(path):
    node = yaml.compose(path.read_text(encoding="utf-8"))
    for key, value in node.value:
        if key.value == "vocoder":
            assert issubclass(locate(value.tag.partition(":")[2]), Vocoder)


# Lengths and batches


@pytest.mark.parametrize("frames", [1, 2, 3, 17])
def test_there_is_one_hop_of_samples_per_frame(vocoder, frames):
    wav = vocoder(mels(vocoder, 0, 2, frames))
    assert vocoder.mel_settings.hop_length == HOP
    assert wav.shape == (2, frames * HOP) and wav.dtype == torch.float32
    assert wav.isfinite().all() and wav.abs().max() > 0


def test_an_item_sounds_as_if_it_were_alone(vocoder):
    lengths = torch.tensor([1, 6, 11, 6, 20])
    mask = length_mask(lengths, 20)
    mel = torch.where(mask.unsqueeze(-1), mels(vocoder, 3, 5, 20), 3.0)
    batch = vocoder(mel, mask)
    for wav, item, length in zip(batch, mel, lengths.tolist(), strict=True):
        single = vocoder(item[None, :length])[0]
        assert_same(wav[: length * HOP], single, tolerance=1e-4)
        assert not wav[length * HOP :].any()


def test_a_mask_that_is_all_true_changes_nothing(vocoder):
    mel = mels(vocoder, 0, 2, 9)
    mask = torch.ones(2, 9, dtype=torch.bool)
    assert_same(vocoder(mel, mask), vocoder(mel), tolerance=1e-5)


@pytest.mark.parametrize(
    "dtype, tolerance",
    [(torch.float16, 0.05), (torch.bfloat16, 0.4), (torch.float64, 1e-5)],
)
def test_a_vocoder_that_is_cast_still_speaks_float32(vocoder, dtype, tolerance):
    """Sources keep their place, so only gains and phases are rounded."""
    mel, mask = mels(vocoder, 0, 2, 12), length_mask(torch.tensor([12, 7]), 12)
    with torch.no_grad():
        expected = vocoder(mel, mask)
        found = vocoder.to(dtype)(mel, mask)
        assert vocoder(mel.to(dtype), mask).dtype == torch.float32
    assert found.dtype == torch.float32
    assert (found - expected).std() < tolerance * expected.std()


# Streams


def in_chunks(vocoder, mel, size, reach, seed=0):
    """Chunks of `size` frames with up to `reach` frames of context."""
    frames, state = mel.shape[1], vocoder.start(seed)
    for start in range(0, frames, size):
        end = min(start + size, frames)
        before, after = min(reach, start), min(reach, frames - end)
        part = mel[:, start - before : end + after]
        yield vocoder(part, state=state, context=(before, after))


@pytest.mark.parametrize("size", [1, 4, 7, 40])
def test_chunks_join_into_the_whole(vocoder, size):
    mel = 2 * mels(vocoder, 1, 2, 40)
    whole = vocoder(mel, state=vocoder.start(seed=5))
    parts = list(in_chunks(vocoder, mel, size, vocoder.receptive_field, 5))
    assert [p.shape[1] for p in parts[:-1]] == [size * HOP] * (len(parts) - 1)
    assert_same(torch.cat(parts, dim=1), whole)


def test_chunks_need_their_context(vocoder):
    mel = 2 * mels(vocoder, 1, 2, 40)
    less = min(1, vocoder.receptive_field - 1)
    joined = torch.cat(list(in_chunks(vocoder, mel, 7, less)), dim=1)
    whole = vocoder(mel)
    assert (joined - whole).abs().max() > 0.01 * whole.abs().max()


def test_a_state_can_be_kept_and_two_streams_share_a_vocoder(vocoder):
    """The second half, made twice, from a copy of the state."""
    mel = 2 * mels(vocoder, 1, 2, 40)
    whole, reach = vocoder(mel), min(vocoder.receptive_field, 20)
    state, other = vocoder.start(), vocoder.start(seed=9)
    vocoder(mel[:, : 20 + reach], state=state, context=(0, reach))
    vocoder(mel[:, :3], state=other)
    for kept in (copy.deepcopy(state), state):
        wav = vocoder(mel[:, 20 - reach :], state=kept, context=(reach, 0))
        assert_same(wav, whole[:, 20 * HOP :])


@pytest.mark.parametrize("context", [(3, 0), (0, 6), (2, 4), (-1, 0), (0, -1)])
def test_context_must_be_there(vocoder, context):
    state, mel = vocoder.start(), mels(vocoder, 0, 1, 5)
    vocoder(mel[:, :2], state=state)
    with pytest.raises(ValueError, match=r"5 frames.*2 made so far.*\("):
        vocoder(mel, state=state, context=context)
    # nothing has moved
    assert vocoder(mel, state=state, context=(2, 3)).shape == (1, 0)


@pytest.mark.parametrize("name", VOCODERS)
def test_the_same_seed_gives_the_same_samples(name):
    vocoder = VOCODERS[name]()
    mel = 2 * mels(vocoder, 1, 2, 12)

    def made(seed):
        return vocoder(mel, state=vocoder.start(seed))

    assert torch.equal(made(3), made(3))
    assert torch.equal(made(0), vocoder(mel))
    # only one kind has noise in it
    assert torch.equal(made(3), made(4)) != ("harmonic" in name)


# Training


def test_training_reaches_all_parameters(vocoder):
    mel = mels(vocoder, 0, 2, 9).requires_grad_()
    wav, losses = vocoder.train().training_step(
        mel, seeded(), 0.1 * noise(1, 2, 9 * HOP), labels()
    )
    assert wav.shape == (2, 9 * HOP) and isinstance(losses, dict)
    (wav.square().sum() + sum(losses.values())).backward()
    for name, parameter in [("mel", mel), *vocoder.named_parameters()]:
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name
        assert parameter.grad.abs().sum() > 0, name


@pytest.mark.parametrize("name", VOCODERS)
def test_losses_are_of_what_the_vocoder_predicts(name):
    vocoder = VOCODERS[name]()
    mel = mels(vocoder, 0, 2, 9)
    wav, losses = vocoder.training_step(mel, seeded(), None, labels())
    again, none = vocoder.training_step(mel, seeded())
    # labels do not change the sound
    assert torch.equal(wav, again) and none == {}
    assert set(losses) == ({"pitch"} if "harmonic" in name else set())
    assert all(loss.ndim == 0 and loss > 0 for loss in losses.values())


def test_training_draws_from_its_generator_alone(vocoder):
    mel, target = mels(vocoder, 0, 2, 9), noise(1, 2, 9 * HOP)

    def step(seed):
        return vocoder.training_step(mel, seeded(seed), target, labels())[0]

    before = torch.get_rng_state()
    assert torch.equal(step(1), step(1))
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("make", [free_phase, bigvgan])
def test_what_is_trained_is_what_is_used(make):
    """Where nothing is drawn, training makes what decoding makes."""
    vocoder = make()
    mel = mels(vocoder, 0, 2, 9)
    wav, losses = vocoder.training_step(mel, seeded(), None, labels())
    assert torch.equal(wav, vocoder(mel)) and losses == {}
