"""Splits without targets: a test split is set aside, a validation split is refused."""

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
    """Returns the splits, without the test if it lacks the target column, and a note about that.

    `target` is the key of that column in `columns`.
    """
    if target is None or "test" not in splits:
        return splits, []
    try:
        check_columns({"test": splits["test"]}, {target: columns[target]}, section="")
    except DataError as error:
        return _set_aside_test(splits, error.message)
    return splits, []


def lacks_targets(task: Task, splits: "Splits", *, test_named: bool) -> tuple["Splits", list[str]]:
    """Returns the splits, without the test if none of its rows has a target, and a note about that.

    Raises DataError if no row of the validation split has a target.
    """
    for name in ("validation", "test"):
        if name not in splits:
            continue
        named = name == "validation" or test_named
        reason = task.why_without_targets(splits[name], named=named)
        if reason is None:
            continue
        if name == "test":
            return _set_aside_test(splits, reason)
        raise DataError(
            f"data.split.validation: {reason}, and validation needs targets",
            key="data.split.validation",
            hint="name another split, take a part of train as {ratio: 0.1, seed: 1}, or set it to "
            "null",
        )
    return splits, []


def _set_aside_test(splits: "Splits", reason: str) -> tuple["Splits", list[str]]:
    kept = {name: rows for name, rows in splits.items() if name != "test"}
    return kept, [note_on_unused_test(len(splits["test"]), reason)]
