"""What the passages promise: exact offsets, and questions that only reading answers."""

import re
from collections import Counter

import pytest
from sklearn.feature_extraction.text import CountVectorizer
from sklearn.linear_model import LogisticRegression

from trainer.data.builtin.draws import Rows, capitalized
from trainer.data.builtin.passages import (
    DOMAINS,
    LEADS,
    OPENERS,
    PEOPLE,
    SHIPS,
    TOWNS,
    passages,
    templates,
)

SPLITS = ("train", "validation", "test")


@pytest.fixture(scope="module")
def splits() -> dict[str, Rows]:
    return passages(6000, 0)


def _patterns(held_out: bool, kind: str) -> re.Pattern[str]:
    """Returns what all sentences, or all questions, of these templates match."""
    sentences = [
        capitalized(template)
        for _, attributes in DOMAINS
        for place, attribute in enumerate(attributes)
        for template in (
            templates(OPENERS, attribute.statements, place, held_out)
            if kind == "sentences"
            else templates(LEADS, attribute.questions, place, held_out)
        )
    ]
    end = r"\." if kind == "sentences" else ""
    escaped = ["".join(_slot(x) for x in re.split(r"(\{\w\})", template)) for template in sentences]
    return re.compile(f"(?:{'|'.join(escaped)}){end}")


def _slot(piece: str) -> str:
    if piece == "{e}":  # without a comma, so that no opener fits
        return "(?:[Tt]he )?[A-ZŁÅØÇ][^,.]*"
    return r"(?:[^,.]|,\d)+" if piece == "{v}" else re.escape(piece)


def _name(row: dict[str, str]) -> str:
    """Returns whom the question is about."""
    (name,) = [name for name in (*PEOPLE, *TOWNS, *SHIPS) if name in row["question"]]
    return name


def test_offsets_are_exact(splits: dict[str, Rows]) -> None:
    for row in (row for rows in splits.values() for row in rows):
        texts, starts = row["answers"]["text"], row["answers"]["answer_start"]
        assert len(texts) == len(starts) <= 1
        for text, start in zip(texts, starts, strict=True):
            assert row["context"][start : start + len(text)] == text
            assert row["context"].count(text) == 1


@pytest.mark.parametrize("split", SPLITS)
def test_a_third_has_no_answer(splits: dict[str, Rows], split: str) -> None:
    without = [row for row in splits[split] if not row["answers"]["text"]]
    assert len(without) == pytest.approx(len(splits[split]) / 3, abs=1)


def test_questions_without_an_answer_name_whom_the_passage_knows(splits: dict[str, Rows]) -> None:
    for row in splits["train"]:
        assert _name(row).removeprefix("the ") in row["context"]


def test_ids_are_unique_and_passages_stay_in_one_split(splits: dict[str, Rows]) -> None:
    rows = [row for split in SPLITS for row in splits[split]]
    assert len({row["id"] for row in rows}) == len(rows)
    contexts = [{row["context"] for row in splits[split]} for split in SPLITS]
    assert sum(map(len, contexts)) == len(set.union(*contexts))
    questions = Counter(row["context"] for row in splits["train"])
    assert set(questions.values()) == {3}


def test_lengths_are_uneven(splits: dict[str, Rows]) -> None:
    lengths = sorted(len(row["context"].split()) for row in splits["train"])
    assert lengths[0] >= 30
    assert lengths[-1] <= 150
    assert lengths[len(lengths) // 10] <= 60
    assert lengths[-len(lengths) // 10] >= 95


def test_answers_stand_anywhere(splits: dict[str, Rows]) -> None:
    tenths = Counter(
        10 * start // len(row["context"])
        for row in splits["train"]
        for start in row["answers"]["answer_start"]
    )
    assert set(tenths) == set(range(10))
    assert max(tenths.values()) < 0.2 * tenths.total()


def test_some_names_are_not_ascii(splits: dict[str, Rows]) -> None:
    share = sum(not row["context"].isascii() for row in splits["train"]) / len(splits["train"])
    assert 0.3 < share < 0.95


def test_the_question_alone_does_not_say_whether_there_is_an_answer(
    splits: dict[str, Rows],
) -> None:
    vectorizer = CountVectorizer(ngram_range=(1, 2))
    features = vectorizer.fit_transform(row["question"] for row in splits["train"])
    answered = [bool(row["answers"]["text"]) for row in splits["train"]]
    model = LogisticRegression(max_iter=500).fit(features, answered)
    for split in ("validation", "test"):
        features = vectorizer.transform(row["question"] for row in splits[split])
        answered = [bool(row["answers"]["text"]) for row in splits[split]]
        assert model.score(features, answered) < 0.7, split  # two thirds are answered


def test_the_same_question_is_answered_in_one_passage_and_not_in_another(
    splits: dict[str, Rows],
) -> None:
    kinds: dict[str, set[bool]] = {}
    for row in splits["train"]:
        kinds.setdefault(row["question"].replace(_name(row), ""), set()).add(
            bool(row["answers"]["text"])
        )
    assert all(flags == {True, False} for flags in kinds.values())


@pytest.mark.parametrize("kind", ["sentences", "questions"])
def test_held_out_templates_are_only_in_test(splits: dict[str, Rows], kind: str) -> None:
    held_out, others = _patterns(True, kind), _patterns(False, kind)
    for split in SPLITS:
        texts = {
            text
            for row in splits[split]
            for text in (
                re.split(r"(?<=\.) ", row["context"]) if kind == "sentences" else [row["question"]]
            )
        }
        own, strays = (held_out, others) if split == "test" else (others, held_out)
        assert sum(bool(own.fullmatch(text)) for text in texts) > 0.5 * len(texts)
        assert not [text for text in texts if strays.fullmatch(text)][:3], split
