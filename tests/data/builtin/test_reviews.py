"""What the reviews promise: same rows everywhere, no leaks, no bag of words."""

import itertools
import re
from collections import Counter
from collections.abc import Iterable

import pytest
from sklearn.feature_extraction.text import CountVectorizer
from sklearn.linear_model import LogisticRegression

from trainer.data.builtin.draws import Rows
from trainer.data.builtin.reviews import (
    ASPECTS,
    FAINT,
    HELD_OUT_FRAMES,
    LEADS,
    MILD,
    NEGATORS,
    STRONG,
    TRAIN_FRAMES,
    reviews,
)

SPLITS = ("train", "validation", "test")


@pytest.fixture(scope="module")
def splits() -> dict[str, Rows]:
    return reviews(6000, 0)


def _texts(rows: Rows) -> list[str]:
    return [row["text"] for row in rows]


def _labels(rows: Rows) -> list[str]:
    return [row["label"] for row in rows]


def _words(text: str) -> list[str]:
    return re.findall(r"\w+|[^\w\s]", text.lower())


def _one_of(options: Iterable[str]) -> str:
    return f"(?:{'|'.join(options)})"


def _matches(frame: str) -> re.Pattern[str]:
    """Return a pattern for the texts of this frame, whatever fills its slots and goes before."""
    adjectives = _one_of([*FAINT, *itertools.chain(*MILD.values(), *STRONG.values())])
    # A predicate such as "not bad at all": it must not swallow words that make another frame.
    degrees = _one_of(
        "not hardly never far from anything but barely more than nothing short of "
        "very really truly".split()
    )
    predicate = f"(?:{degrees} )*{adjectives}(?: at all)?"
    aspect = _one_of(itertools.chain.from_iterable(ASPECTS.values()))
    thing = _one_of(ASPECTS)
    negator = f"(?:{_one_of(NEGATORS)} )?"
    slots = {"n": negator, "t": thing, "a": aspect, "b": aspect, "p": predicate, "q": predicate}

    def fill(template: str) -> str:
        pieces = re.split(r"\{(\w)\}", template)
        return "".join(slots[x] if i % 2 else re.escape(x) for i, x in enumerate(pieces))

    leads = _one_of([fill(lead) for lead in LEADS])
    return re.compile(rf"{leads}?{fill(frame)}\.", re.IGNORECASE)


@pytest.mark.parametrize("split", SPLITS)
def test_labels_are_balanced(splits: dict[str, Rows], split: str) -> None:
    counts = Counter(_labels(splits[split]))
    assert counts.keys() == {"negative", "positive"}
    assert 0.45 <= counts["positive"] / counts.total() <= 0.55


def test_no_text_occurs_twice(splits: dict[str, Rows]) -> None:
    texts = [text.lower() for split in SPLITS for text in _texts(splits[split])]
    assert len(set(texts)) == len(texts)


def test_held_out_frames_are_only_in_test(splits: dict[str, Rows]) -> None:
    frames = [frame for kind in HELD_OUT_FRAMES.values() for frame in kind]
    assert not set(frames) & {frame for kind in TRAIN_FRAMES.values() for frame in kind}
    patterns = [_matches(frame) for frame in frames]
    for split, held_out in (("train", False), ("validation", False), ("test", True)):
        strays = [
            text
            for text in _texts(splits[split])
            if any(pattern.match(text) for pattern in patterns) != held_out
        ]
        assert not strays, f"{split}: {strays[:3]}"


def test_train_has_every_word_of_the_other_splits(splits: dict[str, Rows]) -> None:
    known = {word for text in _texts(splits["train"]) for word in _words(text)}
    for split in ("validation", "test"):
        assert {word for text in _texts(splits[split]) for word in _words(text)} <= known


def test_lengths_are_uneven(splits: dict[str, Rows]) -> None:
    lengths = sorted(len(text.split()) for text in _texts(splits["train"]))
    assert lengths[len(lengths) // 10] <= 9
    assert lengths[-len(lengths) // 10] >= 30


@pytest.mark.parametrize("split", SPLITS)
def test_most_texts_have_a_counterpart_of_the_same_words(
    splits: dict[str, Rows], split: str
) -> None:
    labels: dict[tuple[str, ...], set[str]] = {}
    for row in splits[split]:
        labels.setdefault(tuple(sorted(_words(row["text"]))), set()).add(row["label"])
    told_apart = [
        text for text in _texts(splits[split]) if len(labels[tuple(sorted(_words(text)))]) == 1
    ]
    assert len(told_apart) / len(splits[split]) < 0.31


def test_bag_of_words_does_not_solve_it(splits: dict[str, Rows]) -> None:
    vectorizer = CountVectorizer()
    features = vectorizer.fit_transform(_texts(splits["train"]))
    model = LogisticRegression(max_iter=2000).fit(features, _labels(splits["train"]))
    for split in ("validation", "test"):
        features = vectorizer.transform(_texts(splits[split]))
        assert model.score(features, _labels(splits[split])) < 0.62, split
