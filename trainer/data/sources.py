"""Rows from where a recipe says: a hub data set, local files, or a built-in generator."""

import difflib
import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from trainer.config import Data, Ratio, Source
from trainer.data.builtin import BUILTIN
from trainer.errors import ConfigError, DataError

if TYPE_CHECKING:
    from datasets import Dataset

ROW = "row of the source"
"""Name of the column that keeps the numbers of rows through a division by ratio."""

READERS = {
    ".json": "json",
    ".jsonl": "json",
    ".csv": "csv",
    ".tsv": "csv",
    ".parquet": "parquet",
    ".txt": "text",
}


def load_splits(data: Data) -> "dict[str, Dataset]":
    """Returns the rows of train and, where the recipe has them, validation and test.

    Raises DataError for what cannot be read, and for a split without rows.
    """
    source = _load_source(data.source)
    if data.max_rows is not None:
        source = {
            name: rows.select(range(min(data.max_rows, len(rows)))) for name, rows in source.items()
        }
    if "train" not in source:
        raise DataError(f"the source has no train split; it has {', '.join(source)}")
    source = {
        name: rows.add_column(ROW, list(range(1, len(rows) + 1))) for name, rows in source.items()
    }
    splits = {"train": source["train"]}
    for name, origin in (("validation", data.split.validation), ("test", data.split.test)):
        if origin == "auto":
            tenth = Ratio(ratio=0.1, seed=1) if name == "validation" else None
            origin = name if name in source else tenth
        if isinstance(origin, Ratio):
            parts = _divide(splits["train"], origin, name)
            splits["train"], splits[name] = parts["train"], parts["test"]
        elif origin is not None:
            if origin not in source:
                raise ConfigError(
                    f"data.split.{name}: the source has no split {origin}; it has "
                    f"{', '.join(source)}"
                )
            splits[name] = source[origin]
    for name, rows in splits.items():
        if len(rows) == 0:
            raise DataError(f"the {name} split has no rows; check data.source and data.split")
    return splits


def row_number(rows: "Dataset", index: int) -> int:
    """Returns the number, from 1, that a row has in its source, before any division."""
    return int(rows[index].get(ROW, index + 1))


def check_columns(splits: "Mapping[str, Dataset]", columns: Mapping[str, str | None]) -> None:
    """Raises DataError for a column that a split does not have, naming the nearest it has."""
    for split, rows in splits.items():
        known = [name for name in rows.column_names if name != ROW]
        for key, column in columns.items():
            if column is not None and column not in known:
                near = difflib.get_close_matches(column, known, n=1, cutoff=0.4)
                hint = f"; did you mean {near[0]}?" if near else ""
                raise DataError(
                    f"data.columns.{key}: the {split} split has no column {column}; it has "
                    f"{', '.join(known)}{hint}"
                )


def rows_digest(rows: "Dataset", columns: list[str]) -> str:
    """Returns a hash of the content of some columns, in order."""
    digest = hashlib.sha256()
    arrow = rows.select_columns(columns).with_format("arrow")
    for table in arrow.iter(batch_size=10_000):
        for batch in cast(Any, table).combine_chunks().replace_schema_metadata(None).to_batches():
            digest.update(memoryview(batch.serialize()))
    return digest.hexdigest()


def _load_source(source: Source) -> "dict[str, Dataset]":
    import datasets

    datasets.disable_progress_bars()
    if source.builtin is not None:
        if source.builtin not in BUILTIN:
            near = difflib.get_close_matches(source.builtin, BUILTIN, n=1, cutoff=0.0)[0]
            raise ConfigError(
                f"data.source.builtin: there is no {source.builtin}; did you mean {near}?"
            )
        generated = BUILTIN[source.builtin](source.num_rows, source.seed)
        return {name: datasets.Dataset.from_list(rows) for name, rows in generated.items()}
    if source.files is not None:
        return {split: _read_files(split, paths) for split, paths in source.files.items()}
    assert source.hub is not None
    try:
        loaded = datasets.load_dataset(source.hub, source.config, revision=source.revision)
    except Exception as error:  # the library raises a dozen kinds for what a user can mend
        named = f"{source.hub}/{source.config}" if source.config else source.hub
        raise DataError(
            f"data.source.hub: {named} cannot be loaded from a folder, the cache or the hub "
            f"({_first_line(error)}); check the name, or fetch it where the hub can be reached"
        ) from error
    return {str(name): rows for name, rows in cast(Any, loaded).items()}


def _read_files(split: str, paths: str | tuple[str, ...]) -> "Dataset":
    import datasets

    files = [
        file
        for path in ([paths] if isinstance(paths, str) else paths)
        for file in _files_under(split, Path(path))
    ]
    kinds = sorted({_suffix(file) for file in files})
    if len(kinds) > 1:
        raise DataError(f"data.source.files.{split}: files of several kinds: {', '.join(kinds)}")
    kind = kinds.pop()
    try:
        return cast(
            "Dataset",
            datasets.load_dataset(
                READERS[kind],
                data_files=[str(file) for file in files],
                split="train",
                **(_csv_options(files[0], kind) if READERS[kind] == "csv" else {}),
            ),
        )
    except Exception as error:  # whatever the reader raises, the file is what to mend
        if "corresponds to no data" in str(error):
            raise DataError(f"data.source.files.{split}: no rows in {_names(files)}") from error
        raise DataError(
            f"data.source.files.{split}: {_names(files)} cannot be read as {kind[1:]}: "
            f"{_first_line(error.__cause__ or error)}"
        ) from error


def _csv_options(file: Path, kind: str) -> dict[str, Any]:
    """Returns how a table is read: every column as the text that stands there.

    Guessed types would make 01 a 1 and the word null a gap.
    """
    import csv

    import datasets
    import pandas as pd

    tabs: dict[str, Any] = {"sep": "\t", "quoting": csv.QUOTE_NONE} if kind == ".tsv" else {}
    names = pd.read_csv(file, nrows=0, **tabs).columns
    features = datasets.Features({name: datasets.Value("string") for name in names})
    return {"keep_default_na": False, "na_values": [], "features": features, **tabs}


def _files_under(split: str, path: Path) -> list[Path]:
    if path.is_dir():
        files = sorted(file for file in path.iterdir() if _suffix(file) in READERS)
        if not files:
            raise DataError(f"data.source.files.{split}: no data files in the folder {path}")
        return files
    if not path.is_file():
        raise DataError(f"data.source.files.{split}: there is no file {path}")
    if _suffix(path) not in READERS:
        raise DataError(
            f"data.source.files.{split}: {path.name} is of no known kind; use "
            f"{', '.join(READERS)}, plain or with .gz"
        )
    if path.stat().st_size == 0:
        raise DataError(f"data.source.files.{split}: {path} is empty")
    return [path]


def _names(files: list[Path]) -> str:
    return ", ".join(map(str, files))


def _suffix(path: Path) -> str:
    return (path.with_suffix("") if path.suffix == ".gz" else path).suffix.lower()


def _divide(rows: "Dataset", ratio: Ratio, name: str) -> "dict[str, Dataset]":
    try:
        return cast(Any, rows).train_test_split(test_size=ratio.ratio, seed=ratio.seed)
    except ValueError as error:
        raise DataError(
            f"data.split.{name}: {len(rows)} rows cannot give a part of {ratio.ratio}; use more "
            f"rows or another ratio"
        ) from error


def _first_line(error: BaseException) -> str:
    return next(iter(str(error).splitlines()), type(error).__name__)
