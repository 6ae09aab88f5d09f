"""What a synthesiser says: a codec's tokens, and the sound they make."""

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
