"""What the codec's and the vocoder's training have in common."""

import logging
import time
from pathlib import Path

import speechbrain as sb
import torch
from speechbrain.utils.distributed import if_main_process
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

logger = logging.getLogger(__name__)


class TrapezoidSchedule:
    """Linear warm-up, constant, linear decay to zero at the last step.

    A function of the step alone, with no state to save: a longer run is the
    same run with a later decay.

    Arguments
    ---------
    peak : float
        Learning rate between warm-up and decay.
    total_steps : int
        Optimizer steps of the whole run.
    warmup_steps : int
        Steps of the warm-up.
    decay_steps : int
        Steps of the decay.

    Example
    -------
    >>> schedule = TrapezoidSchedule(1.0, 100, warmup_steps=10, decay_steps=20)
    >>> [schedule(step) for step in (0, 9, 50, 90, 100)]
    [0.1, 1.0, 1.0, 0.5, 0.0]
    """

    def __init__(self, peak, total_steps, warmup_steps=500, decay_steps=2000):
        if warmup_steps + decay_steps > total_steps:
            raise ValueError(
                f"total_steps={total_steps} are fewer than warmup_steps="
                f"{warmup_steps} and decay_steps={decay_steps} together: the "
                "learning rate would not reach its peak. Give smaller ones, "
                f"such as --warmup_steps={min(warmup_steps, total_steps // 10)} "
                f"--decay_steps={total_steps // 2}"
            )
        self.peak = peak
        self.total_steps = total_steps
        self.warmup_steps = warmup_steps
        self.decay_steps = decay_steps

    def __call__(self, step):
        """Learning rate of an optimizer step, counted from 0."""
        rise = (step + 1) / max(self.warmup_steps, 1)
        fall = (self.total_steps - step) / max(self.decay_steps, 1)
        return self.peak * max(min(rise, fall, 1.0), 0.0)


class Pace:
    """Says once how long a training will take."""

    num_steps = 10
    """Steps that are timed; the one before them, which is slow, is not."""

    def __init__(self):
        self.count = 0

    def step(self, remaining):
        """Counts a step; after enough of them, logs.

        Arguments
        ---------
        remaining : int
            Steps that are left.
        """
        if self.count == 0:
            self.start = time.monotonic()
        elif self.count == self.num_steps:
            seconds = (time.monotonic() - self.start) / self.num_steps
            hours = remaining * seconds / 3600
            left = (
                f"{hours:.1f} hours" if hours < 48 else f"{hours / 24:.0f} days"
            )
            logger.info(
                "%.2g s a step: at this pace the %d that are left take %s",
                *(seconds, remaining, left),
            )
        self.count += 1


def bfloat16_cost(size=256):
    """Time of a bfloat16 matrix product on this CPU, in float32 products.

    Processors with bfloat16 arithmetic take a fraction; on others it is
    emulated, many times as slow.
    """
    seconds = []
    for dtype in (torch.bfloat16, torch.float32):
        matrix = torch.ones(size, size, dtype=dtype)
        matrix @ matrix  # the first call sets things up
        start = time.perf_counter()
        matrix @ matrix
        seconds.append(time.perf_counter() - start)
    return seconds[0] / seconds[1]


class TrainingBrain(sb.Brain):
    """EMA of weights, learning rate by step, logs and resumable randomness.

    The subclass names its model in `model_name`, a key of `modules`. Every
    batch seeds torch's global generator and `self.generator` from the step:
    the first alike on all ranks (quantizer dropout needs that), the second
    per rank (ranks must not share noise). Nothing random needs saving then,
    and a run that was killed goes on to the same losses.

    hparams used: seed, lr_schedule, ema_decay, total_steps, log_interval,
    valid_interval (epochs), train_logger, epoch_counter and, where given, tensorboard_folder.
    """

    model_name = None

    def init_optimizers(self):
        """Makes the optimizers, then the EMA copy that is saved beside."""
        super().init_optimizers()
        self.ema = AveragedModel(
            self.raw_model,
            multi_avg_fn=get_ema_multi_avg_fn(self.hparams.ema_decay),
        ).to(self.device)
        if self.checkpointer is not None:
            self.checkpointer.add_recoverable("ema", self.ema)

    @property
    def raw_model(self):
        """The trained model, out of its DDP wrapper."""
        model = self.modules[self.model_name]
        return getattr(model, "module", model)

    @property
    def averaged_model(self):
        """The model with averaged weights: what is validated and exported."""
        return self.ema.module

    def on_fit_start(self):
        """Prepares generators and logs, then what SpeechBrain prepares."""
        super().on_fit_start()
        if self.optimizer_step_limit is None:
            self.optimizer_step_limit = self.hparams.total_steps
        self._warn_of_emulation()
        self.finished = self._optimizer_step_limit_exceeded and self._validated
        self.generator = torch.Generator(device=self.device)
        self.running = {}
        self.pace = Pace()
        self.board = None
        folder = getattr(self.hparams, "tensorboard_folder", None)
        if folder is not None and if_main_process():
            Path(folder).mkdir(parents=True, exist_ok=True)
            self.board = sb.utils.train_logger.TensorboardLogger(folder)

    def _warn_of_emulation(self):
        """A warning where bfloat16 would make a training slower."""
        on_cpu = torch.device(self.device).type == "cpu"
        if on_cpu and self.precision == "bf16":
            cost = bfloat16_cost()
            if cost > 3:
                logger.warning(
                    "This processor has no bfloat16 arithmetic: matrix "
                    "products take %.0f times as long as in float32. "
                    "--precision=fp32 --eval_precision=fp32 is faster",
                    cost,
                )

    @property
    def _validated(self):
        """Whether the newest checkpoint was saved after a validation."""
        if self.checkpointer is None:
            return False
        newest = self.checkpointer.find_checkpoint()
        return newest is not None and bool(newest.meta.get("end-of-epoch"))

    def seed_generators(self, *salt):
        """Seeds the generators from the seed, the rank and `salt`."""
        rank = torch.distributed.get_rank() if is_distributed() else 0
        common = hash((self.hparams.seed, *salt)) % 2**62
        torch.manual_seed(common)
        self.generator.manual_seed((common + 7919 * (rank + 1)) % 2**62)

    def on_fit_batch_start(self, batch, should_step):
        """Seeds the generators and sets the learning rate."""
        self.seed_generators(self.optimizer_step, self.step)
        rate = self.hparams.lr_schedule(self.optimizer_step)
        for optimizer in self.optimizers_dict.values():
            for group in optimizer.param_groups:
                group["lr"] = rate

    def check_gradients(self):
        """Drops the gradients of a step if any is not finite.

        SpeechBrain asks tensor by tensor, which costs a CPU one step in
        twenty; one norm tells the same.
        """
        parameters = [
            p for p in self.modules.parameters() if p.grad is not None
        ]
        norm = torch.nn.utils.get_total_norm([p.grad for p in parameters])
        if not torch.isfinite(norm):
            logger.warning("gradients are not finite: this step is skipped")
            for parameter in parameters:
                parameter.grad = None

    def on_fit_batch_end(self, batch, outputs, loss, should_step):
        """Updates the averaged weights and writes logs."""
        if not should_step:
            return
        self.ema.update_parameters(self.raw_model)
        if if_main_process():
            self.pace.step(self.optimizer_step_limit - self.optimizer_step)
        interval = self.hparams.log_interval
        if self.optimizer_step % interval == 0:
            stats = {k: sum(v) / len(v) for k, v in self.running.items()}
            self.running = {}
            if if_main_process():
                values = ", ".join(f"{k} {v:.4g}" for k, v in stats.items())
                logger.info("step %d: %s", self.optimizer_step, values)
            if self.board is not None:
                for name, value in stats.items():
                    self.board.writer.add_scalar(
                        f"train/{name}", value, self.optimizer_step
                    )

    def track(self, **values):
        """Remembers values of a training batch until the next log."""
        for name, value in values.items():
            value = float(value.detach() if torch.is_tensor(value) else value)
            self.running.setdefault(name, []).append(value)

    def _fit_valid(self, valid_set, epoch, enable):
        if self.finished:
            return
        # SpeechBrain validates every epoch; those of a small corpus are short
        through = self._optimizer_step_limit_exceeded
        last = through or epoch == self.hparams.epoch_counter.limit
        if last or epoch % self.hparams.valid_interval == 0:
            super()._fit_valid(valid_set, epoch, enable)

    def on_stage_start(self, stage, epoch=None):
        """Starts the statistics of a validation or test."""
        self.stage_sums = {}
        self.stage_count = 0
        if stage != sb.Stage.TRAIN:
            self.averaged_model.eval()
            self.seed_generators(0, 0)

    def add_stats(self, weight, **values):
        """Adds values of a validation batch, weighted by its items."""
        self.stage_count += weight
        for name, value in values.items():
            self.stage_sums[name] = self.stage_sums.get(
                name, 0.0
            ) + weight * float(value)

    def stage_stats(self):
        """Means of what `add_stats` was given, as plain floats."""
        count = max(self.stage_count, 1)
        return {k: v / count for k, v in self.stage_sums.items()}

    def on_stage_end(self, stage, stage_loss, epoch=None):
        """Logs, and after validation saves a checkpoint."""
        if stage == sb.Stage.TRAIN:
            self.train_loss = float(stage_loss)
            return
        stats = {"loss": float(stage_loss), **self.stage_stats()}
        if stage == sb.Stage.VALID:
            self.hparams.train_logger.log_stats(
                {
                    "epoch": epoch,
                    "step": self.optimizer_step,
                    "lr": self.hparams.lr_schedule(self.optimizer_step),
                },
                train_stats={"loss": self.train_loss},
                valid_stats=stats,
            )
            if self.board is not None:
                for name, value in stats.items():
                    self.board.writer.add_scalar(
                        f"valid/{name}", value, self.optimizer_step
                    )
            # on all ranks: saving is collective
            self.checkpointer.save_and_keep_only(
                meta={"epoch": int(epoch), "loss": stats["loss"]},
                min_keys=["loss"],
            )
        else:
            self.hparams.train_logger.log_stats(
                {"epoch loaded": self.hparams.epoch_counter.current},
                test_stats=stats,
            )

    def on_evaluate_start(self, max_key=None, min_key=None):
        """Loads the best checkpoint, also where nothing was trained first."""
        if not hasattr(self, "generator"):
            self.on_fit_start()
        super().on_evaluate_start(max_key=max_key, min_key=min_key)


def is_distributed():
    """Whether several ranks train."""
    return (
        torch.distributed.is_available() and torch.distributed.is_initialized()
    )


def mel_figure(mels, titles):
    """Log-mels one above the other, for people to look at.

    Arguments
    ---------
    mels : list of torch.Tensor
        Shapes [N, M].
    titles : list of str
        One for each.

    Returns
    -------
    matplotlib.figure.Figure
    """
    # no pyplot: it keeps figures alive and picks a display
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 2.2 * len(mels)), layout="constrained")
    axes = figure.subplots(len(mels), 1, sharex=True, squeeze=False)[:, 0]
    low, high = float(mels[0].min()), float(mels[0].max())
    for axis, mel, title in zip(axes, mels, titles, strict=True):
        axis.imshow(
            mel.float().cpu().T,
            origin="lower",
            aspect="auto",
            vmin=low,
            vmax=high,
        )
        axis.set_title(title, fontsize=9)
        axis.set_ylabel("band")
    axes[-1].set_xlabel("frame")
    return figure
