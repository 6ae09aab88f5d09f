"""Training of speech recognisers by CTC."""

import speechbrain as sb
from speechbrain.decoders.ctc import CTCPrefixBeamSearcher, ctc_greedy_decode
from speechbrain.nnet.losses import ctc_loss
from speechbrain.utils.metric_stats import ErrorRateStats

from speechbrain_flowmac.lobes.lengths import absolute_lengths
from speechbrain_flowmac.training.brains.base import TrainingBrain

BLANK_INDEX = 0


class RecogniserBrain(TrainingBrain):
    """Trains `modules["recogniser"]`, a `CTCRecogniser`.

    Batches hold `hparams.inputs.provides[0]` [B, N, ...] and text_tokens
    [B, U]. Validation reports character and word error rates of the best
    path; the test also those of a beam search.

    hparams used, beside those of `TrainingBrain`: inputs, targets and
    beam_size.
    """

    model_name = "recogniser"

    def compute_forward(self, batch, stage):
        """Log-probabilities and relative lengths; averaged weights in tests."""
        inputs = batch[self.hparams.inputs.provides[0]]
        x = inputs.data.to(self.device)
        lengths = absolute_lengths(inputs.lengths, x.shape[1])
        model = self.modules.recogniser
        if stage != sb.Stage.TRAIN:
            model = self.averaged_model
        log_probs, lengths = model(x, lengths.to(self.device))
        return log_probs, lengths / log_probs.shape[1]

    def compute_objectives(self, predictions, batch, stage):
        """The CTC loss; on the way, counts errors."""
        log_probs, lengths = predictions
        targets = batch.text_tokens
        loss = ctc_loss(
            log_probs,
            targets.data.to(self.device),
            lengths,
            targets.lengths.to(self.device),
            BLANK_INDEX,
        )
        if stage == sb.Stage.TRAIN:
            self.track(ctc=loss)
            return loss
        decode = self.hparams.targets.decode
        greedy = ctc_greedy_decode(log_probs, lengths, BLANK_INDEX)
        self._count("", batch, [decode(numbers) for numbers in greedy])
        if stage == sb.Stage.TEST:
            best = self.beam_search(log_probs.cpu(), lengths.cpu())
            self._count("beam_", batch, [found[0].text for found in best])
        return loss

    def _count(self, prefix, batch, texts):
        for unit in ("cer", "wer"):
            self.errors[prefix + unit].append(
                batch.id,
                [self._units(text, unit) for text in texts],
                [self._units(text, unit) for text in batch.text],
            )

    @staticmethod
    def _units(text, unit):
        return list(text) if unit == "cer" else text.split()

    def on_stage_start(self, stage, epoch=None):
        """Starts the counts of errors."""
        super().on_stage_start(stage, epoch)
        prefixes = ("", "beam_") if stage == sb.Stage.TEST else ("",)
        self.errors = {
            prefix + unit: ErrorRateStats()
            for prefix in prefixes
            for unit in ("cer", "wer")
        }
        if stage == sb.Stage.TEST:
            self.beam_search = CTCPrefixBeamSearcher(
                blank_index=BLANK_INDEX,
                vocab_list=self.hparams.targets.vocabulary,
                beam_size=self.hparams.beam_size,
            )

    def stage_stats(self):
        """Error rates in percent."""
        return {
            name: float(counted.summarize("error_rate"))
            for name, counted in self.errors.items()
        }

    def on_stage_end(self, stage, stage_loss, epoch=None):
        """Logs; after the test, writes alignments of best path and beam."""
        super().on_stage_end(stage, stage_loss, epoch)
        if stage == sb.Stage.TEST and sb.utils.distributed.if_main_process():
            with open(self.hparams.test_errors, "w", encoding="utf-8") as file:
                for name, counted in self.errors.items():
                    file.write(f"{name}\n")
                    counted.write_stats(file)
