"""Rows of files equal those of the library if it reads them correctly, and are cached."""

import gzip
import json
import os

import datasets
import pytest

from trainer.data.columns import ROW
from trainer.data.sources import load_splits, rows_digest
from trainer.errors import DataError
from trainer.recipe.data import Data

TEXTS = ["so, so", "näive", "日本", "01", "null", "", " two ", "a\u2028b"]
ROWS = [
    {"text": text, "label": number % 2, "score": number / 7, "more": {"a": [number], "b": None}}
    for number, text in enumerate(TEXTS * 40)
]
TALKS = [
    {"messages": [{"role": "user", "content": "a"}, {"role": "tool", "call": {str(number % 3): 1}}]}
    for number in range(30)
]


def lines(rows):
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


def table(start, between, end):
    return f"text{between}label\n" + "".join(
        f"{start}{row['text']}{end}{between}0{row['label']}\n" for row in ROWS
    )


def load(file):
    values = {
        "source": {"files": {"train": str(file)}},
        "split": {"validation": None, "test": None},
    }
    return load_splits(Data.model_validate_json(json.dumps(values)))[0]["train"].remove_columns(ROW)


TEXT = {"text": datasets.Value("string"), "label": datasets.Value("string")}
CELLS = {"keep_default_na": False, "na_values": [], "features": datasets.Features(TEXT)}


@pytest.mark.parametrize(
    ("name", "content", "kind", "options"),
    [
        ("a.csv", table('"', ",", '"'), "csv", CELLS),
        ("a.tsv", table("", "\t", ""), "csv", {**CELLS, "sep": "\t", "quoting": 3}),
        ("a.jsonl", lines(ROWS), "json", {}),
        ("a.json", json.dumps(ROWS), "json", {}),
        ("b.jsonl", lines(TALKS), "json", {}),
        ("a.txt", "\n".join(TEXTS * 30), "text", {}),
    ],
)
@pytest.mark.parametrize("zipped", [False, True])
def test_the_digest_is_that_of_the_library(tmp_path, name, content, kind, options, zipped):
    """So that runs whose rows came from it resume."""
    file = tmp_path / (name + ".gz" * zipped)
    file.write_bytes(gzip.compress(content.encode()) if zipped else content.encode())
    library = datasets.load_dataset(kind, data_files=str(file), split="train", **options)
    ours = load(file)
    assert ours.features == library.features
    assert rows_digest(ours, ours.column_names) == rows_digest(library, library.column_names)


def test_rows_are_read_once_and_nothing_is_added_to_what_is_kept(tmp_path, monkeypatch):
    monkeypatch.setenv("TRAINER_CACHE", str(tmp_path / "[cache]::*"))
    file = tmp_path / "a.jsonl"
    file.write_text(lines(ROWS))
    before = load(file)
    kept = sorted((tmp_path / "[cache]::*").rglob("*"))
    assert [path.name for path in kept if path.name.endswith(".arrow")] == ["rows.arrow"]
    times = {path: path.stat().st_mtime_ns for path in kept if path.name == "rows.arrow"}
    again = load(file)
    assert again.map(lambda row: row).train_test_split(test_size=0.5, seed=1)["test"]
    assert again.to_list() == before.to_list() == ROWS
    assert sorted((tmp_path / "[cache]::*").rglob("*")) == kept
    assert {path: path.stat().st_mtime_ns for path in times} == times


def test_a_cache_of_the_library_that_cannot_be_written_is_one_sentence(tmp_path, monkeypatch):
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", os.devnull)
    (tmp_path / "a.txt").write_text("a\n")
    with pytest.raises(DataError, match="cannot be written") as caught:
        load(tmp_path / "a.txt")
    assert caught.value.hint == "HF_HOME moves it"
    assert str(caught.value.value).startswith(os.devnull)
