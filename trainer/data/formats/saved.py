"""Folders written by `save_to_disk`: of one Dataset, or of a DatasetDict."""

import json
from pathlib import Path
from typing import Any

from trainer.data.formats.reading import file_size, is_file, shown
from trainer.errors import DataError
from trainer.wording import excerpt, listed

SYNONYMS = {
    "validation": ("valid", "dev", "val"),
    "test": ("testing", "eval", "evaluation"),
}
"""Name of a split to others that the datasets library reads as that split in a folder of files."""

SAVE_AGAIN = "save the data set again"


def is_saved(folder: Path) -> bool:
    """Returns whether a folder holds one Dataset."""
    return is_file(folder / "state.json") and is_file(folder / "dataset_info.json")


def is_saved_dict(folder: Path) -> bool:
    """Returns whether a folder holds a DatasetDict."""
    return is_file(folder / "dataset_dict.json")


def saved_files(folder: Path) -> list[Path]:
    """Returns the files with the rows of one Dataset, in order."""
    entries = _list_in(folder / "state.json", "_data_files")
    files = [folder / _name(entry, folder) for entry in entries]
    if not files:
        raise DataError(f"no rows in {shown(folder)}", key=shown(folder))
    for file in files:
        file_size(file)
    return files


def saved_splits(folder: Path) -> dict[str, Path]:
    """Returns the folders of the splits of a DatasetDict, by their names and by usual synonyms."""
    index = folder / "dataset_dict.json"
    splits: dict[str, Path] = {}
    for name in _list_in(index, "splits"):
        if not isinstance(name, str) or Path(name).name != name or name == "..":
            raise DataError(
                f"{shown(folder)}: {excerpt(name)} cannot be the name of a split",
                key=shown(index),
                value=name,
                hint=SAVE_AGAIN,
            )
        if not is_saved(folder / name):
            raise DataError(
                f"{shown(folder)} has no split {excerpt(name)}, which its {index.name} names",
                key=shown(index),
                value=name,
                hint=SAVE_AGAIN,
            )
        splits[name] = folder / name
    for usual, synonyms in SYNONYMS.items():
        present = [name for name in synonyms if name in splits]
        if usual not in splits and present:
            splits[usual] = splits[present[0]]
    return splits


def _name(entry: Any, folder: Path) -> str:
    name = entry.get("filename") if isinstance(entry, dict) else None
    if not isinstance(name, str) or Path(name).name != name or not name.endswith(".arrow"):
        file = folder / "state.json"
        raise DataError(
            f"{shown(file)}: {excerpt(entry)} is not an .arrow file in the folder",
            key=shown(file),
            value=entry,
            hint=SAVE_AGAIN,
        )
    return name


def _list_in(file: Path, key: str) -> list[Any]:
    try:
        content = json.loads(file.read_text("utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise DataError(
            f"{shown(file)} cannot be read ({excerpt(error)})", key=shown(file), hint=SAVE_AGAIN
        ) from error
    if not isinstance(content, dict) or not isinstance(content.get(key), list):
        value = listed(content) if isinstance(content, dict) else "another value"
        raise DataError(
            f"{shown(file)} has no list {key}, but {value}",
            key=shown(file),
            value=key,
            hint=SAVE_AGAIN,
        )
    return content[key]
