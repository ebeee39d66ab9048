"""What the pairs promise: labels that only both sentences together give away."""

from collections import Counter
from collections.abc import Callable
from itertools import pairwise

import pytest
from sklearn.feature_extraction.text import CountVectorizer
from sklearn.linear_model import LogisticRegression

from trainer.data.builtin.draws import Rows
from trainer.data.builtin.nli import (
    HELD_OUT_FRAMES,
    JOINS,
    LABELS,
    LEADS,
    TRAIN_FRAMES,
    nli,
)

SPLITS = ("train", "validation", "test")
# What only a premise of this join, or a hypothesis of this lead, has.
JOIN_MARKS = (", and ", "; ", ", while ", " and that ", ". Also, ")
LEAD_MARKS = ("", "It is true that ", "In other words, ", "One can say that ")


@pytest.fixture(scope="module")
def splits() -> dict[str, Rows]:
    return nli(6000, 0)


def _frame(row: dict[str, str]) -> tuple[str, str]:
    (join,) = [i for i, mark in enumerate(JOIN_MARKS) if mark in row["premise"]]
    leads = [i for i, mark in enumerate(LEAD_MARKS) if row["hypothesis"].startswith(mark)]
    return JOINS[join], LEADS[leads[-1]]


@pytest.mark.parametrize("split", SPLITS)
def test_labels_are_balanced(splits: dict[str, Rows], split: str) -> None:
    counts = Counter(row["label"] for row in splits[split])
    assert counts.keys() == set(LABELS)
    assert max(counts.values()) - min(counts.values()) <= 1


@pytest.mark.parametrize("split", SPLITS)
def test_each_hypothesis_has_every_label_as_often(splits: dict[str, Rows], split: str) -> None:
    labels: dict[str, Counter[str]] = {}
    for row in splits[split]:
        labels.setdefault(row["hypothesis"], Counter())[row["label"]] += 1
    uneven = [counts for counts in labels.values() if len({counts[x] for x in LABELS}) > 1]
    assert len(uneven) <= 1  # the last one may be cut off


@pytest.mark.parametrize(
    ("read", "limit"),
    [
        (lambda row: row["hypothesis"], 0.35),
        (lambda row: row["premise"], 0.5),
        (lambda row: f"{row['premise']} {row['hypothesis'].replace(' ', ' so_')}", 0.5),
    ],
    ids=["hypothesis", "premise", "both"],
)
def test_bags_of_words_do_not_solve_it(
    splits: dict[str, Rows], read: Callable[[dict[str, str]], str], limit: float
) -> None:
    vectorizer = CountVectorizer(ngram_range=(1, 2))
    features = vectorizer.fit_transform(map(read, splits["train"]))
    model = LogisticRegression(max_iter=500).fit(features, [r["label"] for r in splits["train"]])
    for split in ("validation", "test"):
        labels = [row["label"] for row in splits[split]]
        assert model.score(vectorizer.transform(map(read, splits[split])), labels) < limit, split


def test_held_out_frames_are_only_in_test(splits: dict[str, Rows]) -> None:
    assert not set(TRAIN_FRAMES) & set(HELD_OUT_FRAMES)
    assert {x for x, _ in TRAIN_FRAMES} == set(JOINS)
    assert {x for _, x in TRAIN_FRAMES} == set(LEADS)
    for split, frames in (
        ("train", TRAIN_FRAMES),
        ("validation", TRAIN_FRAMES),
        ("test", HELD_OUT_FRAMES),
    ):
        assert {_frame(row) for row in splits[split]} == set(frames), split


def test_train_has_every_word_of_the_other_splits(splits: dict[str, Rows]) -> None:
    def words(split: str) -> set[str]:
        analyze = CountVectorizer().build_analyzer()
        return {
            word
            for row in splits[split]
            for word in analyze(f"{row['premise']} {row['hypothesis']}")
        }

    assert words("validation") | words("test") <= words("train")


NUMBERS = "two three four five six seven eight nine ten eleven twelve thirteen fourteen".split()
NUMBERS += "fifteen sixteen seventeen eighteen".split()


def _amounts(said: str) -> set[int]:
    """Returns which of the numbers from 0 to 30 a phrase such as "more than six coins" allows."""
    words = said.split()
    n = [NUMBERS.index(word) + 2 for word in words if word in NUMBERS]
    if "between" in words:
        return set(range(n[0], n[1] + 1))
    allowed: set[int] = set()
    for (word, _), number in zip(
        [pair for pair in pairwise(words) if pair[1] == "than"], n, strict=True
    ):
        allowed |= set(range(number)) if word == "fewer" else set(range(number + 1, 31))
    return allowed


def test_labels_of_quantities_are_right(splits: dict[str, Rows]) -> None:
    checked = 0
    for row in splits["train"]:
        words = row["hypothesis"].removesuffix(".").split(" has ")
        if len(words) != 2 or not {"fewer", "more", "between"} & set(words[1].split()):
            continue
        name = words[0].split()[-1]
        statement = row["premise"].partition(f"{name} has ")[2]
        for mark in (*JOIN_MARKS, "."):
            # "between six and nine" has an "and", but none after a comma
            statement = statement.partition(mark)[0]
        mine, held = _amounts(statement), _amounts(words[1])
        expected = "entailment" if mine <= held else "neutral" if mine & held else "contradiction"
        assert row["label"] == expected, row
        checked += 1
    assert checked > 500
