"""Folders that `save_to_disk` wrote: of one Dataset, or of a DatasetDict."""

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
"""Names of splits that the library takes for the usual ones in a folder of plain files."""


def is_saved(folder: Path) -> bool:
    """Returns whether a folder holds one Dataset."""
    return is_file(folder / "state.json") and is_file(folder / "dataset_info.json")


def is_saved_dict(folder: Path) -> bool:
    """Returns whether a folder holds a DatasetDict."""
    return is_file(folder / "dataset_dict.json")


def saved_files(folder: Path) -> list[Path]:
    """Returns the files with the rows of one Dataset, in order."""
    listed_files = _content(folder / "state.json", "_data_files", list)
    files = [folder / _name(one, folder) for one in listed_files]
    if not files:
        raise DataError(f"no rows in {shown(folder)}")
    for file in files:
        file_size(file)
    return files


def saved_splits(folder: Path) -> dict[str, Path]:
    """Returns the folders of the splits of a DatasetDict by their names, usual ones included."""
    names = _content(folder / "dataset_dict.json", "splits", list)
    splits: dict[str, Path] = {}
    for name in names:
        if not isinstance(name, str) or Path(name).name != name or name == "..":
            raise DataError(f"{shown(folder)}: {excerpt(name)} cannot be the name of a split")
        if not is_saved(folder / name):
            raise DataError(
                f"{shown(folder)} has no split {excerpt(name)}, which its dataset_dict.json names; "
                f"save it again"
            )
        splits[name] = folder / name
    for usual, others in SYNONYMS.items():
        known = [name for name in others if name in splits]
        if usual not in splits and known:
            splits[usual] = splits[known[0]]
    return splits


def _name(entry: Any, folder: Path) -> str:
    name = entry.get("filename") if isinstance(entry, dict) else None
    if not isinstance(name, str) or Path(name).name != name or not name.endswith(".arrow"):
        raise DataError(
            f"{shown(folder / 'state.json')}: {excerpt(entry)} names no .arrow file of the folder"
        )
    return name


def _content(file: Path, key: str, kind: type) -> Any:
    try:
        content = json.loads(file.read_text("utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise DataError(f"{shown(file)} cannot be read ({excerpt(error)})") from error
    if not isinstance(content, dict) or not isinstance(content.get(key), kind):
        has = listed(content) if isinstance(content, dict) else "another value"
        raise DataError(f"{shown(file)} has no list {key}, but {has}; save the data set again")
    return content[key]
