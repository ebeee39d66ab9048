"""The labels of a column: their names, and how they stand in its rows."""

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, cast

from trainer.data.exclusion import value_text
from trainer.data.sources import row_number
from trainer.errors import DataError
from trainer.tasks.classification.label_checks import (
    MOST_LABELS,
    folded,
    number_of,
    plain_text,
    problem_of_labels,
)
from trainer.wording import excerpt

if TYPE_CHECKING:
    from datasets import Dataset


def label_names(
    rows: "Dataset", column: str, *, skip_bad: bool = False, checked: bool = True
) -> tuple[str, ...]:
    """Returns the labels of a column: its class names, or its values, numbers by size.

    Raises DataError for a row without a label, with `skip_bad` only where no row has one, and with
    `checked` for values that look like something else than classes.
    """
    feature = rows.features[column]
    if getattr(feature, "names", None):
        return tuple(feature.names)
    first: dict[str, int] = {}
    """Each label, with the index of its first row."""
    bad: tuple[int, Any] | None = None
    for index, value in enumerate(_values(rows, column)):
        if not is_label(value) or (checked and value_text(value) == "-100"):
            bad = bad or (index, value)
        else:
            first.setdefault(value_text(value), index)
            if checked and len(first) > MOST_LABELS:
                break
    if bad is not None and not (skip_bad and first):
        raise DataError(
            f"the train split, row {row_number(rows, bad[0])}: the column {column} "
            f"{what_stands(bad[1])}"
        )
    if checked:
        problem = problem_of_labels(first, len(rows), lambda one: row_number(rows, first[one]))
        if problem is not None:
            raise DataError(f"data.columns.label: the column {column} of the train split {problem}")
    if all(re.fullmatch(r"-?\d{1,300}", name) for name in first):
        return tuple(sorted(first, key=int))
    numbers = {name: number_of(name) for name in first}
    if checked and None not in numbers.values():
        return tuple(sorted(first, key=lambda name: (numbers[name] or 0.0, name)))
    return tuple(sorted(first))


def label_indices(
    rows: "Dataset", column: str, labels: Sequence[str], *, checked: bool = True
) -> dict[str, int]:
    """Returns the index of each label as it stands in the rows: by name, or as an index.

    Numbers of a column with class names are indices of these, whose order may be another.
    """
    indices = {label: index for index, label in enumerate(labels)}
    names = class_names(rows, column)
    if names is not None and set(names) == set(labels):
        return {str(number): indices[name] for number, name in enumerate(names)}
    by_position = {str(index): index for index in range(len(labels))}
    if checked:
        for index, label in enumerate(labels):
            indices.setdefault(plain_text(label.strip()), index)
        same = {folded(label): index for index, label in enumerate(labels)}
        if names is not None and any(folded(name) in same for name in names):
            return {
                str(number): same[folded(name)]
                for number, name in enumerate(names)
                if folded(name) in same
            }
        if names is None and all(number_of(label) is not None for label in labels):
            return indices
    if names is None:
        values = _values(rows, column)
        if any(index_of(value, indices, checked=checked) >= 0 for value in values):
            return indices
    return by_position


def index_of(value: Any, indices: Mapping[str, int], *, checked: bool = True) -> int:
    """Returns the index of what stands in a row, -1 where it is no label."""
    if not is_label(value):
        return -1
    text = value_text(value)
    found = indices.get(text, -1)
    return indices.get(plain_text(text), -1) if found < 0 and checked else found


def class_names(rows: "Dataset", column: str) -> Sequence[str] | None:
    """Returns the names of a column of classes, None for other columns."""
    return getattr(rows.features[column], "names", None)


def is_label(value: Any) -> bool:
    """Returns whether a value names one class, and is neither empty nor several."""
    if value is None or isinstance(value, list | dict | bytes):
        return False
    return value == value and bool(str(value).strip())  # NaN differs from itself


def what_stands(value: Any) -> str:
    """Returns what a row has in place of a label, and what to do about it."""
    if isinstance(value, list | dict | bytes):
        return (
            f"has {excerpt(repr(value))}, not one label; classification takes one label a row, and "
            f"several are not supported yet: name a column with one, or fix the row"
        )
    found = "has no label" if not is_label(value) else f"has {value}, which stands for no label"
    return f"{found}; fix or remove the row"


def what_stands_for_none(rows: "Dataset", column: str, indices: Mapping[str, int]) -> str | None:
    """Returns what the rows of a split have in place of labels, such as -1 or nothing; None where
    a row has a label, or what they have differs."""
    found: set[str] = set()
    for value in _values(rows, column):
        if index_of(value, indices) >= 0 or isinstance(value, list | dict):
            return None
        found.add(value_text(value) if is_label(value) else "")
        if len(found) > 2 or (len(found) == 2 and "" not in found):
            return None
    return " or ".join(repr(text) if text else "nothing" for text in sorted(found, reverse=True))


def _values(rows: "Dataset", column: str) -> Iterator[Any]:
    for chunk in rows.select_columns([column]).iter(batch_size=10_000):
        yield from cast(dict[str, list[Any]], chunk)[column]
