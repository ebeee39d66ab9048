"""What the instructions promise: one right answer, and phrasings that only test has."""

import re
from collections import Counter

import pytest

from trainer.data.builtin.draws import Rows
from trainer.data.builtin.instructions import NAMES, ORDINALS, PHRASINGS, TASKS, WORDS, instructions

SPLITS = ("train", "validation", "test")


@pytest.fixture(scope="module")
def splits() -> dict[str, Rows]:
    return instructions(6000, 0)


def _slot(piece: str) -> str:
    if piece == "{fact}":
        return rf"[\w ]*\b(?:{'|'.join(NAMES)})\b[\w ]*"
    return r"\w+" if piece.startswith("{") else re.escape(piece)


PATTERNS = {
    held_out: {
        task: re.compile(
            "|".join("".join(map(_slot, re.split(r"(\{\w+\})", way))) for way in phrasings)
        )
        for task, phrasings in tasks.items()
    }
    for held_out, tasks in PHRASINGS.items()
}


def _matches(instruction: str, held_out: bool) -> list[str]:
    """Returns the tasks that have a phrasing for this instruction."""
    return [task for task, pattern in PATTERNS[held_out].items() if pattern.fullmatch(instruction)]


def _of(rows: Rows, task: str) -> Rows:
    return [row for row in rows if task in _matches(row["instruction"], False)]


def test_there_are_no_words_twice() -> None:
    assert len(set(WORDS)) == len(WORDS)


def test_held_out_phrasings_are_only_in_test(splits: dict[str, Rows]) -> None:
    for split in SPLITS:
        for row in splits[split]:
            assert bool(_matches(row["instruction"], True)) == (split == "test"), row
            assert bool(_matches(row["instruction"], False)) == (split != "test"), row


def test_every_phrase_and_every_request_is_met_in_train() -> None:
    for task, (phrases, _) in TASKS.items():
        assert len(PHRASINGS[True][task]) == 4
        assert len(PHRASINGS[False][task]) == 12
        for phrase in phrases:
            assert any(phrase.lower() in way.lower() for way in PHRASINGS[False][task])


def test_tasks_come_about_as_often(splits: dict[str, Rows]) -> None:
    counts = Counter(_matches(row["instruction"], False)[0] for row in splits["train"])
    assert counts.keys() == TASKS.keys()
    assert min(counts.values()) > 0.07 * counts.total()


def test_some_inputs_are_empty_and_no_output_is(splits: dict[str, Rows]) -> None:
    empty = sum(not row["input"] for row in splits["train"])
    assert 0.1 < empty / len(splits["train"]) < 0.3
    assert all(row["output"] for rows in splits.values() for row in rows)


@pytest.mark.parametrize(
    ("task", "answer"),
    [
        ("repeat", lambda text: text),
        ("reverse", lambda text: " ".join(text.split()[::-1])),
        ("uppercase", lambda text: text.upper()),
        ("count", lambda text: str(len(text.split()))),
        ("sort", lambda text: " ".join(sorted(text.split()))),
    ],
)
def test_answers_on_words_are_right(splits: dict[str, Rows], task: str, answer) -> None:
    rows = _of(splits["train"], task)
    assert rows
    assert all(row["output"] == answer(row["input"]) for row in rows)


def test_answers_by_place_and_by_fact_are_right(splits: dict[str, Rows]) -> None:
    for row in _of(splits["train"], "nth"):
        (place,) = [i for i, word in enumerate(ORDINALS) if f" {word} " in row["instruction"]]
        assert row["output"] == row["input"].split()[place]
    for row in _of(splits["train"], "look up"):
        (sentence,) = [
            sentence
            for sentence in row["input"].removesuffix(".").split(". ")
            if f" {sentence.split()[0]} " in row["instruction"]
        ]
        assert row["output"] in sentence.split()


def test_answers_without_an_input_are_right(splits: dict[str, Rows]) -> None:
    for row in _of(splits["train"], "count up"):
        start, end = map(int, re.findall(r"\d+", row["instruction"]))
        assert row["output"] == " ".join(map(str, range(start, end + 1)))
    times = {"two": 2, "three": 3, "four": 4, "five": 5, "six": 6}
    for row in _of(splits["train"], "many times"):
        (number,) = [times[word] for word in row["instruction"].split() if word in times]
        assert Counter(row["output"].split()).most_common() == [(row["output"].split()[0], number)]
