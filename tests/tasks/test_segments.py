"""Segments: chunks that cover their documents, and followers that only the text can tell apart."""

import math
from itertools import accumulate
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.tree import DecisionTreeClassifier

from trainer.data.encoded import PreparedSplit, Ragged, Summary
from trainer.tasks.masked_lm.segments import Document, cut_documents, pair

SPAN = 100_000
"""Tokens of document d are d * SPAN, d * SPAN + 1 and so on, so that each says where it stood."""


def document(number: int, sizes: list[int]) -> Document:
    ends = list(accumulate(sizes, initial=number * SPAN))
    return [list(range(end - size, end)) for end, size in zip(ends[1:], sizes, strict=True)]


def random_documents(count: int, fewest: int, most: int) -> list[Document]:
    """Returns documents of `fewest` to `most` sentences of 4 to 24 tokens."""
    random = np.random.default_rng(1)
    return [
        document(number, random.integers(4, 25, size=random.integers(fewest, most + 1)).tolist())
        for number in range(count)
    ]


def ragged(entries: list[list[int]]) -> Ragged:
    values = np.array([value for entry in entries for value in entry], np.int32)
    return Ragged(values, np.cumsum([0, *map(len, entries)]))


def prepared(documents: list[Document], size: int) -> PreparedSplit:
    columns: Any = cut_documents(enumerate(documents), size)
    made = {name: ragged(columns[name]) for name in ("input_ids", "starts")}
    return PreparedSplit({**made, "document": np.array(columns["document"])}, Summary())


def pairs(split: PreparedSplit, size: int, epoch: int = 0) -> list[Any]:
    """Returns the pair that each chunk begins."""
    return [
        pair(split, index, size, np.random.default_rng((1, epoch, index)))
        for index in range(len(split))
    ]


# Chunks

DOCUMENTS = st.lists(
    st.lists(st.integers(1, 12), min_size=2, max_size=12), min_size=1, max_size=6
).map(lambda sizes: [document(number, one) for number, one in enumerate(sizes)])


@given(DOCUMENTS, st.integers(2, 20))
def test_chunks_hold_each_document_once_and_in_order(documents, size):
    columns = cut_documents(enumerate(documents), size)
    for number, sentences in enumerate(documents):
        tokens = [token for sentence in sentences for token in sentence]
        chunks = [
            chunk
            for chunk, of in zip(columns["input_ids"], columns["document"], strict=True)
            if of == number
        ]
        if len(tokens) % size == 1:  # one token is no pair
            tokens = tokens[:-1]
        assert [token for chunk in chunks for token in chunk] == tokens
        assert all(len(chunk) == size for chunk in chunks[:-1])
        assert 2 <= len(chunks[-1]) <= size
    assert columns["document"] == sorted(columns["document"])


@given(DOCUMENTS, st.integers(2, 20))
def test_starts_are_where_sentences_begin_inside_a_chunk(documents, size):
    columns = cut_documents(enumerate(documents), size)
    begins = {sentence[0] for sentences in documents for sentence in sentences}
    for chunk, starts in zip(columns["input_ids"], columns["starts"], strict=True):
        inside = [place for place, token in enumerate(chunk) if place and token in begins]
        assert starts == (inside or [len(chunk) // 2])
        assert 0 < starts[0] <= starts[-1] < len(chunk)


# Pairs

SIZE = 61
KINDS = {"short": (5000, 2, 8), "mixed": (1000, 2, 40), "long": (60, 200, 400)}
"""Number of documents, and of their sentences; most chunks are the last ones, or hardly any."""


@pytest.fixture(scope="module", params=KINDS)
def documents(request: pytest.FixtureRequest) -> list[Document]:
    return random_documents(*KINDS[request.param])


@pytest.fixture(scope="module")
def split(documents: list[Document]) -> PreparedSplit:
    return prepared(documents, SIZE)


@pytest.fixture(scope="module")
def drawn(split: PreparedSplit) -> list[Any]:
    return pairs(split, SIZE)


def test_a_real_follower_goes_on_and_another_comes_from_another_document(split, documents, drawn):
    lengths = [sum(map(len, sentences)) for sentences in documents]
    begins = {sentence[0] for sentences in documents for sentence in sentences}
    for index, (first, second, real) in enumerate(drawn):
        chunk = split.ragged("input_ids")[index]
        assert 0 < len(first) < len(chunk)
        assert first.tolist() == chunk[: len(first)].tolist()
        assert len(second) > 0
        assert len(first) + len(second) <= SIZE
        assert (np.diff(second) == 1).all()  # contiguous
        assert second[0] // SPAN == second[-1] // SPAN
        assert second[-1] % SPAN < lengths[second[-1] // SPAN]
        assert (second[0] // SPAN == first[0] // SPAN) == real
        if real:
            assert [*first, *second] == chunk.tolist()
        elif len(chunk) == SIZE:
            assert len(first) + len(second) == SIZE
    inside = np.array([second[0] not in begins for _, second, _ in drawn])
    real = np.array([real for _, _, real in drawn])
    assert inside.mean() < 0.15  # chunks of one sentence
    assert abs(inside[real].mean() - inside[~real].mean()) < 0.03


def test_half_of_the_followers_are_real(drawn):
    share = np.mean([real for _, _, real in drawn])
    assert abs(share - 0.5) < 4 * 0.5 / math.sqrt(len(drawn))


def test_lengths_and_ends_do_not_tell_a_real_follower(documents, drawn):
    last = {sentences[-1][-1] for sentences in documents}
    real = np.array([real for _, _, real in drawn])
    sizes = np.array([(len(first), len(second)) for first, second, _ in drawn])
    totals = sizes.sum(1)
    ends = np.array([int(second[-1]) in last for _, second, _ in drawn])
    num = min(real.sum(), (~real).sum())
    noise = totals.std() * math.sqrt(2 / num)
    assert abs(totals[real].mean() - totals[~real].mean()) < max(4 * noise, 0.01 * totals.mean())
    assert abs(ends[real].mean() - ends[~real].mean()) < 4 * ends.std() * math.sqrt(2 / num) + 0.01

    shown = np.column_stack([sizes, totals, ends])
    half = len(shown) // 2
    tree = DecisionTreeClassifier(max_leaf_nodes=16, min_samples_leaf=20, random_state=1)
    guessed = tree.fit(shown[:half], real[:half]).predict(shown[half:])
    right, chance = np.mean(guessed == real[half:]), max(real.mean(), 1 - real.mean())
    assert right < chance + 4 * 0.5 / math.sqrt(half)


@pytest.mark.parametrize("which", ["first", "last"])
def test_the_last_chunks_alone_do_not_tell_by_their_length(which):
    split = prepared(random_documents(5000, 2, 8), SIZE)
    rows = [one for i, one in enumerate(pairs(split, SIZE)) if split.lengths[i] < SIZE]
    real = np.array([real for _, _, real in rows])
    lengths = np.array([len(one[("first", "last").index(which)]) for one in rows])
    noise = lengths.std() * math.sqrt(2 / min(real.sum(), (~real).sum()))
    assert abs(lengths[real].mean() - lengths[~real].mean()) < 4 * noise


def test_followers_change_with_the_epoch_and_come_again_with_it(split):
    def seconds(epoch: int) -> list[list[int]]:
        return [second.tolist() for _, second, _ in pairs(split, SIZE, epoch)]

    once, other = seconds(1), seconds(2)
    assert seconds(1) == once
    assert np.mean([one != two for one, two in zip(once, other, strict=True)]) > 0.3


def test_a_follower_is_found_among_two_documents_of_which_one_is_short():
    split = prepared([document(0, [20] * 40), document(1, [2, 2])], SIZE)
    for epoch in range(20):
        for first, second, real in pairs(split, SIZE, epoch):
            assert len(second) > 0
            assert (second[0] // SPAN == first[0] // SPAN) == real
            assert len(first) + len(second) <= SIZE
