"""Only the named files are read, and anything that is not a file is refused in one sentence."""

import json
import os
import socket
from pathlib import Path

import pytest
from pydantic import ValidationError
from support.rows_of import notes_of, rows_of, splits_of

from trainer.data.files import read_files
from trainer.data.hub import load_hub
from trainer.errors import DataError
from trainer.recipe.data import Source

ROWS = [{"text": f"text {number}"} for number in range(4)]


def write(file, rows=ROWS):
    if file.suffix == ".csv":
        file.write_text("".join(f"{line}\n" for line in ["text", *(row["text"] for row in rows)]))
    else:
        file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return file


@pytest.mark.parametrize("kind", ["jsonl", "csv"])
@pytest.mark.parametrize(
    "name", ["a[1]", "a*", "a?", "a::b", "zip:::c", "~x", "a b%20", "日本", "#"]
)
def test_a_name_is_not_a_pattern(tmp_path, name, kind):
    for other in ("a1", "ab", "aa", "a"):
        write(tmp_path / f"{other}.{kind}", [{"text": "another file"}])
    assert rows_of(write(tmp_path / f"{name}.{kind}")) == ROWS
    folder = tmp_path / "f[1]::*"
    folder.mkdir()
    write(folder / f"{name}.{kind}")
    assert rows_of(folder) == ROWS
    (tmp_path / f"{name}.{kind}").unlink()
    with pytest.raises(DataError, match="there is no file") as caught:
        rows_of(tmp_path / f"{name}.{kind}")
    assert caught.value.value == str(tmp_path / f"{name}.{kind}")


@pytest.mark.parametrize(
    ("files", "words"),
    [("", "give a name"), ("  ", "give a name"), ([], "is empty"), ([""], "give a name")],
)
def test_an_empty_name_is_not_the_working_directory(tmp_path, monkeypatch, files, words):
    monkeypatch.chdir(write(tmp_path / "a.jsonl").parent)
    with pytest.raises(ValidationError, match=rf"files\.train.* {words}"):
        splits_of({"files": {"train": files}})


@pytest.mark.parametrize("hub", ["", "csv", "json", "parquet", "text", "imagefolder"])
def test_a_kind_of_file_is_not_the_working_directory_either(tmp_path, monkeypatch, hub):
    monkeypatch.chdir(write(tmp_path / "a.jsonl").parent)
    with pytest.raises((DataError, ValidationError), match="hub"):
        splits_of({"hub": hub})


def make_socket(file):
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(file))


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (os.mkfifo, "is a named pipe, not a file"),
        (lambda file: file.symlink_to("/dev/zero"), "is a device, not a file"),
        (lambda file: file.symlink_to("/dev/stdin"), "is a |is empty"),
        (lambda file: file.symlink_to(file.name), "cannot be read|there is no file"),
        (lambda file: file.symlink_to("nowhere"), "there is no file"),
        (make_socket, "is a socket, not a file"),
        (lambda file: file.write_text(""), "is empty|no rows|line 1"),
    ],
    ids="pipe device stdin loop dangling socket empty".split(),
)
def test_anything_but_a_file_is_refused_by_itself_and_in_a_folder(
    tmp_path, make, sentence, monkeypatch
):
    monkeypatch.chdir(tmp_path)  # names of sockets are short
    for kind in ("csv", "json", "jsonl", "txt", "parquet", "arrow"):
        Path(kind).mkdir()
        make(Path(kind) / f"x.{kind}")
        for named in (Path(kind) / f"x.{kind}", Path(kind)):
            with pytest.raises(DataError, match=f"({sentence}|cannot be read)") as caught:
                rows_of(named)
            assert caught.value.key == "data.source.files.train"
            assert str(caught.value.value).startswith(str(tmp_path / kind))


@pytest.mark.parametrize(
    "name", ["x" * 300 + ".csv", "x/" * 3000 + "a.csv", "a\0b.csv", "\ud800.csv"]
)
def test_names_that_no_file_has(tmp_path, name):
    path = f"{tmp_path}/{name}"
    with pytest.raises(DataError) as caught:
        read_files("train", path)
    assert caught.value.key == "data.source.files.train"
    assert len(str(caught.value)) < 400
    # Names that are too long for any file are refused with the recipe, others when they are read.
    with pytest.raises((DataError, ValidationError), match=r"data\.source\.hub: ") as caught:
        load_hub(Source(hub=path))
    assert len(str(caught.value)) < 600


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads everything")
def test_a_file_that_may_not_be_read(tmp_path):
    file = write(tmp_path / "a.csv")
    file.chmod(0)
    with pytest.raises(DataError, match=r"a\.csv cannot be read \(Permission denied\)") as caught:
        rows_of(file)
    assert caught.value.value == str(file)


def test_folders_in_a_folder(tmp_path):
    (tmp_path / "deep" / "deeper").mkdir(parents=True)
    write(tmp_path / "deep" / "deeper" / "a.jsonl")
    with pytest.raises(DataError, match="only in its folders deep") as caught:
        rows_of(tmp_path)
    assert (caught.value.value, caught.value.hint) == (str(tmp_path), "name these")
    write(tmp_path / "b.jsonl", ROWS[:1])
    (tmp_path / "._b.jsonl").write_bytes(b"\0\5\26\7")
    assert rows_of(tmp_path) == ROWS[:1]
    assert "folders deep are not read" in "".join(notes_of(tmp_path))


def test_changed_content_is_read_again_even_if_its_time_is_the_same(tmp_path):
    file = write(tmp_path / "a.jsonl")
    facts = file.stat()
    assert rows_of(file) == ROWS
    write(file, ROWS[::-1])
    os.utime(file, ns=(facts.st_atime_ns, facts.st_mtime_ns))
    assert rows_of(file) == ROWS[::-1]
