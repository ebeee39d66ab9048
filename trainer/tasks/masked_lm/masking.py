"""Masking: which tokens of an example are predicted, and what replaces them in the input."""

from typing import Any

import numpy as np

from trainer.models.output_loss import IGNORED
from trainer.tasks.masked_lm.settings import MaskedLMSettings

CONTINUATION = "##"
"""Prefix with which WordPiece marks the later pieces of a word."""
SPACES = ("\u0120", "\u2581")
"""A space, as byte-level BPE and SentencePiece write it."""
LINE_ENDS = ("\u0109", "\u010a", "\u010d")
"""Tab, line feed and carriage return, as byte-level BPE writes them: the next word has no space."""


class Masking:
    """Chooses the tokens to predict: 80 % of them are masked, 10 % replaced by another token, and
    10 % kept."""

    def __init__(self, settings: MaskedLMSettings, tokenizer: Any) -> None:
        self.share = settings.mask_share
        self.mask_id = tokenizer.mask_token_id
        size = len(tokenizer)
        special = [*tokenizer.all_special_ids, *tokenizer.added_tokens_decoder]
        self.replacements = np.setdiff1d(np.arange(size), special)
        self.ends = np.array([tokenizer.cls_token_id, tokenizer.sep_token_id])
        self.begins = beginning(tokenizer) if settings.whole_words else None

    def mask(
        self, tokens: np.ndarray, random: np.random.Generator
    ) -> tuple[np.ndarray, np.ndarray]:
        """Returns the masked tokens [seq], and the labels [seq]: the token to predict, or IGNORED.

        It chooses the share of the tokens that the settings give, but at least one; with whole
        words, the first number of words that reaches it.
        """
        places = np.flatnonzero(~np.isin(tokens, self.ends))
        num_chosen = max(1, round(self.share * len(places)))
        if self.begins is None:
            chosen = random.permutation(places)[:num_chosen]
        else:
            begins = self.begins[tokens[places]] | np.isin(tokens[places - 1], self.ends)
            words = np.cumsum(begins) - 1
            order = random.permutation(int(words[-1]) + 1)
            sizes = np.bincount(words)[order].cumsum()
            chosen = places[np.isin(words, order[: int(np.searchsorted(sizes, num_chosen)) + 1])]
        labels = np.full(len(tokens), IGNORED)
        labels[chosen] = tokens[chosen]
        draw, masked = random.random(len(chosen)), tokens.astype(np.int64)
        masked[chosen[draw < 0.8]] = self.mask_id
        replaced = chosen[(draw >= 0.8) & (draw < 0.9)]
        masked[replaced] = random.choice(self.replacements, len(replaced))
        return masked, labels


def beginning(tokenizer: Any) -> np.ndarray:
    """Returns whether each token of the vocabulary begins a word, bool [vocab_size].

    The most frequent mark in the vocabulary decides how words are marked: WordPiece marks their
    later pieces with ##, byte-level BPE and SentencePiece the first one with a space.
    """
    pieces = tokenizer.convert_ids_to_tokens(list(range(len(tokenizer))))
    marks = (CONTINUATION, *SPACES)
    counts = {mark: sum(piece.startswith(mark) for piece in pieces) for mark in marks}
    if max(counts, key=lambda mark: counts[mark]) == CONTINUATION:
        return np.array([not piece.startswith(CONTINUATION) for piece in pieces])
    return np.array([piece.startswith(SPACES + LINE_ENDS) for piece in pieces])
