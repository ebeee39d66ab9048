"""Excludes rows by the value of a column, such as SNLI's pairs without a label."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from trainer.data.columns import resolve_columns
from trainer.errors import DataError

if TYPE_CHECKING:
    from datasets import Dataset

Excluded = Mapping[str, Sequence[str | int | float]]
"""Column to the values whose rows are excluded."""


def value_text(value: Any) -> str:
    """Returns a value as text: 1, 1.0 and "1" are one value."""
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return str(value).strip()


def exclude(rows: "Dataset", excluded: Excluded, split: str) -> "tuple[Dataset, str | None]":
    """Returns the rows that are not excluded, and a sentence that counts the excluded ones.

    The columns must have passed `check_columns`. Raises DataError if no row is left.
    """
    plain = resolve_columns(rows, {column: column for column in excluded})
    kept = np.ones(len(rows), bool)
    counts: Counter[str] = Counter()
    for column, values in excluded.items():
        recipe_texts = _texts_in(plain, column, values)
        index = 0
        for chunk in plain.select_columns([column]).iter(batch_size=10_000):
            for value in cast(dict[str, list[Any]], chunk)[column]:
                text = None if value is None else value_text(value)
                if text in recipe_texts:
                    kept[index] = False
                    counts[f"{column} {recipe_texts[text]}"] += 1
                index += 1
    if kept.all():
        return rows, None
    reasons = ", ".join(f"{value} ({count})" for value, count in counts.items())
    if not kept.any():
        raise DataError(
            f"data.exclude: no row of the {split} split is left without {reasons}",
            key="data.exclude",
            value=excluded,
        )
    note = f"{np.sum(~kept)} of {len(rows)} {split} rows were left out by data.exclude: {reasons}"
    return rows.select(np.flatnonzero(kept)), note


def _texts_in(rows: "Dataset", column: str, values: Sequence[Any]) -> dict[str | None, str]:
    """Returns the values in the form that the column holds, each with the recipe's own text.

    A column with class names holds their indices.
    """
    names: Sequence[str] = getattr(rows.features[column], "names", None) or ()
    return {
        str(names.index(text)) if text in names and not text.isdigit() else text: text
        for text in map(value_text, values)
    }
