"""Fingerprints of an exported folder: the size and checksum of each file that a model is read from.

The card, its evaluation results, the record of the export and hidden files are left out: they may
be edited, and change no answer of the model.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from trainer.files.kept_folder import checksum, files_below

RECORD = "export.json"
"""What `trainer export` writes into a folder: what was exported and how it was verified."""
UNLISTED = ("README.md", RECORD)


def fingerprints(folder: Path) -> dict[str, dict[str, Any]]:
    """Returns {"bytes", "xxh3"} of each file of a folder, by its path in the folder.

    Raises OSError if a file cannot be read.
    """
    return {name: checksum(folder / name) for name in _names(folder)}


def changed_files(folder: Path, recorded: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Returns the files of a folder that were changed, removed or added since their fingerprints
    were recorded, sorted by name.

    Raises OSError if a file cannot be read.
    """
    names = set(_names(folder))
    sizes = {name: (folder / name).stat().st_size for name in names & recorded.keys()}
    return sorted(
        name
        for name in names | recorded.keys()
        if name not in sizes
        or sizes[name] != recorded[name].get("bytes")
        or checksum(folder / name) != recorded[name]
    )


def _names(folder: Path) -> list[str]:
    return sorted(
        name
        for name in files_below(folder)
        if name not in UNLISTED and not any(part.startswith(".") for part in Path(name).parts)
    )
