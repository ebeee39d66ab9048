"""Rows of a stream: the values that are read for training, or a refusal."""

import datetime
import io
import itertools
import json
from collections import Counter
from pathlib import Path

import datasets
import pyarrow as pa
import pytest
from pyarrow import parquet
from support.damaged_files import damaged_file
from support.strict_reading import same_values, strictly

from trainer.data.columns import ROW, column_name, has_column, resolve_columns, value_in
from trainer.data.files import read_files
from trainer.data.formats import reading
from trainer.data.streamed_rows import dataset_of, holds_lines, rows_of_input, streamed_rows
from trainer.errors import DataError
from trainer.recipe.data import Csv

MIXED = [
    {"article": {"title": "one", "body": "first"}, "a.b": "dotted", "a": {"b": "nested"}},
    {"article": {"title": "two"}, "a.b": "also", "a": None},
    {"article": "three", "a.b": None},
    {"article": {"title": " ", "body": "fourth", "date": {"year": 4}}},
    {},
]


def outcome(folder: Path, name: str, content: bytes) -> str:
    file = folder / name
    file.write_bytes(content)
    expected = strictly(name, content)
    try:
        rows = list(streamed_rows(file))
    except DataError as error:
        shown = str(error)
        return "refused" if len(shown) <= 500 and "\n" not in shown else shown
    if expected is None and not rows:
        return "refused"  # by those who need a row
    assert expected is not None, f"{name} is read, and has no single meaning"
    assert same_values(rows, expected), f"{name}: other rows"
    return "read"


def test_damaged_files_are_read_exactly_or_refused(tmp_path):
    counts = Counter(outcome(tmp_path, *damaged_file(seed)) for seed in range(200))
    assert counts.keys() == {"read", "refused"}
    assert min(counts.values()) > 40, counts


def test_a_file_is_read_as_for_training(tmp_path):
    """Text that looks like a number stays text, and a dialect of the recipe applies."""
    table, csv = tmp_path / "table.csv", Csv(delimiter=";", quotechar=None)
    table.write_text('id;text\n007;"so"\n1e5;null\n')
    squad = tmp_path / "squad.json"
    question = {"id": "q", "question": "who?", "answers": [{"text": "b", "answer_start": 2}]}
    paragraphs = [{"context": "a b", "qas": [question, {"id": "r", "question": "no?"}]}]
    squad.write_text(json.dumps({"version": "2", "data": [{"paragraphs": paragraphs}]}))
    for file, dialect in ((table, csv), (squad, None)):
        assert list(streamed_rows(file, dialect)) == read_files("", str(file), dialect)[0].to_list()
    assert next(streamed_rows(table, csv)) == {"id": "007", "text": '"so"'}


@pytest.mark.parametrize("form", ["parquet", "parquet.gz", "arrow", "feather.arrow"])
def test_arrow_files_give_values_of_json(form, tmp_path):
    day = datetime.date(2026, 1, 2)
    rows = [
        {"text": "é", "n": 1, "when": day, "of": [{"a": 1.5}], "raw": b"\xff"},
        {"text": None, "n": 2**62, "when": None, "of": [], "raw": None},
    ]
    file, table = tmp_path / f"rows.{form}", pa.Table.from_pylist(rows)
    if form.startswith("parquet"):
        sink = io.BytesIO()
        parquet.write_table(table, sink)
        content = sink.getvalue()
        file.write_bytes(reading.gzip.compress(content) if form.endswith("gz") else content)
    else:
        opened = pa.ipc.new_stream if form == "arrow" else pa.ipc.new_file
        with file.open("wb") as sink, opened(sink, table.schema) as writer:
            writer.write_table(table)
    first = {"text": "é", "n": 1, "when": "2026-01-02", "of": [{"a": 1.5}], "raw": "/w=="}
    assert list(streamed_rows(file)) == [first, {**dict.fromkeys(first), "n": 2**62, "of": []}]


@pytest.mark.parametrize(
    ("names", "last", "problem"),
    [
        (["text", "text"], pa.array(["b"]), "several columns have the same name"),
        (["text", "when"], pa.array([10**7], pa.date32()), "date value out of range"),
    ],
)
def test_parquet_that_has_no_single_meaning_is_refused(names, last, problem, tmp_path):
    file = tmp_path / "rows.parquet"
    parquet.write_table(pa.Table.from_arrays([pa.array(["a"]), last], names=names), file)
    with pytest.raises(DataError, match=f"cannot be read as parquet: {problem}"):
        list(streamed_rows(file))


def test_standard_input_is_read_like_a_file():
    lines = b'\n{"text": "a"}\n\n{"text": "b"}'
    rows, plain = rows_of_input(io.BytesIO(lines))
    assert (list(rows), plain) == ([{"text": "a"}, {"text": "b"}], False)
    rows, plain = rows_of_input(io.BytesIO("\ufeffa\r\n\n[b]\n".encode()))
    assert (list(rows), plain) == ([{"text": "a"}, {"text": ""}, {"text": "[b]"}], True)
    assert list(rows_of_input(io.BytesIO(b""))[0]) == []
    for wrong, place in ((b'{"a": 1}\n{"a": ', "line 2"), (b"a\n\xff\n", "line 2")):
        rows, _ = rows_of_input(io.BytesIO(wrong))
        with pytest.raises(DataError, match=f"standard input, {place}"):
            list(rows)


def test_little_of_a_long_file_is_in_memory(tmp_path, monkeypatch):
    """The first rows come before the rest of the file is read."""
    read = 0

    def counted(file, encoding="utf-8"):
        nonlocal read
        for number in itertools.count():
            read = number
            yield f"{number},a text\n" if number else "n,text\n"

    monkeypatch.setattr("trainer.data.formats.csv_files.lines_of", counted)
    file = tmp_path / "endless.csv"
    file.write_text("n,text\n")
    rows = list(itertools.islice(streamed_rows(file), 1000))
    assert rows[-1] == {"n": "1000", "text": "a text"}
    assert read < 1100


def test_only_plain_text_has_lines():
    names = ("a.txt", "a.raw.gz", "a.csv", "a.jsonl")
    assert [holds_lines(Path(name)) for name in names] == [True, True, False, False]


@pytest.mark.parametrize(
    "column", ["article", "article.title", "article.date.year", "a.b", ("article.title", "a.b")]
)
def test_a_value_is_the_one_that_a_dataset_has(column):
    values = [value_in(row, column) for row in MIXED]
    rows = resolve_columns(dataset_of(MIXED, range(len(MIXED))), {"text": column})
    assert values == list(rows[column_name(column)])
    assert has_column(MIXED[0], column) == (values[0] is not None)


def test_rows_become_a_dataset_with_their_numbers():
    rows = [{"a": "x", "b": 1}, {"a": None, "b": "y"}]
    dataset = dataset_of(rows, [7, 8])
    numbered = [{**rows[0], ROW: 7}, {**rows[1], ROW: 8}]
    assert dataset.to_list() == numbered
    assert isinstance(dataset.features["b"], datasets.Json)
