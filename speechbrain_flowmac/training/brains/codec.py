"""Training of the codec up to the mel."""

import speechbrain as sb
import torch

from speechbrain_flowmac.lobes.flow_matching import masked_mean
from speechbrain_flowmac.lobes.quantizer import CodebookUsage
from speechbrain_flowmac.metrics import mel_roughness
from speechbrain_flowmac.training.brains.base import (
    TrainingBrain,
    is_distributed,
    mel_figure,
)


class FlowMACBrain(TrainingBrain):
    """Trains `modules["codec"]`, a `FlowMAC`.

    Batches hold sig [B, T] and num_samples [B]. Validation reports, beside
    the losses, the L1 distance of decoded mels in natural-log units (from the
    mel decoder, and sampled with the model's own settings), the roughness of
    the sampled and the true mel, and how well the codebooks are used. With `frozen` among the hparams (a list for
    `FlowMAC.freeze`), the rest is trained alone.
    """

    model_name = "codec"

    def on_fit_start(self):
        """Freezes parts; checks that ranks will share codebooks."""
        # before DDP looks for what has gradients
        self.raw_model.freeze(getattr(self.hparams, "frozen", []))
        super().on_fit_start()
        if is_distributed() and not self.raw_model.quantizer.synchronized:
            raise RuntimeError(
                "the quantizer was made before the process group, so its "
                "codebooks would differ between ranks: call ddp_init_group "
                "before load_hyperpyyaml"
            )

    def compute_forward(self, batch, stage):
        """The losses, from the trained or the averaged model."""
        wav = batch.sig.data.to(self.device)
        num_samples = torch.as_tensor(batch.num_samples, device=self.device)
        model = self.modules.codec
        if stage != sb.Stage.TRAIN:
            model = self.averaged_model
        return model(wav, num_samples, self.generator)

    def compute_objectives(self, predictions, batch, stage):
        """The weighted sum; on the way, notes its terms."""
        losses = predictions
        terms = {
            "flow": losses.flow,
            "flow_mse": losses.flow_mse,
            "prior": losses.prior,
            "commitment": losses.commitment,
        }
        for name in ("distillation", "alignment"):
            if getattr(losses, name) is not None:
                terms[name] = getattr(losses, name)
        if stage == sb.Stage.TRAIN:
            self.track(loss=losses.total, **terms)
            return losses.total
        self.usage.update(losses.tokens, losses.token_mask)
        self.add_stats(len(batch), **terms, **self.mel_distances(batch))
        return losses.total

    def mels(self, features, mask):
        """Log-mels [B, N, M] of what the model decodes: they are that."""
        return features

    def mel_distances(self, batch):
        """L1 distances and roughness of decoded mels, natural log."""
        model = self.averaged_model
        wav = batch.sig.data.to(self.device)
        num_samples = torch.as_tensor(batch.num_samples, device=self.device)
        features, mask, _ = model.analyse(wav, num_samples)
        mel = self.mels(model.normalizer.denormalize(features), mask)
        tokens, lengths = model.encode(wav, num_samples)
        sampled = {
            "mel_l1_decoder": model.sampling.with_changes(n_steps=0),
            "mel_l1_sampled": model.sampling,
        }
        distances = {"roughness_true": mel_roughness(mel, mask)}
        pictures = [mel[0]]
        for name, sampling in sampled.items():
            decoded = model.decode(tokens, lengths, sampling)
            decoded = self.mels(decoded[:, : mel.shape[1]], mask)
            distances[name] = masked_mean((decoded - mel).abs(), mask)
            pictures.append(decoded[0])
        distances["roughness_sampled"] = mel_roughness(decoded, mask)
        if self.pictures is None:
            frames = int(mask[0].sum())
            self.pictures = [picture[:frames] for picture in pictures]
        return distances

    def on_stage_start(self, stage, epoch=None):
        """Starts counting tokens."""
        super().on_stage_start(stage, epoch)
        quantizer = self.raw_model.quantizer
        self.usage = CodebookUsage(
            quantizer.num_codebooks, quantizer.codebook_sizes
        )
        self.pictures = None

    def stage_stats(self):
        """Adds the use of the codebooks to the means."""
        return {
            **super().stage_stats(),
            "codebook_use": self.usage.used.mean().item(),
            "perplexity": self.usage.perplexity.mean().item(),
        }

    def on_stage_end(self, stage, stage_loss, epoch=None):
        """Draws the mels of the first validation utterance."""
        if stage == sb.Stage.VALID and self.board is not None:
            self.board.writer.add_figure(
                "valid/mel",
                mel_figure(
                    self.pictures, ["original", "mel decoder", "sampled"]
                ),
                self.optimizer_step,
            )
            for k, value in enumerate(self.usage.perplexity):
                self.board.writer.add_scalar(
                    f"codebooks/perplexity_{k}", value, self.optimizer_step
                )
        super().on_stage_end(stage, stage_loss, epoch)
