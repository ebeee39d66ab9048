"""The labels of a column: their names, and how they stand in its rows."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from trainer.data.exclusion import value_text
from trainer.data.sources import row_number
from trainer.errors import DataError

if TYPE_CHECKING:
    from datasets import Dataset


def label_names(rows: "Dataset", column: str) -> tuple[str, ...]:
    """Returns the labels of a column: its class names, or its values, numbers by size."""
    feature = rows.features[column]
    if getattr(feature, "names", None):
        return tuple(feature.names)
    values = list(rows[column])
    for row, value in enumerate(values):
        if value is None or value != value or not str(value).strip():  # NaN differs from itself
            raise DataError(
                f"the train split, row {row_number(rows, row)}: the column {column} has no label; "
                f"mend or remove the row"
            )
    names = {value_text(value) for value in set(values)}
    if all(name.lstrip("-").isdigit() for name in names):
        return tuple(sorted(names, key=int))
    return tuple(sorted(names))


def label_indices(rows: "Dataset", column: str, labels: Sequence[str]) -> dict[str, int]:
    """Returns the index of each label as it stands in the rows: by name, or as an index.

    Numbers of a column with class names are indices.
    """
    indices = {label: index for index, label in enumerate(labels)}
    named = getattr(rows.features[column], "names", None) is None
    if named and any(value_text(value) in indices for value in set(rows[column])):
        return indices
    return {str(index): index for index in range(len(labels))}
