"""Nested and joined columns, and the messages about missing ones."""

import json
from pathlib import Path
from typing import Any

import datasets
import pydantic
import pytest

from trainer.data.columns import ROW, check_columns, column_name, resolve_columns
from trainer.data.sources import load_splits, rows_digest
from trainer.errors import DataError
from trainer.recipe.data import Columns, Data

ARTICLES = [
    {
        "article": {"title": f"title {number}", "body": {"text": f"body {number}", "size": number}},
        "summary": f"summary {number}",
        "label": number % 3,
        "answers": {"text": [f"answer {number}"], "answer_start": [number]},
    }
    for number in range(12)
]
# The second has no body and the third an article of another type, so the fields are not the same.
MIXED = [
    {"article": {"title": "one", "body": "first"}, "label": "a"},
    {"article": {"title": "two"}, "label": "b"},
    {"article": "three", "label": "c"},
    {"article": {"title": "four", "body": "fourth", "date": {"year": 4}}, "label": "d"},
]


def load(folder: Path, rows: list[dict[str, Any]], **split: Any) -> dict[str, datasets.Dataset]:
    file = folder / "rows.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    values = {"source": {"files": {"train": str(file)}}}
    values |= {"split": {"validation": None, "test": None} | split}
    return load_splits(Data.model_validate_json(json.dumps(values)))[0]


def resolved(rows: datasets.Dataset, *columns: str | tuple[str, ...]) -> list[list[Any]]:
    """Returns the values of columns, checked and resolved."""
    settings = {str(number): column for number, column in enumerate(columns)}
    check_columns({"train": rows}, settings)
    rows = resolve_columns(rows, settings)
    return [list(rows[column_name(column)]) for column in columns]


def refusal(rows: datasets.Dataset, **columns: Any) -> DataError:
    with pytest.raises(DataError) as caught:
        check_columns({"train": rows}, columns)
    return caught.value


def test_a_recipe_names_one_column_or_several():
    columns = Columns.model_validate_json('{"text": ["title", "body"], "text_pair": "other"}')
    assert column_name(columns.text) == "title + body"
    assert column_name(columns.text_pair or "") == "other"
    assert columns.model_dump()["text"] == ("title", "body")
    assert Columns().text == "text"
    for wrong in ('{"text": []}', '{"text": 3}', '{"text": ["a", 3]}', '{"label": ["a", "b"]}'):
        with pytest.raises(pydantic.ValidationError) as caught:
            Columns.model_validate_json(wrong)
        assert len(caught.value.errors()) == 1


def test_a_path_leads_to_a_field_of_each_row(tmp_path):
    rows = load(tmp_path, ARTICLES)["train"]
    titles, texts, sizes, answers = resolved(
        rows, "article.title", "article.body.text", "article.body.size", "answers.text"
    )
    assert titles == [row["article"]["title"] for row in ARTICLES]
    assert texts == [row["article"]["body"]["text"] for row in ARTICLES]
    assert sizes == list(range(12))
    assert answers == [row["answers"]["text"] for row in ARTICLES]


def test_plain_columns_stay_as_they_are_and_resolving_again_adds_nothing(tmp_path):
    rows = load(tmp_path, ARTICLES)["train"]
    settings = {"text": ("article.title", "summary"), "label": "label", "text_pair": None}
    assert resolve_columns(rows, {"text": "summary", "text_pair": None}) is rows
    resolved_rows = resolve_columns(rows, settings)
    assert resolved_rows.column_names == [*rows.column_names, "article.title + summary"]
    assert resolved_rows.remove_columns("article.title + summary").to_list() == rows.to_list()
    check_columns({"train": resolved_rows}, settings)
    assert resolve_columns(resolved_rows, settings) is resolved_rows


def test_a_column_with_dots_in_its_name_goes_before_a_path(tmp_path):
    rows = [{"a.b": "name", "a": {"b": "path", "c": {"d": "deep"}}, "a.c": "dead end"}]
    loaded = load(tmp_path, rows)["train"]
    assert resolved(loaded, "a.b", "a.c", "a.c.d") == [["name"], ["dead end"], ["deep"]]
    inner = load(tmp_path, [{"row": rows[0]}])["train"]
    assert resolved(inner, "row.a.b", "row.a.c.d") == [["name"], ["deep"]]


def test_fields_that_differ_from_row_to_row_are_null_where_they_are_absent(tmp_path):
    rows = load(tmp_path, MIXED)["train"]
    titles, bodies, years = resolved(rows, "article.title", "article.body", "article.date.year")
    assert titles == ["one", "two", None, "four"]
    assert bodies == ["first", None, None, "fourth"]
    assert years == [None, None, None, 4]


def test_texts_are_joined_by_a_newline_without_empty_ones(tmp_path):
    texts = [("one", "two"), ("", "two"), ("one", None), (" ", "two"), (None, ""), ("a\nb", "c")]
    rows = [{"title": title, "body": {"text": body}} for title, body in texts]
    loaded = load(tmp_path, rows)["train"]
    assert resolved(loaded, ("title", "body.text"), ("body.text",), ("body.text", "title")) == [
        ["one\ntwo", "two", "one", "two", "", "a\nb\nc"],
        ["two", "two", None, "two", "", "c"],
        ["two\none", "two", "one", "two", "", "c\na\nb"],
    ]


def of_mixed_objects(folder: Path, values: list[Any]) -> datasets.Dataset:
    """Returns rows with the values in a.x, among fields that differ from row to row."""
    rows = [{"a": {"x": value, f"y{number}": 1}} for number, value in enumerate(values)]
    loaded = load(folder, rows)["train"]
    assert isinstance(loaded.features["a"], datasets.Json)
    return loaded


@pytest.mark.parametrize(
    ("values", "dtype"),
    [
        (["one", None, "3", "null", "true", '"quoted"', "{}"], "string"),
        ([3, None, -1], "int64"),
        ([3, 0.5], "float64"),
        ([2**64 - 1, None, -1], None),
        (["one", 2, "3", "null", None, 0.5, True, ["4"], {"b": "5"}], None),
        ([True, False], None),
    ],
)
def test_values_of_mixed_objects_stay_what_they_are(tmp_path, values, dtype):
    """Texts too that look like JSON, which the library keeps such objects as."""
    rows = of_mixed_objects(tmp_path, values)
    assert resolved(rows, "a.x") == [values]
    kind = resolve_columns(rows, {"text": "a.x"}).features["a.x"]
    assert getattr(kind, "dtype", None) == dtype


def test_a_text_joined_of_a_number_is_missing(tmp_path):
    rows = of_mixed_objects(tmp_path, ["one", 2, "3", None])
    assert resolved(rows, ("a.x", "a.x")) == [["one\none", None, "3\n3", ""]]


def test_only_texts_are_joined(tmp_path):
    rows = load(tmp_path, ARTICLES)["train"]
    error = refusal(rows, text=("summary", "label"))
    assert str(error) == (
        "data.columns.text: label of the train split is not text, and only text can be joined; "
        "leave it out"
    )
    assert (error.key, error.value) == ("data.columns.text", "label")
    error = refusal(rows, text=("summary", "article"))
    assert (error.value, error.hint) == ("article", "leave it out")


def test_parts_of_divided_rows_keep_their_own_values(tmp_path):
    splits = load(tmp_path, ARTICLES, validation={"ratio": 0.25, "seed": 3})
    assert {name: len(rows) for name, rows in splits.items()} == {"train": 9, "validation": 3}
    settings = {"text": ("article.title", "article.body.text"), "label": "article.body.size"}
    for rows in splits.values():
        for row in resolve_columns(rows, settings).to_list():
            assert row["article.body.size"] == row[ROW] - 1
            assert row["article.title + article.body.text"] == "title {0}\nbody {0}".format(
                row[ROW] - 1
            )
            assert row["summary"] == f"summary {row[ROW] - 1}"


def test_the_columns_of_a_recipe_come_with_its_rows(tmp_path):
    columns = {"text": ["article.title", "summary"], "label": "article.body.size"}
    exclude, split = {"label": [0]}, {"validation": {"ratio": 0.25}, "test": None}
    file = tmp_path / "a.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in ARTICLES))
    values = {"source": {"files": {"train": str(file), "dev": str(file)}}, "columns": columns}
    recipe = Data.model_validate_json(
        json.dumps({**values, "split": split, "exclude": exclude, "max_rows": 4})
    )
    rows = [row for part in load_splits(recipe)[0].values() for row in part.to_list()]
    assert sorted(row["article.body.size"] for row in rows) == [1, 2, 4, 5]
    for row in rows:
        number = row["article.body.size"]
        assert row["article.title + summary"] == f"title {number}\nsummary {number}"


def test_nested_columns_that_a_split_lacks_are_left_to_the_task(tmp_path):
    file = tmp_path / "a.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in MIXED))
    columns = {"text": ["article.title", "summary"], "label": "article.body"}
    values = {"source": {"files": {"train": str(file)}}, "columns": columns}
    rows = load_splits(Data.model_validate_json(json.dumps(values)))[0]["train"]
    assert "article.body" in rows.column_names
    assert "article.title + summary" not in rows.column_names
    error = refusal(rows, text=("article.title", "summary"))
    assert (error.key, error.value) == ("data.columns.text", "summary")


def test_rows_on_disk_stay_on_disk(tmp_path):
    rows = resolve_columns(
        load(tmp_path, ARTICLES)["train"], {"text": ("summary", "article.title")}
    )
    files = {Path(file["filename"]) for file in rows.cache_files}
    assert len(files) == 2, "what was read, and what was added"
    assert all(file.is_file() and not file.is_relative_to(tmp_path) for file in files)


@pytest.mark.parametrize("column", ["article.title", ("article.title", "article.body"), "label"])
def test_the_digest_is_that_of_the_values_also_of_mixed_objects(tmp_path, column):
    def digest(rows: list[dict[str, Any]]) -> str:
        resolved_rows = resolve_columns(load(tmp_path, rows)["train"], {"text": column})
        return rows_digest(resolved_rows, [column_name(column)])

    before = digest(MIXED)
    assert digest([{**row, "other": 1} for row in MIXED]) == before
    changed = {"article": {"title": "two!", "body": ""}, "label": "B"}
    assert digest([MIXED[0], changed, *MIXED[2:]]) != before


@pytest.mark.parametrize(
    ("column", "available", "nearest"),
    [
        ("sumary", "it has article, summary, label, answers", "summary"),
        ("artcle.title", "it has article, summary, label, answers", "article"),
        ("article.titel", "article has title, body", "article.title"),
        ("article.body.txt", "article.body has text, size", "article.body.text"),
        ("article.bdy.text", "article has title, body", "article.body"),
        ("summary.text", "summary has no fields", None),
        ("answers.text.first", "answers.text has no fields", None),
        ("row of the sourc", "it has article, summary, label, answers", None),
    ],
)
def test_a_missing_column_names_the_nearest_at_its_level(tmp_path, column, available, nearest):
    rows = load(tmp_path, ARTICLES)["train"]
    error = refusal(rows, label="label", text=column)
    assert (error.key, error.value) == ("data.columns.text", column)
    assert error.hint == (nearest and f"did you mean {nearest}?")
    missing = f"data.columns.text: the train split has no column {column}; {available}"
    assert str(error) == (f"{missing}; {error.hint}" if nearest else missing)


def test_a_missing_part_of_a_joined_column_is_named(tmp_path):
    error = refusal(load(tmp_path, ARTICLES)["train"], text=("summary", "article.titel"))
    assert (error.value, error.hint) == ("article.titel", "did you mean article.title?")


@pytest.mark.parametrize(
    ("column", "available", "nearest"),
    [
        ("article.boddy", "article has title, body, date", "article.body"),
        ("article.date.yaer", "article.date has year", "article.date.year"),
        ("article.title.word", "article.title has no fields", None),
        ("label.name", "label has no fields", None),
    ],
)
def test_a_field_that_no_row_has_names_those_that_some_have(tmp_path, column, available, nearest):
    error = refusal(load(tmp_path, MIXED)["train"], text=column)
    assert (error.value, error.hint) == (column, nearest and f"did you mean {nearest}?")
    assert available in str(error)


def test_a_column_that_only_one_split_lacks_is_found(tmp_path):
    train = load(tmp_path, ARTICLES)["train"]
    splits = {"train": train, "test": train.remove_columns("label")}
    check_columns({"train": train}, {"label": "label", "text_pair": None})
    with pytest.raises(DataError, match="the test split has no column label") as caught:
        check_columns(splits, {"label": "label"})
    assert (caught.value.key, caught.value.value) == ("data.columns.label", "label")
