"""The rows that a recipe's section `data` gives, for tests of sources."""

import json
from pathlib import Path
from typing import Any

from trainer.data.columns import ROW
from trainer.data.sources import load_splits
from trainer.recipe.data import Data

Rows = list[dict[str, Any]]


def splits_of(source: dict[str, Any], **split: Any) -> tuple[dict[str, Rows], list[str]]:
    """Returns the rows of each split, and the notes."""
    values = {"source": source, "split": {"validation": None, "test": None, **split}}
    splits, notes = load_splits(Data.model_validate_json(json.dumps(values)))
    return {name: rows.remove_columns(ROW).to_list() for name, rows in splits.items()}, notes


def rows_of(*files: Path, **source: Any) -> Rows:
    """Returns the train rows of files."""
    return splits_of({"files": {"train": [str(file) for file in files]}, **source})[0]["train"]


def notes_of(*files: Path, **source: Any) -> list[str]:
    return splits_of({"files": {"train": [str(file) for file in files]}, **source})[1]
