"""Rows from local files and folders of one kind, plain or gzipped."""

from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trainer.data.formats.csv_files import dialect_of, read_tables
from trainer.data.formats.json_files import json_rows_of
from trainer.data.formats.json_tables import own_tables, reads_the_same
from trainer.data.formats.reading import Tables, file_size, is_folder, shown
from trainer.data.formats.saved import is_saved, is_saved_dict, saved_files
from trainer.data.formats.squad_json import is_squad_json, read_squad_json
from trainer.data.formats.text_files import read_lines
from trainer.data.kept_rows import kept_rows, rows_of_library, tables_of
from trainer.errors import DataError
from trainer.recipe.data import Csv
from trainer.wording import excerpt, listed

if TYPE_CHECKING:
    from datasets import Dataset, Features

READERS = {
    ".json": "json",
    ".jsonl": "json",
    ".csv": "csv",
    ".tsv": "csv",
    ".parquet": "parquet",
    ".arrow": "arrow",
    ".txt": "text",
    ".raw": "text",
    ".tokens": "text",
}


def read_files(
    split: str, paths: str | Sequence[str], csv: Csv | None = None
) -> "tuple[Dataset, list[str]]":
    """Returns the rows of a split from its files, concatenated, and notes on them.

    The files of a folder are read in the order of their names. Raises DataError, with the key of
    the split, that names the unusable file and, if possible, the line.
    """
    key = f"data.source.files.{excerpt(split, 40)}"
    try:
        return _read(split_paths=[paths] if isinstance(paths, str) else paths, csv=csv)
    except DataError as error:
        raise error.under(key) from error


def read_arrow(files: list[Path]) -> "Dataset":
    """Returns the rows of .arrow files, in the stream or the file format."""
    return _rows(files, ".arrow", None)[0]


def kind_of(path: Path) -> str:
    """Returns the suffix that decides how a file is read, ignoring .gz."""
    return (path.with_suffix("") if path.suffix == ".gz" else path).suffix.lower()


def _read(split_paths: Sequence[str], csv: Csv | None) -> "tuple[Dataset, list[str]]":
    notes: list[str] = []
    files = [file for path in split_paths for file in _files_under(Path(path), notes)]
    kinds = sorted({kind_of(file) for file in files})
    if len(kinds) > 1:
        raise DataError(
            f"files of several kinds: {', '.join(kinds)}",
            value=kinds,
            hint="give files of one kind",
        )
    rows, more = _rows(files, kinds[0], csv)
    if len(rows) == 0:
        raise _no_rows(files)
    return rows, [*notes, *more]


def _rows(files: list[Path], kind: str, csv: Csv | None) -> "tuple[Dataset, list[str]]":
    if kind == ".json" and (squad := [file for file in files if is_squad_json(file)]):
        return _squad(files, squad), []
    if READERS[kind] == "csv":
        dialect = dialect_of(kind, csv)
        settings = {"kind": kind, **vars(dialect)}
        return kept_rows(files, settings, lambda _, notes: read_tables(files, dialect, notes))
    if READERS[kind] == "text":
        return kept_rows(files, {"kind": "text"}, lambda _, notes: read_lines(files, notes))
    if READERS[kind] == "json":
        return kept_rows(files, {"kind": kind}, lambda scratch, _: _json(files, scratch))
    return kept_rows(files, {"kind": kind}, lambda scratch, _: _by_library(files, kind, scratch))


def _squad(files: list[Path], squad: list[Path]) -> "Dataset":
    """Returns the rows of files of which those in `squad` have SQuAD's format."""
    import pyarrow as pa

    if others := [file for file in files if file not in squad]:
        raise DataError(
            f"{_names(squad)} in SQuAD's format, and {_names(others)} not",
            value=_names(others),
            hint="give files of one format",
        )
    try:
        return read_squad_json(files)
    except (pa.ArrowInvalid, OverflowError) as error:
        raise DataError(
            f"{_names(files)}: an answer_start is beyond 32 bits",
            key=_names(files),
            hint="give the index of a character of the context",
        ) from error


def _no_rows(files: list[Path]) -> DataError:
    return DataError(f"no rows in {_names(files)}", key=_names(files))


def _json(files: list[Path], scratch: Path) -> "tuple[Features, Tables]":
    def rows() -> Iterator[dict[str, Any]]:
        return json_rows_of(files)

    if sum(map(len, rows())) == 0:  # this reads every row, so the library gets valid files only
        raise _no_rows(files)
    try:
        read = rows_of_library("json", files, scratch, parse_agent_traces=False)
        if reads_the_same(read, rows):
            return read.features, tables_of(read)
    except Exception as error:  # the rows are valid JSON, so we can read what the library refuses
        if isinstance(error.__cause__ or error, OSError | MemoryError):
            raise error.__cause__ or error from None
    return own_tables(rows)


def _by_library(files: list[Path], kind: str, scratch: Path) -> "tuple[Features, Tables]":
    try:
        read = rows_of_library(READERS[kind], files, scratch)
    except Exception as error:  # readers raise a dozen types; the cause is always the file
        if "corresponds to no data" in str(error):
            raise _no_rows(files) from error
        raise DataError(
            f"{_names(files)} cannot be read as {kind[1:]}: "
            f"{excerpt(first_line(error.__cause__ or error), 200)}",
            key=_names(files),
            hint="write it again",
        ) from error
    return read.features, tables_of(read)


def _files_under(path: Path, notes: list[str]) -> list[Path]:
    if is_folder(path):
        return _files_in(path, notes)
    check_file(path)
    return [path]


def check_file(path: Path) -> None:
    """Raises DataError unless a file exists, is of a kind that can be read, and is not empty."""
    size = file_size(path)
    if kind_of(path) not in READERS:
        raise DataError(
            f"{shown(path)} is not of a known kind",
            key=shown(path),
            hint=f"use {', '.join(READERS)}, plain or with .gz",
        )
    if size == 0:
        raise DataError(f"{shown(path)} is empty", key=shown(path))


def _files_in(folder: Path, notes: list[str]) -> list[Path]:
    if is_saved_dict(folder):
        raise DataError(
            f"{shown(folder)} is a DatasetDict that save_to_disk wrote",
            key=shown(folder),
            hint="set data.source.hub to it, or name the folder of one split in it",
        )
    if is_saved(folder):
        return saved_files(folder)
    try:
        inside = sorted(folder.iterdir())
    except OSError as error:
        raise DataError(
            f"{shown(folder)} cannot be read ({error.strerror})", key=shown(folder)
        ) from error
    files = [
        file
        for file in inside
        if kind_of(file) in READERS and file.name[0] != "." and not file.is_dir()
    ]
    subfolders = [
        path
        for path in inside
        if path.is_dir()
        and path.name[0] != "."
        and any(kind_of(file) in READERS for file in islice(path.rglob("*"), 10_000))
    ]
    if subfolders and files:
        notes.append(
            f"{shown(folder)}: data files in its folders "
            f"{listed(path.name for path in subfolders)} are not read; name these folders to read "
            f"them too"
        )
    if subfolders and not files:
        raise DataError(
            f"no data files in the folder {shown(folder)} itself, only in its folders "
            f"{listed(path.name for path in subfolders)}",
            key=shown(folder),
            hint="name these",
        )
    if not files:
        raise DataError(
            f"no data files in the folder {shown(folder)}",
            key=shown(folder),
            hint=f"put files there that end in {', '.join(READERS)}, or one of these and .gz",
        )
    for file in files:
        file_size(file)
    return files


def _names(files: list[Path]) -> str:
    rest = f" and {len(files) - 3} more" if len(files) > 3 else ""
    return ", ".join(map(shown, files[:3])) + rest


def first_line(error: BaseException) -> str:
    """Returns the first line of an error's message."""
    return next(iter(str(error).splitlines()), type(error).__name__)
