"""The labels of a column: their names, and how its rows refer to them."""

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, cast

from trainer.data.exclusion import value_text
from trainer.data.sources import row_number
from trainer.errors import DataError
from trainer.tasks.classification.label_checks import (
    MOST_LABELS,
    ONE_LABEL,
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
    """Returns the labels of a column: its class names or else its values, sorted; numbers by value.

    Raises DataError if a row has no label (with `skip_bad`, only if no row has one) and, if
    `checked`, for values that do not look like classes.
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
        problem, hint = in_place_of_label(bad[1])
        raise DataError(
            f"the train split, row {row_number(rows, bad[0])}: the column {column} {problem}",
            key="data.columns.label",
            value=bad[1],
            hint=hint,
        )
    if checked:
        wrong = problem_of_labels(first, len(rows), lambda label: row_number(rows, first[label]))
        if wrong is not None:
            problem, hint = wrong
            raise DataError(
                f"data.columns.label: the column {column} of the train split {problem}",
                key="data.columns.label",
                value=column,
                hint=hint,
            )
    if all(re.fullmatch(r"-?\d{1,300}", name) for name in first):
        return tuple(sorted(first, key=int))
    numbers = {name: number_of(name) for name in first}
    if checked and None not in numbers.values():
        return tuple(sorted(first, key=lambda name: (numbers[name] or 0.0, name)))
    return tuple(sorted(first))


def label_indices(
    rows: "Dataset", column: str, labels: Sequence[str], *, checked: bool = True
) -> dict[str, int]:
    """Returns the index of each label by how the rows write it: its name, or its position.

    The numbers in a column with class names are positions among these names, whose order may differ
    from that of `labels`.
    """
    indices = {label: index for index, label in enumerate(labels)}
    names = class_names(rows, column)
    if names is not None and set(names) == set(labels):
        return {str(number): indices[name] for number, name in enumerate(names)}
    by_position = {str(index): index for index in range(len(labels))}
    if checked:
        for index, label in enumerate(labels):
            indices.setdefault(plain_text(label.strip()), index)
        by_folded = {folded(label): index for index, label in enumerate(labels)}
        if names is not None and any(folded(name) in by_folded for name in names):
            return {
                str(number): by_folded[folded(name)]
                for number, name in enumerate(names)
                if folded(name) in by_folded
            }
        if names is None and all(number_of(label) is not None for label in labels):
            return indices
    if names is None:
        values = _values(rows, column)
        if any(index_of(value, indices, checked=checked) >= 0 for value in values):
            return indices
    return by_position


def index_of(value: Any, indices: Mapping[str, int], *, checked: bool = True) -> int:
    """Returns the index of the label that a row holds, -1 if its value is not a label."""
    if not is_label(value):
        return -1
    text = value_text(value)
    index = indices.get(text, -1)
    return indices.get(plain_text(text), -1) if index < 0 and checked else index


def class_names(rows: "Dataset", column: str) -> Sequence[str] | None:
    """Returns the class names of a ClassLabel column; None for other columns."""
    return getattr(rows.features[column], "names", None)


def is_label(value: Any) -> bool:
    """Returns whether a value can name one class: it is not empty, a list or bytes."""
    if value is None or isinstance(value, list | dict | bytes):
        return False
    return value == value and bool(str(value).strip())  # NaN differs from itself


def in_place_of_label(value: Any) -> tuple[str, str]:
    """Returns what a row has in place of a label, and what to do about it."""
    if isinstance(value, list | dict | bytes):
        problem = f"has {excerpt(repr(value))}, not one label"
        return problem, f"{ONE_LABEL}: name a column with one, or fix the row"
    problem = f"has {value}, which means no label" if is_label(value) else "has no label"
    return problem, "fix or remove the row"


def in_place_of_labels(
    rows: "Dataset", column: str, indices: Mapping[str, int], *, checked: bool
) -> str | None:
    """Returns what all rows of a split have in place of labels, such as -1 or nothing.

    None if a row has a label, or if the values differ by more than being empty.
    """
    texts: set[str] = set()
    for value in _values(rows, column):
        if index_of(value, indices, checked=checked) >= 0 or isinstance(value, list | dict):
            return None
        texts.add(value_text(value) if is_label(value) else "")
        if len(texts) > 2 or (len(texts) == 2 and "" not in texts):
            return None
    return " or ".join(repr(text) if text else "nothing" for text in sorted(texts, reverse=True))


def _values(rows: "Dataset", column: str) -> Iterator[Any]:
    for chunk in rows.select_columns([column]).iter(batch_size=10_000):
        yield from cast(dict[str, list[Any]], chunk)[column]
