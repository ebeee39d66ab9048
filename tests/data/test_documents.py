"""Documents made of lines: where each begins, the number of its first row, its sentences."""

import json
from itertools import pairwise
from pathlib import Path
from typing import Any

import datasets
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trainer.data.columns import ROW
from trainer.data.documents import group_documents, sentences
from trainer.data.sources import load_splits
from trainer.errors import DataError
from trainer.recipe.data import Data

# As WikiText has it: titles with one sign a side, those of sections with more.
WIKITEXT = """
 = Valkyria Chronicles III =

 Senjō no Valkyria 3 is a role @-@ playing game .
 It was released in January 2011 in Japan .

 = = Gameplay = =

 As with previous games , a = b is no title .

 = = = Controls = = =

 = not closed
 = Tower Building =

 The Tower Building is a structure in Little Rock .
"""


def grouped(lines: list[Any], begin: Any, numbers: list[int] | None = None) -> list[Any]:
    """Returns the documents of lines, each with the number of its first row."""
    columns = {"line": lines, ROW: numbers or list(range(1, len(lines) + 1))}
    features = {"line": datasets.Value("string"), ROW: datasets.Value("int64")}
    rows = datasets.Dataset.from_dict(columns, features=datasets.Features(features))
    documents = group_documents(rows, "line", begin, ROW)
    assert documents.column_names == ["line", ROW]
    return list(zip(documents["line"], documents[ROW], strict=True))


def load(file: Path, text: str, **values: Any) -> dict[str, datasets.Dataset]:
    file.write_text(text, "utf-8")
    data = {"source": {"files": {"train": str(file)}}, "split": {"validation": None, "test": None}}
    return load_splits(Data.model_validate_json(json.dumps(data | values)))[0]


# Where they begin


def test_a_title_begins_a_document_and_one_of_a_section_does_not():
    documents = grouped(WIKITEXT.split("\n"), "headings")
    assert [number for _, number in documents] == [2, 14]
    first, second = (text.split("\n") for text, _ in documents)
    assert first[0] == "= Valkyria Chronicles III ="
    assert "= = Gameplay = =" in first
    assert "= = = Controls = = =" in first
    assert first[-1] == "= not closed"
    assert second == [
        "= Tower Building =",
        "The Tower Building is a structure in Little Rock .",
    ]


@pytest.mark.parametrize(
    ("line", "is_title"),
    [
        (" = Title = \n", True),
        ("= Title =", True),
        (" = A longer title , of 1887 = ", True),
        (" = = Section = = \n", False),
        (" = = = Part = = = ", False),
        ("x = 1 =", False),
        ("= 1 = x", False),
        ("=Title=", False),
        ("= =", False),
    ],
)
def test_what_is_a_title(line, is_title):
    documents = grouped(["before", line, "after"], "headings")
    assert [number for _, number in documents] == ([1, 2] if is_title else [1])


def test_text_before_the_first_title_is_a_document():
    assert grouped(["lead", "= A =", "a"], "headings") == [("lead", 1), ("= A =\na", 2)]


def test_empty_lines_end_a_document_and_leave_none():
    lines = ["", "  ", "one", " two ", None, "\t", "three", "", ""]
    assert grouped(lines, "blank_lines") == [("one\ntwo", 3), ("three", 7)]
    assert grouped(["", "= A =", "a", "= B ="], "blank_lines") == [("= A =\na\n= B =", 2)]


def test_a_document_has_the_number_that_its_first_row_has_in_the_source():
    assert grouped(["a", "b", "", "c"], "blank_lines", [5, 7, 8, 11]) == [("a\nb", 5), ("c", 11)]


@pytest.mark.parametrize("begin", ["blank_lines", "headings"])
def test_rows_without_any_text_are_refused(begin):
    with pytest.raises(DataError, match="no row of the column line has text") as caught:
        grouped(["", None, "  "], begin)
    assert (caught.value.key, caught.value.value) == ("data.documents", begin)
    assert caught.value.hint == "check data.columns.text"


@settings(max_examples=25)
@given(
    lines=st.lists(st.sampled_from(["", " ", "a", "b b", "= T =", "= = S = ="]), max_size=25),
    begin=st.sampled_from(["blank_lines", "headings"]),
)
def test_no_line_is_lost_and_documents_begin_where_they_should(lines, begin):
    full = [line for line in lines if line.strip()]
    if not full:
        return
    documents = grouped(lines, begin)
    assert [line for text, _ in documents for line in text.split("\n")] == full
    numbers = [number for _, number in documents]
    assert numbers == sorted(set(numbers))
    for text, number in documents:
        assert lines[number - 1] == text.split("\n")[0]
    if begin == "headings":
        assert all(text.count("= T =") <= 1 for text, _ in documents)
        assert all(text.startswith("= T =") for text, _ in documents[1:])
    else:
        for begin_row, next_row in pairwise(numbers):
            assert not all(line.strip() for line in lines[begin_row - 1 : next_row])


def test_documents_reach_over_the_thousands_in_which_rows_are_read():
    lines = ["= A =", *["a"] * 2500, "= B =", *["b"] * 700]
    documents = grouped(lines, "headings")
    assert [(text.count("\n"), number) for text, number in documents] == [(2500, 1), (700, 2502)]


# As a recipe loads them

LINES = "".join(f" = Title {n} = \n\n first of {n} \n second of {n} \n" for n in range(40))


def test_documents_are_whole_rows_of_a_text_file(tmp_path):
    rows = load(tmp_path / "wiki.txt", LINES, documents="headings")["train"]
    assert rows["text"][3] == "= Title 3 =\nfirst of 3\nsecond of 3"
    assert rows[ROW] == [1 + 4 * number for number in range(40)]


def test_a_division_keeps_documents_whole(tmp_path):
    split = {"validation": {"ratio": 0.25}, "test": None}
    parts = load(tmp_path / "wiki.txt", LINES, documents="headings", split=split)
    assert {name: len(rows) for name, rows in parts.items()} == {"train": 30, "validation": 10}
    texts = [text for rows in parts.values() for text in rows["text"]]
    assert sorted(texts) == sorted(f"= Title {n} =\nfirst of {n}\nsecond of {n}" for n in range(40))
    for rows in parts.values():
        for text, number in zip(rows["text"], rows[ROW], strict=True):
            assert text.startswith(f"= Title {(number - 1) // 4} =")


def test_max_rows_counts_documents(tmp_path):
    rows = load(tmp_path / "wiki.txt", LINES, documents="headings", max_rows=3)["train"]
    assert rows["text"][:] == [f"= Title {n} =\nfirst of {n}\nsecond of {n}" for n in range(3)]
    rows = load(tmp_path / "wiki.txt", "a\nb\n\nc\n\nd\n", documents="blank_lines", max_rows=2)
    assert rows["train"]["text"][:] == ["a\nb", "c"]


def test_each_line_is_a_document_by_default(tmp_path):
    assert len(load(tmp_path / "wiki.txt", LINES)["train"]) == LINES.count("\n")


def test_a_file_that_changes_gives_other_documents(tmp_path):
    load(tmp_path / "wiki.txt", "a\n\nb\n", documents="blank_lines")
    rows = load(tmp_path / "wiki.txt", "a\n\nother\n", documents="blank_lines")["train"]
    assert rows["text"][:] == ["a", "other"]


def test_other_columns_and_splits_are_grouped_as_well(tmp_path):
    for name in ("train", "test"):
        rows = [{"line": line, "page": 1} for line in ("a", "", name)]
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    values = {
        "source": {"files": {name: str(tmp_path / f"{name}.jsonl") for name in ("train", "test")}},
        "split": {"validation": None},
        "columns": {"text": "line"},
        "documents": "blank_lines",
    }
    parts, _ = load_splits(Data.model_validate_json(json.dumps(values)))
    assert {name: rows["line"][:] for name, rows in parts.items()} == {
        "train": ["a", "train"],
        "test": ["a", "test"],
    }


def test_a_missing_column_is_named(tmp_path):
    with pytest.raises(DataError) as caught:
        load(tmp_path / "wiki.txt", LINES, documents="headings", columns={"text": "line"})
    assert (caught.value.key, caught.value.value) == ("data.columns.text", "line")


# Sentences


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("One. Two! Three? Four", ["One.", "Two!", "Three?", "Four"]),
        ("one\n\n  two  \nthree. four", ["one", "two", "three.", "four"]),
        ('He said "no." Then he went.', ['He said "no."', "Then he went."]),
        ("(In brackets.) Outside.", ["(In brackets.)", "Outside."]),
        ("It cost 3.50 at example.com today.", ["It cost 3.50 at example.com today."]),
        ("Wait... what?! Yes…  No", ["Wait...", "what?!", "Yes…", "No"]),
        ("First . Second .", ["First .", "Second ."]),
        ("A line.\n***\n- - -\nNext.", ["A line.", "Next."]),
        ("一二三。 四五六。", ["一二三。", "四五六。"]),
        ("", []),
        (" \n ... \n", []),
    ],
)
def test_sentences_are_lines_cut_after_full_stops(text, expected):
    assert sentences(text) == expected


@given(st.text(alphabet="ab .!?\"')\n", max_size=60))
def test_sentences_hold_every_letter_in_order(text):
    cut = sentences(text)
    letters = [character for character in text if character.isalnum()]
    assert [character for part in cut for character in part if character.isalnum()] == letters
    assert all(sentence == sentence.strip() and sentence in text for sentence in cut)
