"""Which tokens of an example are masked."""

from typing import Any, NamedTuple

import numpy as np

from trainer import config
from trainer.tasks.vocabulary import IGNORED

GOES_ON = "##"
BEGINS = ("\u0120", "\u2581")
"""A space, as byte-level BPE and SentencePiece write it."""
LINE_ENDS = ("\u010a", "\u010d")
"""Line feed and carriage return, as byte-level BPE writes them."""


class Masking:
    """Chooses tokens to predict: of these 80 % are masked, 10 % another token, 10 % kept."""

    def __init__(self, settings: config.MaskedLM, tokenizer: Any) -> None:
        self.share = settings.mask_share
        self.mask_id = tokenizer.mask_token_id
        size = len(tokenizer)
        special = [*tokenizer.all_special_ids, *tokenizer.added_tokens_decoder]
        self.replacements = np.setdiff1d(np.arange(size), special)
        self.ends = np.array([tokenizer.cls_token_id, tokenizer.sep_token_id])
        self.words = word_bounds(tokenizer) if settings.whole_words else None

    def mask(
        self, tokens: np.ndarray, random: np.random.Generator
    ) -> tuple[np.ndarray, np.ndarray]:
        """Returns the masked tokens [seq], and labels [seq]: the token where it is to be predicted.

        As many as the share gives, and one at least; whole words may be some more.
        """
        places = np.flatnonzero(~np.isin(tokens, self.ends))
        wanted = max(1, round(self.share * len(places)))
        if self.words is None:
            chosen = random.permutation(places)[:wanted]
        else:
            begins = self.words.begins[tokens[places]] | self.words.ends[tokens[places - 1]]
            begins |= np.isin(tokens[places - 1], self.ends)
            words = np.cumsum(begins) - 1
            order = random.permutation(int(words[-1]) + 1)
            sizes = np.bincount(words)[order].cumsum()
            chosen = places[np.isin(words, order[: int(np.searchsorted(sizes, wanted)) + 1])]
        labels = np.full(len(tokens), IGNORED)
        labels[chosen] = tokens[chosen]
        draw, masked = random.random(len(chosen)), tokens.astype(np.int64)
        masked[chosen[draw < 0.8]] = self.mask_id
        other = chosen[(draw >= 0.8) & (draw < 0.9)]
        masked[other] = random.choice(self.replacements, len(other))
        return masked, labels


class WordBounds(NamedTuple):
    """For each token of a vocabulary, bool [vocab_size]."""

    begins: np.ndarray
    """Whether it does not go on with the word before it."""
    ends: np.ndarray
    """Whether no token goes on after it."""


def word_bounds(tokenizer: Any) -> WordBounds:
    """Returns where words begin and end, as the commonest mark of the pieces has it.

    Pieces of WordPiece that go on begin with ##; those of byte-level BPE and SentencePiece mark a
    beginning, but not after the end of a line.
    """
    pieces: list[str] = tokenizer.convert_ids_to_tokens(list(range(len(tokenizer))))
    marks = {mark: sum(piece.startswith(mark) for piece in pieces) for mark in (GOES_ON, *BEGINS)}
    if max(marks, key=lambda mark: marks[mark]) == GOES_ON:
        begins = [not piece.startswith(GOES_ON) for piece in pieces]
        return WordBounds(np.array(begins), np.zeros(len(pieces), bool))
    return WordBounds(
        np.array([piece.startswith(BEGINS + LINE_ENDS) for piece in pieces]),
        np.array([piece.endswith(LINE_ENDS) for piece in pieces]),
    )
