"""Text as the targets of CTC: normalisation, characters, word pieces.

Symbol 0 is CTC's blank.
"""

import re
from pathlib import Path

import sentencepiece

from speechbrain_flowmac.files import atomic_write

BLANK = "<blank>"


def english_letters(text):
    """Lower case, with letters, apostrophes and single spaces alone.

    Example
    -------
    >>> english_letters("It's 9 -- SO, go!")
    "it's so go"
    """
    letters = re.sub(r"[^a-z' ]+", " ", text.lower().replace("’", "'"))
    return " ".join(letters.split())


class Characters:
    """A symbol for each character.

    Arguments
    ---------
    alphabet : str
        All characters that may occur, the space among them.

    Example
    -------
    >>> characters = Characters("abc ")
    >>> characters.encode("a cab"), characters.decode([3, 1, 2])
    ([1, 4, 3, 1, 2], 'cab')
    """

    def __init__(self, alphabet="abcdefghijklmnopqrstuvwxyz' "):
        self.vocabulary = [BLANK, *alphabet]
        self.numbers = {c: i for i, c in enumerate(self.vocabulary)}

    def fit(self, texts):
        """Nothing is learnt."""

    def encode(self, text):
        """Numbers of a text, a list of int."""
        return [self.numbers[character] for character in text]

    def decode(self, numbers):
        """The text of numbers without blanks."""
        return "".join(self.vocabulary[number] for number in numbers)


class WordPieces:
    """SentencePiece units, learnt from the training texts.

    Arguments
    ---------
    model_file : str or Path
        Where the model is, or will be once `fit` has made it.
    num_pieces : int
        Pieces to learn; SentencePiece says how many the texts can give.

    Source: Kudo and Richardson, "SentencePiece", arXiv 1808.06226.
    """

    def __init__(self, model_file, num_pieces):
        self.model_file = Path(model_file)
        self.num_pieces = num_pieces
        self._model = None

    @property
    def model(self):
        """The SentencePiece model, read when it is first needed."""
        if self._model is None:
            self._model = sentencepiece.SentencePieceProcessor(
                model_file=str(self.model_file)
            )
        return self._model

    def fit(self, texts):
        """Learns the pieces, unless that was done before."""
        if self.model_file.exists():
            return
        with atomic_write(self.model_file) as file:
            sentencepiece.SentencePieceTrainer.train(
                sentence_iterator=iter(texts),
                model_writer=file,
                vocab_size=self.num_pieces,
                character_coverage=1.0,
                bos_id=-1,
                eos_id=-1,
                minloglevel=2,
            )

    @property
    def vocabulary(self):
        """The blank and the pieces, a list of str."""
        pieces = range(self.model.vocab_size())
        return [BLANK, *map(self.model.id_to_piece, pieces)]

    def encode(self, text):
        """Numbers of a text, a list of int."""
        return [piece + 1 for piece in self.model.encode(text)]

    def decode(self, numbers):
        """The text of numbers without blanks."""
        return self.model.decode([number - 1 for number in numbers])
