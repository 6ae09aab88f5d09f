"""What a recogniser hears: stored tokens, or the codec's own log-mels."""

import json
import logging
from pathlib import Path

import torch
from speechbrain.utils.data_pipeline import DynamicItem

from speechbrain_flowmac.lobes.encoder import join_frames
from speechbrain_flowmac.tokens.extraction import extract
from speechbrain_flowmac.tokens.stores import TarStore, TarTokens
from speechbrain_flowmac.training.data import read_crop

logger = logging.getLogger(__name__)


class TokenInputs(TarTokens):
    """Tokens, all of which are extracted once, before training.

    Arguments
    ---------
    tokenizer : FlowMACTokenizer
        Extracts all its codebooks.
    num_codebooks : int
        That are read.
    """

    def __init__(self, tokenizer, num_codebooks):
        super().__init__(num_codebooks)
        self.tokenizer = tokenizer

    def prepare(self, manifest, data_folder, folder):
        """Extracts the tokens of a manifest; all ranks call this.

        Arguments
        ---------
        manifest : str
            JSON file.
        data_folder : str
            Stands for {data_root} in it.
        folder : str
            For the tokens.

        Returns
        -------
        tuple
            Manifest of the tokens, and what stands for {token_root} in it.
        """
        utterances = json.loads(Path(manifest).read_text(encoding="utf-8"))
        summary = extract(
            self.tokenizer, utterances, folder, data_folder, TarStore()
        )
        if summary["failures"]:
            logger.warning(
                "%d utterances have no tokens and are left out: see %s",
                len(summary["failures"]),
                Path(folder, "summary.json"),
            )
        return str(Path(folder, "tokens.json")), str(folder)


class MelInputs(DynamicItem):
    """Normalised log-mels, as the codec's encoder gets them.

    Those of a token frame are one row, so that mels have the rate of tokens.

    Arguments
    ---------
    tokenizer : FlowMACTokenizer
        Whose front end it is.
    """

    takes = ("wav",)
    provides = ("mel",)

    def __init__(self, tokenizer):
        self.codec = tokenizer.codec.codec

    def prepare(self, manifest, data_folder, folder):
        """Nothing to do: mels are computed as they are needed."""
        return manifest, str(folder)

    @torch.no_grad()
    def __call__(self, path):
        """Returns float32 [N, stride * M]."""
        signal = read_crop(path, None, self.codec.mel_settings.sample_rate)
        mel, _, _ = self.codec.analyse(signal.unsqueeze(0))
        return join_frames(mel, self.codec.encoder.stride)[0]
