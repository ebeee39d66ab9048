"""Data sets from the hub, its cache, or a folder laid out like a hub data set."""

import csv
import os
import re
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from trainer.data.files import first_line, read_arrow, read_files
from trainer.data.formats.csv_files import Dialect, check_table
from trainer.data.formats.json_files import json_rows_of
from trainer.data.formats.json_tables import reads_the_same
from trainer.data.formats.reading import file_size, is_file, is_folder, shown
from trainer.data.formats.saved import is_saved, is_saved_dict, saved_files, saved_splits
from trainer.data.kept_rows import checked_once, quiet
from trainer.errors import DataError
from trainer.recipe.data import Source
from trainer.wording import excerpt

if TYPE_CHECKING:
    from datasets import Dataset

NAME = re.compile(r"[\w.-]+(/[\w.-]+){0,2}")
COMPRESSED = (".bz2", ".xz", ".zst", ".lz4", ".zip", ".7z")
PATTERN = re.compile(r"[*?\[\]]|::")
"""Characters that the library interprets as a pattern or a chain of protocols."""


def load_hub(source: Source) -> "tuple[dict[str, Dataset], list[str]]":
    """Returns the splits of a hub data set, or of a folder of that name, and notes on them.

    Raises DataError, with the key data.source.hub, if it cannot be loaded.
    """
    assert source.hub is not None
    folder = Path(source.hub)
    try:
        if is_folder(folder):
            return _splits_of_folder(folder, source), []
        return _splits_of_hub(source.hub, source)
    except DataError as error:
        raise error.under("data.source.hub") from error


def _splits_of_hub(name: str, source: Source) -> "tuple[dict[str, Dataset], list[str]]":
    from datasets import packaged_modules

    if is_file(Path(name)):
        raise DataError(
            f"{shown(Path(name))} is a file",
            value=name,
            hint="name it in data.source.files, as {train: FILE}",
        )
    if not NAME.fullmatch(name):
        raise DataError(
            f"{shown(Path(name))} is neither a folder nor the name of a hub data set",
            value=name,
            hint="write OWNER/NAME, or name files in data.source.files",
        )
    if is_folder(Path(packaged_modules.__file__).parent / name):
        raise DataError(
            f"{name} is a format, for which the library would read files of the working directory",
            value=name,
            hint="name the files in data.source.files",
        )
    base, _, subset = name.rpartition("/")
    if "/" in base and source.config is None:  # the hub has names of two parts at most
        note = f"data.source.hub: {name} is read as hub: {base}, config: {subset}"
        return _loaded(base, source.model_copy(update={"config": subset})), [note]
    try:
        return _loaded(name, source), []
    except DataError as error:
        if not base or source.config is not None:
            raise
        hint = f"if {subset} is a subset of {base}, set hub: {base} and config: {subset}"
        raise DataError(excerpt(error, 300), value=name, hint=hint) from error


def _loaded(name: str, source: Source) -> "dict[str, Dataset]":
    import datasets

    try:
        with quiet():
            loaded = datasets.load_dataset(name, source.config, revision=source.revision)
    except Exception as error:  # the library raises a dozen types for what a user can fix
        full_name = f"{name}/{source.config}" if source.config else name
        raise DataError(
            f"{excerpt(full_name, 150)} cannot be loaded from a folder, the cache or the hub "
            f"({excerpt(first_line(error), 150)})",
            value=full_name,
            hint="check the name and your access to it, or run `trainer prepare RECIPE` on a "
            "machine that reaches the hub",
        ) from error
    return {str(split): rows for split, rows in cast(Any, loaded).items()}


def _splits_of_folder(folder: Path, source: Source) -> "dict[str, Dataset]":
    saved: dict[str, Path] = {}
    if is_saved_dict(folder):
        saved = saved_splits(folder)
    elif is_saved(folder):
        saved = {"train": folder}
    if saved and source.config is not None:
        raise DataError(
            f"{shown(folder)} was saved by save_to_disk and has no config",
            value=source.config,
            hint="leave it out",
        )
    if saved:
        return {name: read_arrow(saved_files(part)) for name, part in saved.items()}
    if PATTERN.search(str(folder)):
        raise DataError(
            f"{shown(folder)}: the library reads a path with *, ?, [, ] or :: as a pattern",
            value=str(folder),
            hint="rename it, or name its files in data.source.files",
        )
    for path in folder.rglob("*"):
        if path.exists() and not path.is_dir():
            file_size(path)
    return _checked(folder, source)


def _checked(folder: Path, source: Source) -> "dict[str, Dataset]":
    """Returns the splits of a folder; raises DataError if the library would change its rows."""
    import datasets

    try:
        with quiet():
            builder: Any = datasets.load_dataset_builder(str(folder), source.config)
    except Exception:  # loading raises it again, with a message
        return _loaded(str(folder), source)
    files: dict[str, list[Path]] = {
        str(split): [Path(os.path.normpath(file)) for file in names]
        for split, names in (builder.config.data_files or {}).items()
    }
    for file in chain.from_iterable(files.values()):
        if not file.is_relative_to(os.path.normpath(folder.absolute())):
            raise DataError(
                f"{shown(folder)}: its README.md names {shown(file)}, which is outside the folder",
                key=shown(folder / "README.md"),
                value=shown(file),
                hint="name it in data.source.files",
            )
        if PATTERN.search(str(file)):
            raise DataError(
                f"{shown(file)}: the library reads a name with *, ?, [, ] or :: as a pattern",
                value=str(file),
                hint="rename it, or name it in data.source.files",
            )
        _check_file(file, builder)
    loaded = _loaded(str(folder), source)
    typed = builder.config.features is not None or builder.info.features is not None
    if builder.name == "json" and builder.config.field is None and not typed:
        for split, names in files.items():
            if split in loaded:
                loaded[split] = _unchanged(loaded[split], names)
    return loaded


def _check_file(file: Path, builder: Any) -> None:
    settings = builder.config
    if file.suffix in COMPRESSED:  # only the library reads these
        return
    if builder.name == "json" and settings.field is None:
        # Every row is read first: the library may crash on invalid files.
        checked_once([file], {"rows": "all"}, lambda: sum(map(len, json_rows_of([file]))))
    elif builder.name == "csv" and settings.header in ("infer", 0):
        dialect = Dialect(
            settings.delimiter or settings.sep,
            None if settings.quoting == csv.QUOTE_NONE else settings.quotechar,
            settings.encoding or "utf-8",
        )
        checked_once([file], vars(dialect), lambda: check_table(file, dialect))


class _ChangedError(Exception):
    """The library changes values of a file."""


def _unchanged(rows: "Dataset", files: list[Path]) -> "Dataset":
    """Returns the rows of JSON files with the values in the files.

    These are `rows`, as the library reads them, unless it changed some, such as dates.
    """
    if {plain_name(file) for file in files} != {file.name for file in files}:
        return rows

    def compare() -> None:
        if not reads_the_same(rows, lambda: json_rows_of(files)):
            raise _ChangedError

    try:
        checked_once(files, {"library": True}, compare)
    except _ChangedError:
        return read_files("train", [str(file) for file in files])[0]
    return rows


def plain_name(file: Path) -> str:
    """Returns the name of a file without the suffix of a compression."""
    return file.stem if file.suffix in COMPRESSED else file.name
