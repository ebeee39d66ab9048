"""Which tokens of an example are masked."""

from typing import Any

import numpy as np

from trainer.models.output_loss import IGNORED
from trainer.tasks.masked_lm.settings import MaskedLMSettings

GOES_ON = "##"
SPACES = ("\u0120", "\u2581")
"""A space, as byte-level BPE and SentencePiece write it."""
LINE_ENDS = ("\u0109", "\u010a", "\u010d")
"""Tab, line feed and carriage return, as byte-level BPE writes them: the next word has no space."""


class Masking:
    """Chooses tokens to predict: of these 80 % are masked, 10 % another token, 10 % kept."""

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
        """Returns the masked tokens [seq], and labels [seq]: the token where it is to be predicted.

        As many as the share gives, and one at least; whole words may be some more.
        """
        places = np.flatnonzero(~np.isin(tokens, self.ends))
        wanted = max(1, round(self.share * len(places)))
        if self.begins is None:
            chosen = random.permutation(places)[:wanted]
        else:
            begins = self.begins[tokens[places]] | np.isin(tokens[places - 1], self.ends)
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


def beginning(tokenizer: Any) -> np.ndarray:
    """Returns for each token, bool [vocab_size], whether it begins a word.

    The most frequent mark decides: WordPiece marks the later pieces of a word with ##, byte-level
    BPE and SentencePiece mark the first one.
    """
    pieces = tokenizer.convert_ids_to_tokens(list(range(len(tokenizer))))
    counts = {mark: sum(piece.startswith(mark) for piece in pieces) for mark in (GOES_ON, *SPACES)}
    if max(counts, key=lambda mark: counts[mark]) == GOES_ON:
        return np.array([not piece.startswith(GOES_ON) for piece in pieces])
    return np.array([piece.startswith(SPACES + LINE_ENDS) for piece in pieces])
