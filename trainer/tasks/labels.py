"""The labels of a column: their names, and how they stand in its rows."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from trainer.data.exclusion import value_text
from trainer.data.sources import row_number
from trainer.errors import DataError

if TYPE_CHECKING:
    from datasets import Dataset


def label_names(rows: "Dataset", column: str, *, skip_bad: bool = False) -> tuple[str, ...]:
    """Returns the labels of a column: its class names, or its values, numbers by size.

    Raises DataError for a row without a label, with `skip_bad` only where no row has one.
    """
    feature = rows.features[column]
    if getattr(feature, "names", None):
        return tuple(feature.names)
    values = list(rows[column])
    labels = {value for value in values if _is_label(value)}
    if not skip_bad or not labels:
        bad = next((row for row, value in enumerate(values) if not _is_label(value)), None)
        if bad is not None:
            several = isinstance(values[bad], list | dict)
            found = f"has {values[bad]!r}, not one label" if several else "has no label"
            raise DataError(
                f"the train split, row {row_number(rows, bad)}: the column {column} {found}; mend "
                f"or remove the row"
            )
    names = {value_text(value) for value in labels}
    if all(name.lstrip("-").isdigit() for name in names):
        return tuple(sorted(names, key=int))
    return tuple(sorted(names))


def label_indices(rows: "Dataset", column: str, labels: Sequence[str]) -> dict[str, int]:
    """Returns the index of each label as it stands in the rows: by name, or as an index.

    Numbers of a column with class names are indices of these, whose order may be another.
    """
    indices = {label: index for index, label in enumerate(labels)}
    names = getattr(rows.features[column], "names", None)
    if names is not None and set(names) == set(labels):
        return {str(number): indices[name] for number, name in enumerate(names)}
    if names is None and any(index_of(value, indices) >= 0 for value in rows[column]):
        return indices
    return {str(index): index for index in range(len(labels))}


def index_of(value: Any, indices: Mapping[str, int]) -> int:
    """Returns the index of what stands in a row, -1 where it is no label."""
    return indices.get(value_text(value), -1) if _is_label(value) else -1


def _is_label(value: Any) -> bool:
    if value is None or isinstance(value, list | dict):
        return False
    return value == value and bool(str(value).strip())  # NaN differs from itself
