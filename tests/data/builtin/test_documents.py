"""What the documents promise: each is about one thing, in words that show it."""

import re
from collections import Counter
from random import Random

import pytest

from trainer.data.builtin.documents import ASPECTS, FRAMES, OPENERS, documents
from trainer.data.builtin.draws import Rows, capitalized

SPLITS = ("train", "validation", "test")


@pytest.fixture(scope="module")
def splits() -> dict[str, Rows]:
    return documents(2000, 0)


def _paragraphs(row: dict[str, str]) -> list[list[str]]:
    return [re.split(r"(?<=\.) ", paragraph) for paragraph in row["text"].split("\n\n")]


def _pattern(held_out: bool) -> re.Pattern[str]:
    """Returns what the sentences match; a slot has no comma, so that it takes in no opener."""
    ways = [
        re.sub(r"\\\{\w+\\\}", r"[^,.]+", re.escape(capitalized(way)))
        for aspect in FRAMES[held_out]
        for sentence in aspect
        for way in sentence
    ]
    return re.compile(f"(?:{'|'.join(ways)})\\.", re.IGNORECASE)


def _names(text: str) -> set[str]:
    """Returns the words that are capitalised inside a sentence."""
    return set(re.findall(r"(?<=[a-z,] )[A-Z][a-z]+", text))


def test_documents_have_paragraphs_of_several_sentences(splits: dict[str, Rows]) -> None:
    for row in splits["train"]:
        paragraphs = _paragraphs(row)
        assert 2 <= len(paragraphs) <= 6
        assert all(3 <= len(sentences) <= 5 for sentences in paragraphs)
        assert "{" not in row["text"]
        assert row["text"] == row["text"].strip()


def test_lengths_are_uneven(splits: dict[str, Rows]) -> None:
    lengths = sorted(len(row["text"].split()) for row in splits["train"])
    assert lengths[0] >= 60
    assert lengths[-1] <= 500
    assert lengths[len(lengths) // 10] <= 130
    assert lengths[-len(lengths) // 10] >= 310


def test_a_document_says_nothing_twice(splits: dict[str, Rows]) -> None:
    for row in splits["train"]:
        sentences = [sentence for part in _paragraphs(row) for sentence in part]
        assert len(set(sentences)) == len(sentences)


def test_names_come_back_in_their_document_and_hardly_in_another(splits: dict[str, Rows]) -> None:
    halves: list[tuple[set[str], set[str]]] = []
    for row in splits["train"]:
        paragraphs = row["text"].split("\n\n")
        middle = len(paragraphs) // 2
        halves.append(
            (_names(" ".join(paragraphs[:middle])), _names(" ".join(paragraphs[middle:])))
        )
    rng = Random(0)
    others = sorted(halves, key=lambda _: rng.random())
    own = sum(bool(first & second) for first, second in halves) / len(halves)
    strange = sum(bool(a[0] & b[1]) for a, b in zip(halves, others, strict=True)) / len(halves)
    assert own > 0.85
    assert strange < 0.05


def test_held_out_openings_are_only_in_test(splits: dict[str, Rows]) -> None:
    num_ways = sum(map(len, ASPECTS)) * len(OPENERS)
    counts = Counter({flag: sum(len(x) for a in FRAMES[flag] for x in a) for flag in FRAMES})
    assert counts == {True: num_ways // 4, False: num_ways - num_ways // 4}
    held_out, others = _pattern(True), _pattern(False)
    for split in SPLITS:
        sentences = [x for row in splits[split] for part in _paragraphs(row) for x in part]
        own, strays = (held_out, others) if split == "test" else (others, held_out)
        assert not [x for x in sentences if strays.fullmatch(x)][:3], split
        assert not [x for x in sentences if not own.fullmatch(x)][:3], split
