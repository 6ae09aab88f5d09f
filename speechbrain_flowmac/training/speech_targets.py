"""What a synthesiser says: a codec's tokens, and the sound they make.

To a model all of it is codes of codebooks, with a number for each item where
there is more to tell. So a codec with a dynamic frame rate differs by a
codebook of durations and by the rate that is wanted, and by nothing else.
"""

import numpy as np
import torch
from speechbrain.utils.data_pipeline import DynamicItem

from speechbrain_flowmac.lobes.frame_merging import average_rate
from speechbrain_flowmac.lobes.token_sequences import (
    insert_durations,
    take_durations,
)
from speechbrain_flowmac.training.data import crc32, read_crop
from speechbrain_flowmac.training.speech_inputs import TokenInputs


class TokenTargets(TokenInputs):
    """Stored tokens of a codec; with a fixed frame rate there is no more.

    Arguments
    ---------
    tokenizer : FlowMACTokenizer
        Extracts all its codebooks.
    num_codebooks : int
        That are said.
    """

    @property
    def codebook_sizes(self):
        """Entries of each codebook, a list."""
        return list(self.tokenizer.codec.codebook_sizes[: self.num_codebooks])

    @property
    def vectors(self):
        """A vector for each entry of each codebook, to start embeddings."""
        return self.tokenizer.get_pretrained_embeddings(
            num_codebooks=self.num_codebooks
        )

    def frame_rates(self, codes, lengths):
        """What a model is told of the rate of each item: nothing, it is one."""

    def decode(self, codes, lengths, seed=0):
        """The sound of codes.

        Arguments
        ---------
        codes : torch.Tensor
            int64 [B, N, K].
        lengths : torch.Tensor
            Exact numbers of frames, int64 [B].
        seed : int
            Of the decoder.

        Returns
        -------
        torch.Tensor
            Shape [B, T].
        """
        return self.tokenizer.tokens_to_sig(codes, length=lengths, seed=seed)


class MergedTokenTargets(DynamicItem):
    """Tokens of a codec with a dynamic frame rate, at rates that are drawn.

    They are made as they are needed, so that an utterance has another rate in
    each epoch. Durations are the second codebook, see `insert_durations`.

    Arguments
    ---------
    tokenizer : FlowMACTokenizer
        Of such a codec.
    num_codebooks : int
        That are said, durations not counted.
    rates : sequence of float
        Lowest and highest rate in Hz; between them each octave is as likely.
    seed : int
        Of the draws.
    epoch_counter : speechbrain.utils.epoch_loop.EpochCounter
        Tells the epoch.
    """

    takes = ("id", "wav")
    provides = ("tokens",)

    def __init__(self, tokenizer, num_codebooks, rates, seed, epoch_counter):
        merging = tokenizer.codec.merging()
        if merging is None:
            raise ValueError(
                "expected a codec with a dynamic frame rate, found "
                f"{tokenizer.source}, whose rate is fixed"
            )
        self.max_run = merging.max_run
        self.tokenizer = tokenizer
        self.num_codebooks = num_codebooks
        self.rates = rates
        self.seed = seed
        self.epoch_counter = epoch_counter

    @property
    def codebook_sizes(self):
        """Entries of each codebook, a list; of the second, durations."""
        first, *rest = self.tokenizer.codec.codebook_sizes[: self.num_codebooks]
        return [first, self.max_run, *rest]

    @property
    def vectors(self):
        """As `TokenTargets.vectors`; random ones for durations."""
        books = self.tokenizer.codec.codec.quantizer.vocabularies
        first, *rest = books[: self.num_codebooks]
        durations = torch.randn(self.max_run, first.shape[1])
        return torch.cat([first, durations.to(first), *rest]).detach()

    def prepare(self, manifest, data_folder, folder):
        """Nothing to do: tokens are made as they are needed."""
        return manifest, str(folder)

    def __call__(self, utterance, path):
        """Returns int64 [N, num_codebooks + 1]."""
        rng = np.random.default_rng(
            [self.seed, self.epoch_counter.current, crc32(utterance)]
        )
        lowest, highest = self.rates
        rate = lowest * (highest / lowest) ** rng.random()
        signal = read_crop(path, None, self.tokenizer.sample_rate)
        merged = self.tokenizer.codec.encode_batch(
            signal.unsqueeze(0),
            num_codebooks=self.num_codebooks,
            frame_rate=rate,
        )
        return insert_durations(*merged)[0].cpu()

    def frame_rates(self, codes, lengths):
        """Merged frames in a second of each item, Hz, [B]."""
        _, durations = take_durations(codes, lengths)
        return average_rate(durations, self.tokenizer.frame_rate).float()

    def decode(self, codes, lengths, seed=0):
        """The sound of codes, as `TokenTargets.decode`."""
        tokens, durations = take_durations(codes, lengths)
        return self.tokenizer.tokens_to_sig(tokens, length=durations, seed=seed)
