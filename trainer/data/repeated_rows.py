"""Rows of train that occur again in another split, where they show memory, not learning."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from trainer.config import Columns
from trainer.data.columns import column_name

if TYPE_CHECKING:
    from datasets import Dataset

TOLD = 0.1
"""Share of a split from which a note tells of it; short texts repeat by chance."""

CONTENT = ("text", "text_pair", "question", "context", "messages")
"""Columns that say whether two rows are the same, whatever their labels and names."""


def repeated_rows(splits: "Mapping[str, Dataset]", columns: Columns) -> list[str]:
    """Returns a sentence for each split of which many rows are also in train.

    Rows without any text are not counted.
    """
    settings = [getattr(columns, key) for key in CONTENT]
    wanted = [column_name(column) for column in settings if column is not None]
    names = [name for name in wanted if all(name in rows.column_names for rows in splits.values())]
    others = [name for name in splits if name != "train"]
    if not names or not others:
        return []
    train = _hashes(splits["train"], names)
    notes: list[str] = []
    for name in others:
        hashes = _hashes(splits[name], names)
        count = int(np.isin(hashes, train).sum())
        if count and count >= TOLD * len(hashes):
            notes.append(
                f"{count} of {len(hashes)} {name} rows are also in train ({', '.join(names)}): "
                f"measured on them, a model may have learned by heart"
            )
    return notes


def _hashes(rows: "Dataset", names: list[str]) -> np.ndarray:
    """Returns a hash of each row that has text."""
    from pandas import DataFrame
    from pandas.util import hash_pandas_object

    hashed: Any = hash_pandas_object
    parts: list[np.ndarray] = []
    for chunk in rows.select_columns(names).iter(batch_size=10_000):
        values = cast(dict[str, list[Any]], chunk)
        texts = {name: list(map(_text, values[name])) for name in names}
        filled = [any(map(str.strip, row)) for row in zip(*texts.values(), strict=True)]
        parts.append(hashed(DataFrame(texts), index=False).to_numpy()[filled])
    return np.concatenate(parts) if parts else np.empty(0, np.uint64)


def _text(value: Any) -> str:
    return value if isinstance(value, str) else "" if value is None else repr(value)
