"""Folders in place of a hub data set, and names that no hub data set has."""

import bz2
import os

import pytest
from pydantic import ValidationError
from support.rows_of import splits_of

from trainer.errors import DataError
from trainer.recipe.data import Source


def corpus(folder, **files):
    folder.mkdir(exist_ok=True)
    for name, text in files.items():
        (folder / name.replace("__", ".")).write_text(text)
    return {"hub": str(folder)}


def refused(source, *parts):
    """Returns the error; its message has the parts."""
    with pytest.raises(DataError) as caught:
        splits_of(source)
    message = str(caught.value)
    assert caught.value.key == "data.source.hub"
    assert message.startswith("data.source.hub: ")
    assert len(message) <= 500
    assert "\n" not in message
    for part in parts:
        assert part in message
    return caught.value


GOOD = '{"text": "a", "label": 1}\n'


def test_plain_files_are_read(tmp_path):
    source = corpus(tmp_path / "c", train__jsonl=GOOD * 3, test__jsonl=GOOD)
    splits, _ = splits_of(source, test="auto")
    assert {name: len(rows) for name, rows in splits.items()} == {"train": 3, "test": 1}


@pytest.mark.parametrize(
    ("name", "text", "parts"),
    [
        ("train__json", "null", ["train.json holds null"]),
        ("train__jsonl", "null\n", ["line 1 is not a JSON object"]),
        ("train__jsonl", '{"a": 1, "a": 2}\n', ["occurs twice"]),
        ("train__jsonl", '{"a": 1}\n' + "[" * 200_000 + "\n", ["line 2"]),
        ("train__csv", "text,label\na,1\nb, c,0\n", ["line 3 has 3 cells"]),
        ("train__csv", "text,label\na\n", ["line 2 has 1 cells"]),
        ("train__tsv", 'text\tlabel\n"a\t1\nb\t0\n', ["line 2: a quote is not closed"]),
        ("train__parquet", "text", ["cannot be loaded"]),
        ("code__py", "import datasets\n", ["cannot be loaded"]),
        (
            "README__md",
            "---\nconfigs:\n- config_name: a\n  data_files: ../outside.jsonl\n---\n",
            ["which is outside the folder; name it in data.source.files"],
        ),
        ("train[1]__jsonl", GOOD, ["as a pattern; rename it, or name it in data.source.files"]),
    ],
)
def test_what_the_library_would_read_wrongly_is_refused(tmp_path, name, text, parts):
    (tmp_path / "outside.jsonl").write_text(GOOD)
    refused(corpus(tmp_path / "c", **{name: text}), *parts)


@pytest.mark.parametrize(
    ("name", "text", "rows"),
    [
        ("train__json", '{"version": 1, "data": [{"text": "a"}]}', [{"text": "a"}]),
        ("train__jsonl", '{"a": "2020-01-01"}\n', [{"a": "2020-01-01"}]),
        ("train__jsonl", '{"a": 1}\n{"a": "1"}\n', [{"a": 1}, {"a": "1"}]),
    ],
)
def test_what_the_library_would_change_is_read_unchanged(tmp_path, name, text, rows):
    splits, _ = splits_of(corpus(tmp_path / "c", **{name: text}), validation=None)
    assert splits["train"] == rows


def test_a_folder_is_named_by_another_and_two_dots(tmp_path):
    corpus(tmp_path / "c", train__jsonl=GOOD)
    (tmp_path / "beside").mkdir()
    splits, _ = splits_of({"hub": str(tmp_path / "beside" / ".." / "c")}, validation=None)
    assert len(splits["train"]) == 1


def test_rows_that_are_compressed_are_read_by_the_library(tmp_path):
    (tmp_path / "c").mkdir()
    (tmp_path / "c" / "train.jsonl.bz2").write_bytes(bz2.compress(GOOD.encode() * 2))
    splits, _ = splits_of({"hub": str(tmp_path / "c")}, validation=None)
    assert len(splits["train"]) == 2


@pytest.mark.parametrize("name", ["c[1]", "c*", "c?", "c::d"])
def test_a_folder_whose_name_is_a_pattern(tmp_path, name):
    corpus(tmp_path / "c1", train__jsonl=GOOD)
    error = refused(corpus(tmp_path / name, train__jsonl=GOOD), "as a pattern")
    assert error.value == str(tmp_path / name)
    assert error.hint == "rename it, or name its files in data.source.files"


def test_pipes_and_files_in_place_of_a_folder(tmp_path):
    source = corpus(tmp_path / "c", train__jsonl=GOOD)
    file = str(tmp_path / "c" / "train.jsonl")
    error = refused({"hub": file}, "is a file")
    assert (error.value, error.hint) == (file, "name it in data.source.files, as {train: FILE}")
    os.mkfifo(tmp_path / "c" / "README.md")
    error = refused(source, "README.md is a named pipe")
    assert error.value == str(tmp_path / "c" / "README.md")


@pytest.mark.parametrize(
    ("name", "parts"),
    [
        ("glue/sst2", ["if sst2 is a subset of glue, set hub: glue and config: sst2"]),
        ("nyu-mll/glue/sst2", ["nyu-mll/glue/sst2 cannot be loaded"]),
        ("a/b/c/d", ["neither a folder nor the name of a hub data set"]),
        ("hf://datasets/a", ["neither a folder"]),
        ("https://example.org/a.csv", ["neither a folder"]),
        ("zip://a::b", ["neither a folder"]),
        ("../up", ["cannot be loaded"]),
    ],
)
def test_names(name, parts):
    assert refused({"hub": name}, *parts).value == name


def test_a_name_that_is_too_long_is_refused_with_the_recipe():
    with pytest.raises(ValidationError, match=r"data\.source\.hub: 'x+… .*shorten it"):
        Source(hub="x" * 3000)


def test_a_config_goes_with_no_saved_data_set(tmp_path):
    import datasets

    datasets.Dataset.from_list([{"text": "a"}]).save_to_disk(str(tmp_path / "s"))
    error = refused({"hub": str(tmp_path / "s"), "config": "b"}, "has no config")
    assert (error.value, error.hint) == ("b", "leave it out")
