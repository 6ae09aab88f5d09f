"""Properties of the Brains: schedule, average, steps, adversary, safety."""

import math
import re
from types import SimpleNamespace

import pytest
import speechbrain as sb
import torch
from corpus import speech_like
from ranks import on_two_ranks
from speechbrain.lobes.models.HifiGAN import (
    MelganFeatureLoss,
    MSEDLoss,
    MSEGLoss,
)
from speechbrain.utils.checkpoints import Checkpointer
from speechbrain.utils.epoch_loop import EpochCounter
from torch import nn

import speechbrain_flowmac.training.brains.base as base
import speechbrain_flowmac.training.brains.codec as codec_brain
from speechbrain_flowmac.codec import FlowMAC, Sampling
from speechbrain_flowmac.lobes.convnext import ConvNeXt
from speechbrain_flowmac.lobes.encoder import MelDecoder, MelEncoder
from speechbrain_flowmac.lobes.features import (
    LogMel,
    MelNormalizer,
    MelSettings,
)
from speechbrain_flowmac.lobes.flow_matching import FlowMatching
from speechbrain_flowmac.lobes.losses import AdversarialLoss
from speechbrain_flowmac.lobes.quantizer import ResidualQuantizer
from speechbrain_flowmac.lobes.vector_field import ConvNeXtField
from speechbrain_flowmac.lobes.vocoder import Vocoder
from speechbrain_flowmac.training.brains import FlowMACBrain, VocoderBrain
from speechbrain_flowmac.training.brains.base import (
    TrainingBrain,
    TrapezoidSchedule,
)
from speechbrain_flowmac.training.brains.vocoder import training_step

SETTINGS = MelSettings(n_fft=256, hop_length=128, win_length=256, n_mels=8)
SAMPLES = 1024


# What the tests train


class Log:
    """A train logger that keeps what it is given."""

    def __init__(self):
        self.valid, self.test = [], []

    def log_stats(
        self, meta, train_stats=None, valid_stats=None, test_stats=None
    ):
        if test_stats is None:
            self.valid.append({**meta, **valid_stats})
        else:
            self.test.append(test_stats)


class ToyBrain(TrainingBrain):
    """Fits a linear layer to zero; the loss has nothing random in it."""

    model_name = "toy"
    seen = ()

    def compute_forward(self, batch, stage):
        training = stage == sb.Stage.TRAIN
        model = self.modules.toy if training else self.averaged_model
        return model(batch.to(self.device))

    def compute_objectives(self, predictions, batch, stage):
        loss = predictions.square().mean()
        if stage == sb.Stage.TRAIN:
            self.track(loss=loss)
        return loss

    def on_fit_batch_end(self, batch, outputs, loss, should_step):
        super().on_fit_batch_end(batch, outputs, loss, should_step)
        self.seen = [*self.seen, (batch, self.modules.toy.weight.clone())]


def hparams(device, epochs=1, **changes):
    """Settings that every Brain needs."""
    return {
        "seed": 7,
        "lr_schedule": lambda step: 0.1,
        "ema_decay": 0.5,
        "total_steps": 1000,
        "log_interval": 1000,
        "valid_interval": 1,
        "train_logger": Log(),
        "epoch_counter": EpochCounter(epochs),
        **changes,
    }


def toy(device="cpu", folder=None, epochs=1, run_opts=None, **changes):
    """A toy Brain with the same weights every time."""
    torch.manual_seed(0)
    settings = hparams(device, epochs, **changes)
    checkpointer = None
    if folder is not None:
        checkpointer = Checkpointer(
            folder, recoverables={"counter": settings["epoch_counter"]}
        )
    modules = {"toy": nn.Linear(3, 2)}
    if checkpointer is not None:
        checkpointer.add_recoverables(modules)
    return ToyBrain(
        modules=modules,
        opt_class=lambda p: torch.optim.SGD(p, lr=1.0),
        hparams=settings,
        run_opts={"device": device, "noprogressbar": True, **(run_opts or {})},
        checkpointer=checkpointer,
    )


def fit(brain, items, valid=None, **options):
    """Trains on a list of items, in batches of one unless told."""
    return brain.fit(
        brain.hparams.epoch_counter, items, valid, train_loader_kwargs=options
    )


def vectors(count, seed=1):
    """A list of random vectors."""
    generator = torch.Generator().manual_seed(seed)
    return list(torch.randn(count, 3, generator=generator))


class Batch(SimpleNamespace):
    """What the Brains need of a batch."""

    def __len__(self):
        return len(self.sig.data)


def audio(count=2, seed=3, spoilt=False):
    """A batch of speech-like audio."""
    wav = torch.stack(
        [
            torch.from_numpy(speech_like(SAMPLES / 24000, seed + i))
            for i in range(count)
        ]
    )
    if spoilt:
        wav[0, 100] = math.nan
    return Batch(
        sig=SimpleNamespace(data=wav),
        num_samples=torch.full((count,), SAMPLES),
    )


def codec_run(device, **run_opts):
    """A codec's Brain, ready to fit batches."""
    torch.manual_seed(0)
    codec = FlowMAC(
        features=LogMel(SETTINGS),
        normalizer=MelNormalizer(-6.0, 2.0),
        encoder=MelEncoder(8, ConvNeXt(8, 1), 4),
        quantizer=ResidualQuantizer(4, num_codebooks=2, codebook_size=4),
        decoder=MelDecoder(4, ConvNeXt(8, 1), 8),
        flow=FlowMatching(ConvNeXtField(8, ConvNeXt(8, 1, condition_dim=8))),
    )
    return ready(
        FlowMACBrain(
            modules={"codec": codec},
            opt_class=torch.optim.AdamW,
            hparams=hparams(device),
            run_opts={
                "device": device,
                "skip_nonfinite_grads": True,
                **run_opts,
            },
        )
    )


class LinearVocoder(Vocoder):
    """Every frame's samples from its mel; nothing random, no source."""

    receptive_field = 0

    def __init__(self):
        super().__init__(SETTINGS)
        self.linear = nn.Linear(SETTINGS.n_mels, SETTINGS.hop_length)

    def synthesise(self, mel, mask, state):
        return self.linear(mel).flatten(1)


class LinearJudge(nn.Module):
    """Scores every 16 samples; the score is its own only feature."""

    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(16, 1)

    def forward(self, wav):
        x = self.linear(wav.unflatten(1, (-1, 16)))
        return [x.flatten(1)], [[x]]


def vocoder_run(device, rate=1.0, run_opts=None, **changes):
    """A vocoder's Brain with plain gradient descent, ready to fit batches."""
    torch.manual_seed(0)
    settings = {
        "features": LogMel(SETTINGS),
        "codec": None,
        "mel_distortion": lambda mel, generator: mel,
        "scores": {},
        "scored_utterances": 0,
        "mel_loss": nn.MSELoss(),
        "adversarial_loss": AdversarialLoss(
            MSEGLoss(), MSEDLoss(), MelganFeatureLoss()
        ),
        "adversarial_start": 0,
        "mel_weight": 3.0,
        "auxiliary_weight": 0.0,
        "adversarial_weight": 2.0,
        "feature_matching_weight": 0.5,
        "generator_opt_class": lambda p: torch.optim.SGD(p, lr=9.0),
        "discriminator_opt_class": lambda p: torch.optim.SGD(p, lr=9.0),
        "lr_schedule": lambda step: rate,
        **changes,
    }
    return ready(
        VocoderBrain(
            modules={
                "vocoder": LinearVocoder(),
                "discriminator": LinearJudge(),
            },
            hparams=hparams(device, **settings),
            run_opts={
                "device": device,
                "max_grad_norm": 1e6,
                **(run_opts or {}),
            },
        )
    )


def ready(brain):
    """A Brain as it is in the middle of `fit`."""
    brain.on_fit_start()
    brain.modules.train()
    brain.nonfinite_count = 0
    return brain


def train_on(brain, *batches):
    """Fits batches as `fit` does; returns the last loss."""
    for batch in batches:
        brain.step += 1
        loss = brain.fit_batch(batch)
    return loss


def weights(module):
    """Copies of all tensors of a module."""
    return {k: v.detach().clone() for k, v in module.state_dict().items()}


def distance(before, module):
    """Norm of the change of all weights."""
    changes = [module.state_dict()[k] - v for k, v in before.items()]
    return torch.cat([c.flatten() for c in changes]).norm().item()


# Schedule


@pytest.mark.parametrize("warmup", [0, 1, 7])
@pytest.mark.parametrize("constant", [0, 5])
@pytest.mark.parametrize("decay", [0, 1, 10])
def test_schedule_is_a_trapezoid(warmup, constant, decay):
    total = warmup + constant + decay
    rates = [
        TrapezoidSchedule(2.0, total, warmup, decay)(step)
        for step in range(total + 3)
    ]
    assert rates[total:] == [0.0] * 3
    rise, flat, fall = (
        rates[:warmup],
        rates[warmup : warmup + constant],
        rates[warmup + constant : total],
    )
    assert rise == pytest.approx([2 * (i + 1) / warmup for i in range(warmup)])
    assert flat == [2.0] * constant
    assert fall == pytest.approx([2 * (1 - i / decay) for i in range(decay)])


@pytest.mark.parametrize(
    "total, warmup, decay", [(2000, 500, 10000), (2000, 1000, 1001), (5, 6, 0)]
)
def test_a_run_too_short_for_its_schedule_is_refused(total, warmup, decay):
    with pytest.raises(ValueError) as error:
        TrapezoidSchedule(1e-3, total, warmup, decay)
    text = str(error.value)
    for found in (total, warmup, decay):
        assert f"steps={found} " in text or f"steps={found}:" in text, text
    # what it proposes is accepted
    proposed = [int(x) for x in re.findall(r"--\w+_steps=(\d+)", text)]
    rates = [TrapezoidSchedule(1e-3, total, *proposed)(s) for s in range(total)]
    assert max(rates) == 1e-3


def test_a_longer_run_only_moves_the_decay():
    short = TrapezoidSchedule(1.0, 100, warmup_steps=10, decay_steps=20)
    long = TrapezoidSchedule(1.0, 200, warmup_steps=10, decay_steps=20)
    assert [short(s) for s in range(81)] == [long(s) for s in range(81)]
    assert [short(s) for s in range(80, 101)] == pytest.approx(
        [long(s + 100) for s in range(80, 101)]
    )


def test_learning_rate_follows_the_optimizer_steps(device):
    rates = []
    brain = toy(
        device,
        run_opts={"grad_accumulation_factor": 2},
        lr_schedule=lambda step: rates.append(step) or 0.25,
    )
    fit(brain, vectors(4))
    assert rates[:4] == [0, 0, 1, 1]
    assert brain.optimizer.param_groups[0]["lr"] == 0.25


# Average, accumulation and counting


def test_average_is_the_recursion_by_hand(device):
    brain = toy(device, ema_decay=0.8)
    fit(brain, vectors(5))
    trained = [weight for _, weight in brain.seen]
    expected = trained[0]
    for weight in trained[1:]:
        expected = 0.8 * expected + 0.2 * weight
    assert not torch.equal(trained[0], trained[-1])
    torch.testing.assert_close(brain.averaged_model.weight.data, expected)


def test_average_is_what_is_validated(device, tmp_path):
    brain = toy(device, folder=tmp_path)
    item = vectors(1, seed=5)
    fit(brain, vectors(3), item)
    (stats,) = brain.hparams.train_logger.valid
    expected = brain.averaged_model(item[0].to(device)).square().mean()
    assert stats["loss"] == pytest.approx(expected.item())


def test_average_copies_buffers(device):
    brain = codec_run(device)
    train_on(brain, audio(), audio(seed=8), audio(seed=9))
    averaged = dict(brain.averaged_model.named_buffers())
    for name, value in brain.modules.codec.named_buffers():
        assert torch.equal(averaged[name], value), name


def test_accumulated_steps_equal_one_of_the_whole_batch(device):
    items = vectors(8)
    whole, parts = (
        toy(device, run_opts={"grad_accumulation_factor": factor})
        for factor in (1, 2)
    )
    fit(whole, items, batch_size=4)
    fit(parts, items, batch_size=2)
    assert whole.optimizer_step == parts.optimizer_step == 2
    torch.testing.assert_close(weights(whole.modules), weights(parts.modules))


def test_vocoder_accumulates_as_well(device):
    whole = vocoder_run(device)
    parts = vocoder_run(device, run_opts={"grad_accumulation_factor": 2})
    wav = audio(4)
    halves = [
        Batch(
            sig=SimpleNamespace(data=wav.sig.data[part]),
            num_samples=wav.num_samples[part],
        )
        for part in (slice(0, 2), slice(2, 4))
    ]
    train_on(whole, wav)
    train_on(parts, halves[0])
    assert parts.optimizer_step == 0
    train_on(parts, halves[1])
    assert whole.optimizer_step == parts.optimizer_step == 1
    torch.testing.assert_close(weights(whole.modules), weights(parts.modules))


def test_training_stops_at_the_last_step(device):
    brain = toy(device, epochs=10, total_steps=7)
    fit(brain, vectors(3))
    assert brain.optimizer_step == len(brain.seen) == 7
    assert brain.hparams.epoch_counter.current == 3


def test_an_earlier_limit_of_the_command_line_holds(device):
    brain = toy(
        device, epochs=10, total_steps=7, run_opts={"optimizer_step_limit": 4}
    )
    fit(brain, vectors(3))
    assert brain.optimizer_step == 4


def test_validation_every_so_many_epochs(device, tmp_path):
    brain = toy(device, folder=tmp_path, epochs=6, valid_interval=3)
    fit(brain, vectors(1), vectors(1))
    epochs = [stats["epoch"] for stats in brain.hparams.train_logger.valid]
    assert epochs == [3, 6]


@pytest.mark.parametrize("limit", [{"epochs": 4}, {"total_steps": 4}])
def test_the_end_is_validated_and_saved(device, tmp_path, limit):
    options = {"epochs": 9, "valid_interval": 3, **limit}
    brain = toy(device, folder=tmp_path, **options)
    fit(brain, vectors(1), vectors(1))
    steps = [stats["step"] for stats in brain.hparams.train_logger.valid]
    assert steps == [3, 4]
    saved = brain.checkpointer.find_checkpoint(
        importance_key=lambda c: c.meta["epoch"]
    )
    assert saved.meta["epoch"] == 4


# Generators


def test_generators_depend_on_seed_step_and_rank(device, monkeypatch):
    def draw(seed=7, step=3, rank=None):
        brain = toy(device, seed=seed)
        brain.on_fit_start()
        with monkeypatch.context() as patch:
            patch.setattr(base, "is_distributed", lambda: rank is not None)
            patch.setattr(torch.distributed, "get_rank", lambda: rank)
            brain.seed_generators(step, 0)
        own = torch.randn(4, generator=brain.generator, device=device)
        return torch.randn(4), own

    common, own = draw()
    again = draw()
    assert torch.equal(common, again[0]) and torch.equal(own, again[1])
    for other in (draw(seed=8), draw(step=4)):
        assert not torch.equal(common, other[0])
        assert not torch.equal(own, other[1])
    ranks = [draw(rank=rank) for rank in range(3)]
    for rank in range(3):
        # quantizer dropout must be alike on all ranks, noise must not
        assert torch.equal(ranks[rank][0], common)
        assert not torch.equal(ranks[rank][1], ranks[rank - 1][1])


def test_codebooks_must_be_shared_between_ranks(device, monkeypatch):
    brain = codec_run(device)
    monkeypatch.setattr(codec_brain, "is_distributed", lambda: True)
    with pytest.raises(RuntimeError, match="ddp_init_group"):
        brain.on_fit_start()


# Duration


@pytest.mark.parametrize(
    "seconds, left, told",
    [(7.2, 500_000, "42 days"), (0.5, 9000, "1.2 hours"), (1, 86400, "24.0")],
)
def test_the_duration_is_told_once(monkeypatch, caplog, seconds, left, told):
    clock = iter([100.0, 100.0 + 10 * seconds])
    monkeypatch.setattr(base.time, "monotonic", lambda: next(clock))
    caplog.set_level("INFO")
    pace = base.Pace()
    for step in range(40):
        assert len(caplog.records) == (step > 10)
        pace.step(left + 10 - step)
    (record,) = caplog.records
    assert told in record.getMessage() and str(left) in record.getMessage()
    assert f"{seconds:.2g} s a step" in record.getMessage()


def test_brains_tell_it_with_the_steps_that_are_left(device, caplog):
    caplog.set_level("INFO")
    fit(toy(device, total_steps=30, epochs=9), vectors(4))
    (told,) = [m for m in caplog.messages if "s a step" in m]
    assert "the 19 that are left" in told


@pytest.mark.parametrize(
    "cost, precision", [(50, "bf16"), (0.2, "bf16"), (50, "fp32")]
)
def test_emulated_bfloat16_is_told(monkeypatch, caplog, cost, precision):
    monkeypatch.setattr(base, "bfloat16_cost", lambda: cost)
    fit(toy(run_opts={"precision": precision}), vectors(1))
    told = [m for m in caplog.messages if "no bfloat16 arithmetic" in m]
    assert len(told) == (cost == 50 and precision == "bf16")
    assert not told or "--precision=fp32" in told[0]


def test_the_cost_of_bfloat16_is_a_ratio_of_times():
    assert 0 < base.bfloat16_cost(64) < 1e4


# Interruption


def logged(caplog):
    """Steps that were logged."""
    return [r.args[0] for r in caplog.records if r.msg.startswith("step %d")]


def test_going_on_after_the_last_batch_of_an_epoch(device, tmp_path):
    items, valid = vectors(4), vectors(2, seed=2)
    options = {"epochs": 2, "run_opts": {"ckpt_interval_steps": 4}}
    reference = toy(device, folder=tmp_path / "reference", **options)
    fit(reference, items, valid)

    class StoppedError(Exception):
        """Stands for the process being killed."""

    def stop(batch, stage):
        raise StoppedError

    stopped = toy(device, folder=tmp_path / "stopped", **options)
    stopped.evaluate_batch = stop
    with pytest.raises(StoppedError):
        fit(stopped, items, valid)
    resumed = toy(device, folder=tmp_path / "stopped", **options)
    fit(resumed, items, valid)
    assert resumed.hparams.train_logger.valid == (
        reference.hparams.train_logger.valid
    )
    assert len(resumed.seen) == len(items)


def test_a_finished_training_stays_as_it_is(device, tmp_path):
    def run():
        brain = toy(device, folder=tmp_path, epochs=9, total_steps=4)
        fit(brain, vectors(3), vectors(2, seed=2))
        return brain

    first, second = run(), run()
    assert first.optimizer_step == second.optimizer_step == 4
    assert not second.seen
    assert not second.hparams.train_logger.valid
    torch.testing.assert_close(weights(first.ema), weights(second.ema))


# Adversary


def test_discriminator_waits_for_its_start(device):
    brain = vocoder_run(device, adversarial_start=2)
    judge, vocoder = brain.modules.discriminator, brain.modules.vocoder
    before = weights(judge), weights(vocoder)
    train_on(brain, audio(), audio())
    assert distance(before[0], judge) == 0
    assert distance(before[1], vocoder) > 0
    assert all(p.grad is None for p in judge.parameters())
    train_on(brain, audio())
    assert brain.optimizer_step == 3
    assert distance(before[0], judge) > 0


def test_adversarial_step_by_hand(device):
    rate = 0.01
    brain = vocoder_run(device, rate=rate)
    judge, vocoder = brain.modules.discriminator, brain.modules.vocoder
    batch = audio()
    real = batch.sig.data.to(device)
    fake = vocoder(brain.hparams.features.to(device)(real))
    ones, (score_real, score_fake) = 1.0, (judge(x)[0][0] for x in (real, fake))
    # least squares: real is 1, fake is 0; for the vocoder fake is 1
    discriminator_loss = (score_real - ones).square().mean() + (
        judge(fake.detach())[0][0].square().mean()
    )
    matching = brain.hparams.adversarial_loss.feature_matching(
        judge(fake)[1], [[f.detach() for f in judge(real)[1][0]]]
    )
    vocoder_loss = (
        3.0 * (fake - real).square().mean()
        + 2.0 * (score_fake - ones).square().mean()
        + 0.5 * matching
    )
    expected = {}
    for module, loss in ((judge, discriminator_loss), (vocoder, vocoder_loss)):
        names, parameters = zip(*module.named_parameters(), strict=True)
        gradients = torch.autograd.grad(loss, parameters, retain_graph=True)
        expected[module] = {
            name: (p - rate * g).detach()
            for name, p, g in zip(names, parameters, gradients, strict=True)
        }
    train_on(brain, batch)
    for module, values in expected.items():
        torch.testing.assert_close(weights(module), values)
    assert all(p.requires_grad for p in judge.parameters())


def test_each_optimizer_is_clipped_on_its_own(device):
    brain = vocoder_run(device, run_opts={"max_grad_norm": 1e-3})
    before = {k: weights(m) for k, m in brain.modules.items()}
    train_on(brain, audio())
    for name, module in brain.modules.items():
        assert brain.running[f"{name}_gradient"][0] > 1e-3
        assert distance(before[name], module) == pytest.approx(1e-3, rel=0.02)


# What a vocoder is given, and how it is judged


class AskedVocoder(LinearVocoder):
    """Remembers what it was asked and adds a loss of its own."""

    def training_step(self, mel, generator, target=None, f0=None):
        self.asked = generator, target, f0
        wav, _ = super().training_step(mel, generator, target, f0)
        return wav, {"pitch": f0.mean() + 0 * wav.sum()}


def test_vocoders_are_told_the_truth_in_training_alone(device):
    brain = vocoder_run(device, auxiliary_weight=0.5)
    brain.modules["vocoder"] = AskedVocoder().to(device)
    batch = audio()
    batch.f0 = SimpleNamespace(data=torch.full((2, 8), 100.0))
    with_f0 = brain.compute_forward(batch, sb.Stage.TRAIN)
    generator, target, f0 = brain.modules.vocoder.asked
    assert generator is brain.generator
    assert torch.equal(target.cpu(), batch.sig.data)
    assert torch.equal(f0.cpu(), batch.f0.data)
    loss = brain.compute_objectives(with_f0, batch, sb.Stage.TRAIN)
    plain = 3.0 * brain.running["mel"][-1]
    assert loss.item() == pytest.approx(plain + 0.5 * 100.0, rel=1e-5)
    brain.ema.module = brain.modules.vocoder
    brain.compute_forward(batch, sb.Stage.VALID)
    assert brain.modules.vocoder.asked[1] is None


def test_gradients_are_averaged_over_ranks(tmp_path):
    """DDP does so for what runs inside its own forward."""
    from torch import distributed

    on_two_ranks(_step_on_a_rank, tmp_path)
    one, two = (torch.load(tmp_path / f"{rank}.pt") for rank in range(2))
    for name, gradient in one.items():
        assert torch.equal(gradient, two[name]) and gradient.any(), name
    assert not distributed.is_initialized()


def _step_on_a_rank(rank, folder):
    from torch import distributed

    distributed.init_process_group(
        "gloo", init_method=f"file://{folder}/store", rank=rank, world_size=2
    )
    torch.manual_seed(0)
    vocoder = nn.parallel.DistributedDataParallel(LinearVocoder())
    generator = torch.Generator().manual_seed(rank)
    mel = torch.randn(2, 5, SETTINGS.n_mels, generator=generator)
    for _ in range(2):
        vocoder.zero_grad()
        wav, losses = training_step(vocoder, mel, generator)
        assert losses == {}
        wav.square().mean().backward()
    assert torch.equal(wav, vocoder.module(mel))
    gradients = {n: p.grad for n, p in vocoder.module.named_parameters()}
    torch.save(gradients, folder / f"{rank}.pt")
    distributed.destroy_process_group()


class EchoCodec(nn.Module):
    """Tokens are frame numbers; mels say how many codebooks were kept."""

    sampling = Sampling(n_steps=3)

    def __init__(self, num_codebooks=4):
        super().__init__()
        self.n_steps = []
        self.quantizer = SimpleNamespace(num_codebooks=num_codebooks)

    def encode(self, wav):
        # a frame more, as from an encoder that joins pairs of mel frames
        frames = torch.arange(1 + wav.shape[1] // SETTINGS.hop_length)
        shape = (len(wav), -1, self.quantizer.num_codebooks)
        return frames[:, None].to(wav.device).expand(*shape), None

    def decode(self, tokens, sampling, seed):
        self.n_steps.append(sampling.n_steps)
        mel = tokens[..., :1].expand(-1, -1, SETTINGS.n_mels)
        return mel + 1000.0 * tokens.shape[-1]


def test_mels_of_a_codec_keep_their_frames(device):
    brain = vocoder_run(device, codec=EchoCodec())
    mel = brain.mels(torch.zeros(2, SAMPLES, device=device), training=False)
    frames = torch.arange(SAMPLES // SETTINGS.hop_length, device=device)
    expected = (4000.0 + frames)[None, :, None].expand(2, -1, SETTINGS.n_mels)
    assert torch.equal(mel, expected)


def test_mels_of_a_codec_are_sampled_as_it_samples(device):
    trained = codec_run(device)
    trained.fit_batch(audio())  # makes the codebooks
    codec = trained.raw_model
    brain = vocoder_run(device, codec=codec)
    wav = audio().sig.data.to(device)

    def mels(step):
        brain.seed_generators(step)
        return brain.mels(wav, training=False)

    # this field leaves the noise as it is: other noise in every step
    assert torch.equal(mels(0), mels(0))
    assert (mels(0) - mels(1)).abs().mean() > 1
    codec.sampling = codec.sampling.with_changes(n_steps=0)
    assert torch.equal(mels(0), mels(1))


def test_batches_have_true_mels_all_codebooks_or_fewer(device):
    brain = vocoder_run(device, codec=EchoCodec())
    wav = torch.zeros(1, SAMPLES, device=device)
    counts = []
    for step in range(200):
        brain.seed_generators(step)
        counts.append(round(brain.mels(wav, training=True).mean().item(), -3))
    # 0 is a true mel, whose values are far below the codec's
    assert set(counts) == {0, 1000, 2000, 3000, 4000}
    assert 0.15 < counts.count(0) / len(counts) < 0.35
    # all four: 40 % of the batches and a quarter of 35 %
    assert 0.35 < counts.count(4000) / len(counts) < 0.6
    # means and samples, of the batches that were decoded
    n_steps = brain.hparams.codec.n_steps
    assert set(n_steps) == {0, 3} and len(n_steps) == 200 - counts.count(0)
    assert 0.35 < n_steps.count(0) / len(n_steps) < 0.65
    brain.seed_generators(0)
    first = brain.mels(wav, training=True).mean().item()
    assert round(first, -3) == counts[0]


def test_validation_scores_the_first_utterances_without_their_padding(device):
    asked = []

    def metric(real, fake, rate):
        asked.append((len(real), len(fake), rate))
        return float("nan") if len(asked) == 1 else float(len(asked))

    brain = vocoder_run(device, scores={"mark": metric}, scored_utterances=3)
    brain.on_stage_start(sb.Stage.VALID)
    batch = audio()
    batch.num_samples = torch.tensor([SAMPLES, 700])
    for _ in range(2):
        brain.evaluate_batch(batch, sb.Stage.VALID)
    assert asked == [(n, n, SETTINGS.sample_rate) for n in (SAMPLES, 700, 1024)]
    # the utterance without a score does not count
    assert brain.stage_stats()["mark"] == 2.5


def test_frozen_parts_keep_every_bit(device):
    """In the model that is trained and in its average."""
    brain = codec_run(device)
    train_on(brain, audio())
    brain.hparams.frozen = ["encoder", "quantizer", "decoder"]
    ready(brain)
    before = weights(brain.raw_model)
    brain.ema.module.load_state_dict(before)
    train_on(brain, audio(), audio(seed=5), audio(seed=6))
    for model in (brain.raw_model, brain.averaged_model):
        for name, value in weights(model).items():
            if not name.startswith("flow."):
                assert torch.equal(value, before[name]), name
        changed = weights(model.flow)
        assert any(
            not torch.equal(v, before[f"flow.{k}"]) for k, v in changed.items()
        )


# Batches that spoil everything


@pytest.mark.parametrize("make", [codec_run, vocoder_run])
def test_a_batch_that_is_not_finite_changes_no_weights(device, make):
    brain = make(device)
    train_on(brain, audio())
    trained = {
        name: value.detach().clone()
        for name, value in brain.modules.named_parameters()
    }
    loss = train_on(brain, audio(spoilt=True))
    assert not torch.isfinite(loss)
    for name, value in brain.modules.named_parameters():
        assert torch.equal(value, trained[name]), name
    for part in (brain.modules, brain.ema):
        for name, value in part.state_dict().items():
            assert torch.isfinite(value).all(), name
    assert torch.isfinite(train_on(brain, audio(seed=8)))


@pytest.mark.parametrize("make", [codec_run, vocoder_run])
def test_patience_with_such_batches_ends(device, make):
    brain = make(device)
    brain.nonfinite_patience = 2
    with pytest.raises(ValueError, match="patience"):
        train_on(brain, *[audio(spoilt=True)] * 4)
