"""Rows that stand in two splits are counted, whatever they are made of."""

from typing import Any

import datasets
import numpy as np
import pytest

from trainer.data.overlap import notes_on_overlap, num_contradictory, num_shared, row_hashes


def rows(texts: list[Any], pairs: list[Any] | None = None) -> datasets.Dataset:
    return datasets.Dataset.from_dict({"text": texts, "other": pairs or ["same"] * len(texts)})


def test_rows_of_two_splits_are_counted():
    splits = {
        "train": rows(["a", "b", "c", "b"]),
        "validation": rows(["d", "b", "b"]),
        "test": rows(["e", "d"]),
    }
    assert notes_on_overlap(splits, ["text"]) == [
        "2 of 3 validation rows also occur in train",
        "1 of 2 test rows also occur in validation",
    ]
    assert notes_on_overlap({"train": splits["train"]}, ["text"]) == []
    same = {"train": splits["test"], "validation": splits["test"]}
    assert notes_on_overlap(same, ["text"]) == ["all 2 validation rows also occur in train"]


def test_pairs_are_equal_if_both_texts_are_in_the_same_order():
    train = rows(["a", "b"], ["b", "c"])
    test = rows(["b", "a", "a", "ab"], ["a", "b", "c", ""])
    notes = notes_on_overlap({"train": train, "test": test}, ["text", "other"])
    assert notes == ["1 of 4 test rows also occur in train"]


def test_rows_without_text_are_not_shared():
    empty = rows(["", " ", None, "\n"], [None, "", "", ""])
    assert notes_on_overlap({"train": empty, "test": empty}, ["text", "other"]) == []


@pytest.mark.parametrize(
    "values",
    [
        [[{"role": "user", "content": "a"}], [{"role": "user", "content": "b"}]],
        [1, 2],
        [{"a": 1.5}, {"a": 2.5}],
    ],
)
def test_values_other_than_text_are_compared_as_a_whole(values):
    train = datasets.Dataset.from_dict({"messages": values})
    test = datasets.Dataset.from_dict({"messages": values[:1]})
    notes = notes_on_overlap({"train": train, "test": test}, ["messages"])
    assert notes == ["all 1 test rows also occur in train"]


def test_hashes_do_not_depend_on_how_rows_are_stored():
    table = rows([f"text {number % 7}" for number in range(25_000)])
    picked = table.select(range(0, 25_000, 3))
    large = picked.cast_column("text", datasets.Value("large_string"))
    assert (row_hashes(picked, ["text"]) == row_hashes(large, ["text"])).all()
    assert (row_hashes(picked, ["text"]) == row_hashes(table, ["text"])[::3]).all()
    few = table.select([20_000, 3, 20_000])
    assert (row_hashes(few, ["text"]) == row_hashes(table, ["text"])[[20_000, 3, 20_000]]).all()
    assert len(np.unique(row_hashes(table, ["text"]))) == 7


def test_texts_with_two_labels_are_counted():
    hashes = np.array([5, 7, 5, 9, 7, 5, 0, 0], np.uint64)
    labels = np.array([0, 1, 1, 0, 1, 0, 0, 1])
    assert num_contradictory(hashes, labels) == 3
    assert num_contradictory(hashes[:2], labels[:2]) == 0
    assert num_contradictory(hashes[:0], labels[:0]) == 0


@pytest.mark.parametrize(
    ("text", "exact", "normalised"),
    [
        ("Hello,  World!", 1, 1),
        ("hello world", 0, 1),
        ("hello\u00a0WORLD", 0, 1),
        ("helloworld", 0, 0),
        ("\uff28ello world", 0, 1),  # a full-width letter
        ("cafe\u0301", 0, 1),  # a letter and a combining accent
        ("cafe", 0, 0),
        ("???", 0, 0),  # without letters and digits there is nothing to compare
        ("", 0, 0),
    ],
)
def test_normalised_texts_have_the_same_words(text, exact, normalised):
    train = rows(["Hello,  World!", "Caf\u00e9", "!!!", ""])
    splits = {"train": train, "test": rows([text])}
    assert num_shared(splits, ["text"], normalised=False) == {"test": exact}
    assert num_shared(splits, ["text"], normalised=True) == {"test": normalised}
