"""Training of speech synthesisers on tokens."""

import math
from pathlib import Path

import soundfile
import speechbrain as sb
import torch
from speechbrain.utils.distributed import if_main_process
from tqdm import tqdm

from speechbrain_flowmac.lobes.lengths import absolute_lengths
from speechbrain_flowmac.training.brains.base import TrainingBrain
from speechbrain_flowmac.training.data import crc32


class SynthesiserBrain(TrainingBrain):
    """Trains `modules["synthesiser"]`, a `TokenLanguageModel`.

    Batches hold text_tokens [B, U] and tokens [B, N, K]. Validation reports
    negative log-likelihoods of each codebook, in nats a token, and the bits
    of a frame: what an ideal coder would need that knows the text. The test
    also says the first texts, as files.

    hparams used, beside those of `TrainingBrain`: speech, num_samples,
    samples_folder, max_frames, temperature, top_k and, where the rate is
    dynamic, frame_rate (Hz that texts are said at).
    """

    model_name = "synthesiser"

    def compute_forward(self, batch, stage):
        """`Predictions` of the tokens; of averaged weights in tests."""
        text, text_lengths = self._exact(batch.text_tokens)
        tokens, lengths = self._exact(batch.tokens)
        rates = self.hparams.speech.frame_rates(tokens, lengths)
        model = self.modules.synthesiser
        if stage != sb.Stage.TRAIN:
            model = self.averaged_model
        return model(text, text_lengths, tokens, lengths, rates)

    def _exact(self, padded):
        """Values and exact lengths, on the device."""
        values, relative = padded
        lengths = absolute_lengths(relative, values.shape[1])
        return values.to(self.device), lengths.to(self.device)

    def compute_objectives(self, predictions, batch, stage):
        """The mean over all tokens; on the way, sums of each codebook."""
        nats, counts = predictions.nll()
        loss = nats.sum() / counts.sum()
        if stage == sb.Stage.TRAIN:
            self.track(nll=loss)
            return loss
        self.nats += nats.detach().cpu().double()
        self.counts += counts.cpu()
        if stage == sb.Stage.TEST:
            texts = zip(batch.id, *self._exact(batch.text_tokens), strict=True)
            self.texts += [(i, text[:length]) for i, text, length in texts]
        return loss

    def on_stage_start(self, stage, epoch=None):
        """Starts the sums."""
        super().on_stage_start(stage, epoch)
        books = len(self.hparams.speech.codebook_sizes)
        self.nats = torch.zeros(books, dtype=torch.float64)
        self.counts = torch.zeros(books, dtype=torch.int64)
        self.texts = []

    def stage_stats(self):
        """Nats a token of each codebook, and bits a frame of all."""
        nats = (self.nats / self.counts).tolist()
        stats = {f"nll_{book}": value for book, value in enumerate(nats, 1)}
        # the first codebook tells the ends too: frames are those of the last
        bits = float(self.nats.sum() / self.counts[-1]) / math.log(2)
        return {**stats, "bits_per_frame": bits}

    def on_stage_end(self, stage, stage_loss, epoch=None):
        """Logs; after the test, says texts."""
        super().on_stage_end(stage, stage_loss, epoch)
        if stage == sb.Stage.TEST and if_main_process():
            self.say(self.texts[: self.hparams.num_samples])

    def say(self, texts):
        """Writes a file for each of some texts.

        Arguments
        ---------
        texts : list of tuple
            Name and symbols, int64 [U].
        """
        folder = Path(self.hparams.samples_folder)
        folder.mkdir(parents=True, exist_ok=True)
        hparams, rates = self.hparams, None
        if hasattr(hparams, "frame_rate"):
            rates = torch.tensor([hparams.frame_rate], device=self.device)
        for name, text in tqdm(
            texts,
            desc="samples",
            dynamic_ncols=True,
            disable=self.noprogressbar,
        ):
            codes, lengths = self.averaged_model.generate(
                text.unsqueeze(0),
                torch.tensor([len(text)], device=text.device),
                rates,
                max_frames=hparams.max_frames,
                temperature=hparams.temperature,
                top_k=hparams.top_k,
                # with one seed, what reads no text yet says one thing
                seed=hparams.seed + crc32(name),
            )
            sound = hparams.speech.decode(codes, lengths, hparams.seed)
            soundfile.write(
                str(folder / f"{name}.wav"),
                sound[0].cpu().numpy(),
                hparams.speech.tokenizer.sample_rate,
            )
