"""Training of a vocoder: plain at first, then against discriminators."""

import numpy as np
import speechbrain as sb
import torch
from torch.nn.parallel import DistributedDataParallel

from speechbrain_flowmac.lobes.features import length_mask, num_frames
from speechbrain_flowmac.training.brains.base import TrainingBrain, mel_figure


class VocoderBrain(TrainingBrain):
    """Trains `modules["vocoder"]` on mels of its own front end.

    Batches hold sig [B, T], num_samples [B] and, for vocoders with a pitch
    head, f0 [B, F]. `modules["discriminator"]` joins in after
    `adversarial_start` optimizer steps; both have their own optimizer.

    With a `codec` (a `FlowMAC`) a quarter of the batches has true mels, and the
    others those that it decodes, frame for frame: 40 % from all codebooks, the
    rest from fewer, so that the vocoder learns what each rate does to a mel.
    Half of these are the mel decoder's own, the means, and half what the codec
    samples, which for one Euler step of flow matching is the same.
    Validation scores the first `scored_utterances` by each of `scores`.

    hparams used besides those of `TrainingBrain`: features, codec,
    mel_distortion, scores,
    scored_utterances, mel_loss, adversarial_loss, adversarial_start, mel_weight, auxiliary_weight,
    adversarial_weight, feature_matching_weight, generator_opt_class,
    discriminator_opt_class.
    """

    model_name = "vocoder"

    def init_optimizers(self):
        """One optimizer for the vocoder, one for the discriminator."""
        super().init_optimizers()
        classes = {
            "vocoder": self.hparams.generator_opt_class,
            "discriminator": self.hparams.discriminator_opt_class,
        }
        self.optimizers_dict = {
            name: make(self.modules[name].parameters())
            for name, make in classes.items()
        }
        if self.checkpointer is not None:
            for name, optimizer in self.optimizers_dict.items():
                self.checkpointer.add_recoverable(
                    f"{name}_optimizer", optimizer
                )

    @property
    def adversarial(self):
        """Whether the discriminator has joined in."""
        return self.optimizer_step >= self.hparams.adversarial_start

    def compute_forward(self, batch, stage):
        """Synthesises from the mels of the true waveform.

        Returns
        -------
        tuple
            Waveform [B, T] and what the vocoder says of itself (a dict of
            auxiliary losses).
        """
        wav = batch.sig.data.to(self.device)
        training = stage == sb.Stage.TRAIN
        mel = self.mels(wav, training)
        if training:
            mel = self.hparams.mel_distortion(mel, self.generator)
        model = self.modules.vocoder if training else self.averaged_model
        f0 = batch.f0.data.to(self.device) if hasattr(batch, "f0") else None
        fake, auxiliary = training_step(
            model, mel, self.generator, wav if training else None, f0
        )
        return fake[:, : wav.shape[1]], auxiliary

    def mels(self, wav, training):
        """Log-mels to synthesise from: true ones, or those of a codec.

        Arguments
        ---------
        wav : torch.Tensor
            Shape [B, T]. Zeros after a short utterance are silence, and
            silence is audio.
        training : bool
            Whether a codec may leave codebooks out, and its flow.

        Returns
        -------
        torch.Tensor
            Shape [B, N, M], N = ceil(T / hop).
        """
        features = self.hparams.features.to(self.device)
        codec = self.hparams.codec
        if codec is None:
            return features(wav)
        draw = {"generator": self.generator, "device": self.device}
        kind = torch.rand((), **draw).item() if training else 0.5
        if kind < 0.25:
            return features(wav)
        codec = codec.to(self.device).eval()
        tokens, _ = codec.encode(wav)
        count = codec.quantizer.num_codebooks
        if kind > 0.65:
            count = int(torch.randint(1, count + 1, (), **draw))
        sampling = codec.sampling
        if training and torch.rand((), **draw) < 0.5:
            sampling = sampling.with_changes(n_steps=0)
        mel = codec.decode(
            tokens[..., :count],
            sampling=sampling,
            seed=self.generator.initial_seed(),
        )
        # an encoder that joins frames may have added some
        return mel[:, : num_frames(wav.shape[1], features.settings.hop_length)]

    def compute_objectives(self, predictions, batch, stage):
        """The plain losses."""
        fake, auxiliary = predictions
        wav = batch.sig.data.to(self.device)
        if stage != sb.Stage.TRAIN:
            # whole utterances: what lies past their ends is not judged
            lengths = torch.as_tensor(batch.num_samples, device=self.device)
            fake = fake * length_mask(lengths, fake.shape[1])
        mel_loss = self.hparams.mel_loss.to(self.device)(fake, wav)
        terms = {"mel": mel_loss, **auxiliary}
        loss = self.hparams.mel_weight * mel_loss
        for value in auxiliary.values():
            loss = loss + self.hparams.auxiliary_weight * value
        if stage == sb.Stage.TRAIN:
            self.track(**terms)
        else:
            self.add_stats(len(batch), **terms)
            for real, vocoded, count in zip(wav, fake, lengths, strict=True):
                self.score(real[:count], vocoded[:count])
        return loss

    def score(self, real, vocoded):
        """Scores an utterance [T], unless there are enough already."""
        if self.example is None:
            self.example = (real, vocoded)
        rate = self.hparams.features.settings.sample_rate
        pair = [x.double().cpu().numpy() for x in (real, vocoded)]
        for name, metric in self.hparams.scores.items():
            values = self.scored[name]
            if len(values) < self.hparams.scored_utterances:
                values.append(metric(*pair, rate))

    def stage_stats(self):
        """Adds the mean scores to the mean losses."""
        means = {
            # a metric says NaN where it finds no speech
            name: float(np.nanmean(values))
            for name, values in self.scored.items()
            if not np.isnan(values).all()
        }
        return {**super().stage_stats(), **means}

    def fit_batch(self, batch):
        """One batch for the discriminator (if it is on) and the vocoder."""
        should_step = self.step % self.grad_accumulation_factor == 0
        self.on_fit_batch_start(batch, should_step)
        wav = batch.sig.data.to(self.device)
        with self.no_sync(not should_step):
            with self.training_ctx:
                outputs = self.compute_forward(batch, sb.Stage.TRAIN)
            if self.adversarial:
                self._backward(
                    self._discriminator_loss(wav, outputs[0].detach())
                )
            loss = self.compute_objectives(outputs, batch, sb.Stage.TRAIN)
            if self.adversarial:
                loss = loss + self._generator_loss(wav, outputs[0])
            self._backward(loss)
        if should_step:
            self._step()
        self.on_fit_batch_end(batch, outputs, loss, should_step)
        return loss.detach().cpu()

    def _backward(self, loss):
        scaled = self.scaler.scale(loss / self.grad_accumulation_factor)
        self.check_loss_isfinite(scaled)
        scaled.backward()

    def _scores(self, real, fake):
        """Scores and features of real and fake audio, in one pass."""
        both = torch.cat([real, fake])
        with self.training_ctx:
            scores, features = self.modules.discriminator(both)
        half = len(real)
        return (
            [score[:half].float() for score in scores],
            [score[half:].float() for score in scores],
            [[f[:half].float() for f in layers] for layers in features],
            [[f[half:].float() for f in layers] for layers in features],
        )

    def _discriminator_loss(self, real, fake):
        scores_real, scores_fake, _, _ = self._scores(real, fake)
        loss = self.hparams.adversarial_loss.discriminator_loss(
            scores_real, scores_fake
        )
        self.track(discriminator=loss)
        return loss

    def _generator_loss(self, real, fake):
        discriminator = self.modules.discriminator
        discriminator.requires_grad_(False)
        _, scores, features_real, features_fake = self._scores(real, fake)
        discriminator.requires_grad_(True)
        terms = self.hparams.adversarial_loss.generator_terms(
            scores, features_fake, features_real
        )
        self.track(**terms)
        return (
            self.hparams.adversarial_weight * terms["adversarial"]
            + self.hparams.feature_matching_weight * terms["feature_matching"]
        )

    def freeze_optimizers(self, optimizers):
        """Leaves the discriminator's out while it is off."""
        if self.adversarial:
            return optimizers
        return {"vocoder": optimizers["vocoder"]}

    def _step(self):
        """Clips each optimizer's gradients on their own, then steps."""
        optimizers = self.freeze_optimizers(self.optimizers_dict)
        finite = True
        for name, optimizer in optimizers.items():
            self.scaler.unscale_(optimizer)
            norm = torch.nn.utils.clip_grad_norm_(
                self.modules[name].parameters(), self.max_grad_norm
            )
            self.track(**{f"{name}_gradient": norm})
            finite = finite and bool(torch.isfinite(norm))
        # a non-finite gradient would spoil the weights for good
        if finite or self.scaler.is_enabled():
            for optimizer in optimizers.values():
                self.scaler.step(optimizer)
            self.scaler.update()
        for optimizer in optimizers.values():
            optimizer.zero_grad(set_to_none=True)
        self.optimizer_step += 1

    def on_stage_start(self, stage, epoch=None):
        """Forgets the last example and scores."""
        super().on_stage_start(stage, epoch)
        self.example = None
        self.scored = {name: [] for name in self.hparams.scores}

    def on_stage_end(self, stage, stage_loss, epoch=None):
        """Puts the first validation utterance on the board."""
        if stage == sb.Stage.VALID and self.board is not None:
            real, fake = (x.float().cpu() for x in self.example)
            rate = self.hparams.features.settings.sample_rate
            writer = self.board.writer
            step = self.optimizer_step
            writer.add_audio("valid/original", real, step, rate)
            writer.add_audio("valid/vocoded", fake.clamp(-1, 1), step, rate)
            mels = self.hparams.features(torch.stack(self.example).float())
            figure = mel_figure(list(mels), ["original", "vocoded"])
            writer.add_figure("valid/mel", figure, step)
        super().on_stage_end(stage, stage_loss, epoch)


def training_step(vocoder, *args):
    """`Vocoder.training_step`, also of a vocoder that is inside DDP.

    DDP averages the gradients of what runs inside its own forward, so there
    the step stands in for the vocoder's, once.

    Arguments
    ---------
    vocoder : Vocoder or DistributedDataParallel
        The vocoder.
    *args
        Of its `training_step`.

    Returns
    -------
    tuple
        Waveform [B, N * hop] and a dict of losses.
    """
    if not isinstance(vocoder, DistributedDataParallel):
        return vocoder.training_step(*args)
    inner = vocoder.module

    def step(*args):
        # the step itself calls forward
        del inner.forward
        return inner.training_step(*args)

    inner.forward = step
    return vocoder(*args)
