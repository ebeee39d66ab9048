"""Rows that are left out by the value of a column, and the notes on them."""

import json
from pathlib import Path
from typing import Any

import datasets
import pydantic
import pytest

from trainer.data.columns import ROW
from trainer.data.exclusion import value_text
from trainer.data.sources import load_splits
from trainer.errors import DataError
from trainer.recipe.data import Data

LABELS = ["a", "-", "b", "-", "c", "a", "b", "-", "c", "a"]
ROWS = [{"text": f"text {row}", "label": label} for row, label in enumerate(LABELS, 1)]


def data(files: dict[str, Path], exclude: dict[str, Any], **other: Any) -> Data:
    source = {"files": {name: str(file) for name, file in files.items()}}
    split = {"validation": None, "test": None} | other.pop("split", {})
    values = {"source": source, "split": split, "exclude": exclude, **other}
    return Data.model_validate_json(json.dumps(values))


def jsonl(file: Path, rows: list[dict[str, Any]]) -> Path:
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return file


def kept(file: Path, exclude: dict[str, Any], **other: Any) -> list[int]:
    """Returns the numbers of the train rows that are left."""
    return list(load_splits(data({"train": file}, exclude, **other))[0]["train"][ROW])


def test_rows_of_a_value_are_left_out_and_the_others_keep_their_numbers(tmp_path):
    file = jsonl(tmp_path / "a.jsonl", ROWS)
    splits, notes = load_splits(data({"train": file}, {"label": ["-", "c"]}))
    numbers = [row for row, label in enumerate(LABELS, 1) if label in ("a", "b")]
    assert list(splits["train"][ROW]) == numbers
    assert splits["train"]["text"][:] == [f"text {row}" for row in numbers]
    assert notes == ["5 of 10 train rows were left out by data.exclude: label - (3), label c (2)"]


def test_nothing_is_left_out_or_noted_by_default(tmp_path):
    file = jsonl(tmp_path / "a.jsonl", ROWS)
    for exclude in ({}, {"label": ["z"]}):
        splits, notes = load_splits(data({"train": file}, exclude))
        assert splits["train"].remove_columns(ROW).to_list() == ROWS
        assert notes == []


@pytest.mark.parametrize("excluded", [-1, -1.0, "-1"])
@pytest.mark.parametrize("stored", [-1, -1.0, "-1", " -1"])
def test_a_number_is_one_value_however_it_is_written(tmp_path, excluded, stored):
    rows = [{"text": "a", "label": value} for value in (type(stored)(2), stored, type(stored)(11))]
    assert kept(jsonl(tmp_path / "a.jsonl", rows), {"label": [excluded]}) == [1, 3]


def test_a_value_as_text():
    assert {value_text(value) for value in (1, 1.0, "1", " 1 ")} == {"1"}
    assert [value_text(value) for value in (1.5, -1, "-", True)] == ["1.5", "-1", "-", "True"]


def test_a_missing_value_is_not_a_word(tmp_path):
    rows = [{"label": value} for value in ("None", None, "x", "")]
    file = jsonl(tmp_path / "a.jsonl", rows)
    assert kept(file, {"label": ["None"]}) == [2, 3, 4]
    assert kept(file, {"label": [""]}) == [1, 2, 3]


def test_a_row_is_left_out_if_any_of_several_columns_matches(tmp_path):
    rows = [{"a": row % 2, "b": row % 3} for row in range(1, 13)]
    file = jsonl(tmp_path / "a.jsonl", rows)
    splits, notes = load_splits(data({"train": file}, {"a": [0], "b": [0]}))
    assert list(splits["train"][ROW]) == [1, 5, 7, 11]
    assert notes == ["8 of 12 train rows were left out by data.exclude: a 0 (6), b 0 (4)"]


def test_classes_are_named_by_index_or_name(tmp_path):
    """The hub keeps SNLI's pairs without a label as -1, which has no name."""
    names = datasets.ClassLabel(names=["entailment", "neutral", "0"])
    features = datasets.Features({"text": datasets.Value("string"), "label": names})
    rows = [{"text": "x", "label": label} for label in (0, 1, 2, -1)]
    file = tmp_path / "a.parquet"
    datasets.Dataset.from_list(rows, features=features).to_parquet(str(file))
    assert kept(file, {"label": [-1]}) == [1, 2, 3]
    assert kept(file, {"label": ["neutral"]}) == [1, 3, 4]
    assert kept(file, {"label": [1]}) == [1, 3, 4]
    assert kept(file, {"label": ["0"]}) == [2, 3, 4], "a number is an index"
    _, notes = load_splits(data({"train": file}, {"label": ["neutral"]}))
    assert notes == ["1 of 4 train rows were left out by data.exclude: label neutral (1)"]


def test_it_comes_before_max_rows_and_before_a_division(tmp_path):
    file = jsonl(tmp_path / "a.jsonl", ROWS)
    assert kept(file, {"label": ["-"]}, max_rows=3) == [1, 3, 5]
    recipe = data({"train": file}, {"label": ["-"]}, split={"validation": {"ratio": 0.3}})
    splits, _ = load_splits(recipe)
    numbers = [row for rows in splits.values() for row in rows[ROW]]
    assert sorted(numbers) == [row for row, label in enumerate(LABELS, 1) if label != "-"]
    plain = datasets.Dataset.from_list([row for row in ROWS if row["label"] != "-"])
    expected = plain.train_test_split(test_size=0.3, seed=1)["test"].to_list()
    assert splits["validation"].remove_columns(ROW).to_list() == expected


def test_each_split_that_is_used_is_cleaned_and_noted_once(tmp_path):
    train = jsonl(tmp_path / "a.jsonl", ROWS)
    dev = jsonl(tmp_path / "b.jsonl", ROWS[:4])
    other = jsonl(tmp_path / "c.jsonl", [{"text": "has no label"}])
    files = {"train": train, "dev": dev, "unlabelled": other}
    recipe = data(files, {"label": ["-"]}, split={"validation": "dev", "test": "dev"})
    splits, notes = load_splits(recipe)
    assert list(splits["validation"][ROW]) == list(splits["test"][ROW]) == [1, 3]
    assert notes == [
        "3 of 10 train rows were left out by data.exclude: label - (3)",
        "2 of 4 dev rows were left out by data.exclude: label - (2)",
    ]


def test_a_field_of_a_nested_column(tmp_path):
    rows = [{"meta": {"lang": lang}} for lang in ("en", "de", "en", "fr")]
    file = jsonl(tmp_path / "a.jsonl", rows)
    splits, _ = load_splits(data({"train": file}, {"meta.lang": ["de", "fr"]}))
    assert splits["train"].to_list() == [{**rows[0], ROW: 1}, {**rows[2], ROW: 3}]


@pytest.mark.parametrize(
    ("exclude", "key", "hint"),
    [
        ({"lable": [1]}, "data.exclude.lable", "did you mean label?"),
        ({"label.x": [1]}, "data.exclude.label.x", None),
        ({"label": ["a", "b", "c", "-"]}, "data.exclude", None),
    ],
)
def test_what_cannot_be_excluded(tmp_path, exclude, key, hint):
    with pytest.raises(DataError) as caught:
        load_splits(data({"train": jsonl(tmp_path / "a.jsonl", ROWS)}, exclude))
    assert (caught.value.key, caught.value.hint) == (key, hint)
    if key == "data.exclude":
        assert str(caught.value).startswith("data.exclude: no row of the train split is left ")


@pytest.mark.parametrize("wrong", [{"label": []}, {"label": -1}, {"label": [None]}, ["label"]])
def test_invalid_sections(tmp_path, wrong):
    with pytest.raises(pydantic.ValidationError):
        data({"train": tmp_path / "a.jsonl"}, wrong)
