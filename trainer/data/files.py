"""Rows from local files and folders of one kind, plain or with .gz."""

from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from trainer.data.json_files import problem_in
from trainer.data.squad_json import is_squad_json, read_squad_json
from trainer.errors import DataError

if TYPE_CHECKING:
    from datasets import Dataset

READERS = {
    ".json": "json",
    ".jsonl": "json",
    ".csv": "csv",
    ".tsv": "csv",
    ".parquet": "parquet",
    ".txt": "text",
    ".raw": "text",
    ".tokens": "text",
}


def read_files(split: str, paths: str | tuple[str, ...]) -> "Dataset":
    """Returns the rows of a split from its files, one below the other, those of folders by name.

    Raises DataError that names the file, and where it can the line, that cannot be used.
    """
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
    squad = [file for file in files if kind == ".json" and is_squad_json(file)]
    if squad:
        return _read_squad(split, files, squad)
    try:
        rows = datasets.load_dataset(
            READERS[kind],
            data_files=[str(file) for file in files],
            split="train",
            **(_csv_options(files[0], kind) if READERS[kind] == "csv" else {}),
        )
        if READERS[kind] == "json":  # the only reader that lets bytes pass that are no text
            for table in cast(Any, rows).with_format("arrow").iter(batch_size=10_000):
                table.validate(full=True)
        return cast("Dataset", rows)
    except Exception as error:  # whatever the reader raises, the file is what to mend
        if "corresponds to no data" in str(error):
            raise DataError(f"data.source.files.{split}: no rows in {_names(files)}") from error
        if READERS[kind] == "json":
            for file in files:
                if problem := problem_in(file, lines=kind == ".jsonl"):
                    raise DataError(f"data.source.files.{split}: {file}, {problem}") from error
        raise DataError(
            f"data.source.files.{split}: {_names(files)} cannot be read as {kind[1:]}: "
            f"{first_line(error.__cause__ or error)}"
        ) from error


def _read_squad(split: str, files: list[Path], squad: list[Path]) -> "Dataset":
    others = [file for file in files if file not in squad]
    if others:
        raise DataError(
            f"data.source.files.{split}: {_names(squad)} in the format of SQuAD, and "
            f"{_names(others)} not; give files of one format"
        )
    try:
        rows = read_squad_json(files)
    except DataError as error:
        raise DataError(f"data.source.files.{split}: {error}") from error
    if len(rows) == 0:
        raise DataError(f"data.source.files.{split}: no rows in {_names(files)}")
    return rows


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


def first_line(error: BaseException) -> str:
    """Returns what an error of a library says, as one line."""
    return next(iter(str(error).splitlines()), type(error).__name__)
