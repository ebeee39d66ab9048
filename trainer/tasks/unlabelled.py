"""Splits without what is to be answered: a test is set aside, others are refused."""

from collections.abc import Mapping
from typing import TYPE_CHECKING

from trainer.data.columns import check_columns
from trainer.data.sources import note_on_unused_test
from trainer.errors import DataError
from trainer.recipe.data import Column
from trainer.tasks.base import Task

if TYPE_CHECKING:
    from datasets import Dataset

Splits = dict[str, "Dataset"]


def lacks_column(
    target: str | None, columns: Mapping[str, Column | None], splits: "Splits"
) -> tuple["Splits", list[str]]:
    """Returns the splits without a test that lacks the column of the targets, and a note on it.

    `target` is the key of that column in `columns`.
    """
    if target is None or "test" not in splits:
        return splits, []
    try:
        check_columns({"test": splits["test"]}, {target: columns[target]}, section="")
    except DataError as error:
        return _aside(splits, str(error))
    return splits, []


def lacks_targets(task: Task, splits: "Splits", *, test_named: bool) -> tuple["Splits", list[str]]:
    """Returns the splits without a test none of whose rows has a target, and a note on it.

    Raises DataError for a validation split without any.
    """
    for name in ("validation", "test"):
        if name not in splits:
            continue
        named = name == "validation" or test_named
        found = task.without_targets(splits[name], named=named)
        if found is None:
            continue
        if name == "test":
            return _aside(splits, found)
        raise DataError(
            f"data.split.validation: {found}, and a validation needs what is to be answered; name "
            f"another split, take a part of train as {{ratio: 0.1, seed: 1}}, or set it to null"
        )
    return splits, []


def _aside(splits: "Splits", reason: str) -> tuple["Splits", list[str]]:
    kept = {name: rows for name, rows in splits.items() if name != "test"}
    return kept, [note_on_unused_test(len(splits["test"]), reason)]
