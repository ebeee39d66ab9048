"""Pairs of segments for next-sentence prediction, drawn from chunks of documents."""

from collections.abc import Iterable
from typing import Any

import numpy as np

from trainer.data.encoded import EncodedColumns, PreparedSplit

Document = list[list[int]]
"""The tokens of each sentence; a document has at least two sentences."""

NUM_DRAWS = 100
"""Places in other documents that are drawn; the one that fits best becomes the segment."""


def cut_documents(documents: Iterable[tuple[int, Document]], size: int) -> EncodedColumns:
    """Returns chunks of `size` tokens from numbered documents; the last of each may be shorter.

    `starts` holds the positions in a chunk at which a sentence begins; for a chunk of a single
    sentence, its middle.
    """
    columns: dict[str, list[Any]] = {"input_ids": [], "starts": [], "document": []}
    for number, sentences in documents:
        tokens = [token for sentence in sentences for token in sentence]
        starts = np.cumsum([len(sentence) for sentence in sentences])
        for begin in range(0, len(tokens) - 1, size):
            chunk = tokens[begin : begin + size]
            inside = starts[(starts > begin) & (starts < begin + len(chunk))] - begin
            columns["input_ids"].append(chunk)
            columns["starts"].append(inside.tolist() or [len(chunk) // 2])
            columns["document"].append(number)
    return columns


def pair(
    split: PreparedSplit, index: int, size: int, random: np.random.Generator
) -> tuple[np.ndarray, np.ndarray, bool]:
    """Returns two segments of tokens, and whether the second follows the first in its document.

    The first segment begins chunk `index`. The second is the rest of that chunk or, with
    probability 1/2, as many tokens of another document. Neither length nor position gives the
    answer away: a full chunk (of `size` tokens) is completed from inside another document, and the
    last chunk of a document with the end of another one of similar length.
    """
    tokens, starts = split.ragged("input_ids"), split.ragged("starts")
    documents, chunk = split.array("document"), tokens[index]
    cut = int(random.choice(starts[index]))
    first, second = chunk[:cut], chunk[cut:]
    if random.random() < 0.5:
        return first, second, True
    places = random.integers(len(documents), size=NUM_DRAWS)
    if len(chunk) < size:  # the last chunks of their documents
        places = np.searchsorted(documents, documents[places], side="right") - 1
    firsts, lasts = starts.offsets[places], starts.offsets[places + 1]
    begins = tokens.offsets[places] + starts.values[random.integers(firsts, lasts)]
    if len(chunk) < size:
        ends = tokens.offsets[places + 1]
        fits = cut + ends - begins <= size
    else:
        ends = begins + len(second)
        reached = np.searchsorted(tokens.offsets[1:-1], ends)  # the chunk of the last token
        fits = (ends <= tokens.offsets[-1]) & (documents[reached] == documents[places])
    fits &= documents[places] != documents[index]
    if fits.any():
        best = np.argmin(np.where(fits, np.abs(ends - begins - len(second)), size))
        return first, tokens.values[begins[best] : ends[best]], False
    elsewhere = np.flatnonzero(documents != documents[index])  # if documents are few or short
    return first, tokens[int(random.choice(elsewhere))][: len(second)], False
