"""Counts rows that occur in two splits, or twice in one, by a hash of their text."""

import json
from collections.abc import Sequence
from itertools import combinations
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from datasets import Dataset

_FACTOR = np.uint64(0x9E3779B97F4A7C15)
"""Odd, so that the hash of a pair depends on each text and on their order."""


def notes_on_overlap(splits: "dict[str, Dataset]", columns: Sequence[str]) -> list[str]:
    """Returns a sentence for each pair of splits that share rows, by the text in `columns`.

    Rows without text are ignored. Each split is read once; memory is 8 bytes per row.
    """
    hashes = {name: row_hashes(rows, columns) for name, rows in splits.items()}
    notes: list[str] = []
    for name, other in combinations(hashes, 2):
        known = hashes[name][hashes[name] != 0]
        shared = int(np.isin(hashes[other], known).sum())
        if shared:
            total = len(hashes[other])
            number = f"all {total:,}" if shared == total else f"{shared:,} of {total:,}"
            notes.append(f"{number} {other} rows also occur in {name}")
    return notes


def row_hashes(rows: "Dataset", columns: Sequence[str]) -> np.ndarray:
    """Returns a hash of the values of each row in some columns, uint64 [rows]; 0 without text."""
    import datasets

    names = list(dict.fromkeys(columns))
    given: Any = rows.select_columns(names)
    order = given._indices  # where rows are a choice from a table, in the order of the disk
    if order is not None and len(rows) * 8 > given.data.num_rows:  # many times faster so
        whole = row_hashes(datasets.Dataset(given.data), names)
        return whole[order.column(0).to_numpy()]
    parts = [np.empty(0, np.uint64)]
    for table in given.with_format("arrow").iter(batch_size=10_000):
        found: Any = table
        made = np.zeros(len(found), np.uint64)
        blank = np.ones(len(found), bool)
        for name in names:
            hashed, empty = _hashed(found[name])
            made = made * _FACTOR + hashed
            blank &= empty
        parts.append(np.where(blank, np.uint64(0), made | np.uint64(1)))
    return np.concatenate(parts)


def num_contradictory(hashes: np.ndarray, labels: np.ndarray) -> int:
    """Returns the number of rows that share their text with a row of a different label."""
    order = np.lexsort([labels, hashes])
    texts, classes = hashes[order], labels[order]
    first = np.flatnonzero(np.r_[True, texts[1:] != texts[:-1]][: len(texts)])
    if len(first) == 0:
        return 0
    last = np.append(first[1:], len(texts)) - 1
    several = (classes[first] != classes[last]) & (texts[first] != 0)
    return int((last - first + 1)[several].sum())


def _hashed(column: Any) -> tuple[np.ndarray, np.ndarray]:
    """Returns a hash of each value, and which are empty."""
    import pyarrow as pa
    import pyarrow.compute as pc
    from pandas import util

    compute: Any = pc
    hashing: Any = util
    if pa.types.is_dictionary(column.type):
        column = column.cast(column.type.value_type)
    if not (pa.types.is_string(column.type) or pa.types.is_large_string(column.type)):
        values = [None if one is None else _as_text(one) for one in column.to_pylist()]
        column = pa.chunked_array([pa.array(values, pa.large_string())])
    column = compute.fill_null(column, "")
    empty = compute.equal(compute.utf8_trim_whitespace(column), "").to_numpy(zero_copy_only=False)
    texts = column.to_numpy(zero_copy_only=False)
    return hashing.hash_array(texts, categorize=False), empty.astype(bool)


def _as_text(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, sort_keys=True, default=str)
