"""The identity of a command's answers: all that they depend on, by content."""

import importlib.metadata
from pathlib import Path
from typing import Any

from trainer.data.formats.reading import faults_named
from trainer.files.kept_folder import checksum
from trainer.prediction.loading import LoadedModel
from trainer.prediction.source import Source


def identity_of(file: Path, source: Source, loaded: LoadedModel) -> dict[str, Any]:
    """Returns what the answers to the rows of a file depend on, as JSON has it.

    Raises DataError if a file cannot be read.
    """
    return {
        "input": _checksum(file),
        "model": _checksums(source.model, loaded),
        "settings": loaded.recipe.model_dump(mode="json"),
        "precision": loaded.precision,
        "version": importlib.metadata.version("trainer"),
    }


def _checksums(name: str, loaded: LoadedModel) -> dict[str, Any]:
    """Returns the checksum of each file in the folder of a model; for a hub name, its commit."""
    folder = Path(name)
    if not folder.is_dir():
        return {name: getattr(loaded.model.config, "_commit_hash", None)}
    files = sorted(path for path in folder.iterdir() if path.is_file() and path.suffix != ".md")
    return {path.name: _checksum(path) for path in files}


def _checksum(file: Path) -> dict[str, int | str]:
    with faults_named(file):
        return checksum(file)
