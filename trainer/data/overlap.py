"""Counts rows that occur in two splits, or twice in one, by a hash of their text."""

import json
from collections.abc import Sequence
from itertools import combinations
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from datasets import Dataset

_BETWEEN_WORDS = r"[^\pL\pM\pN]+"
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


def num_shared(
    splits: "dict[str, Dataset]", columns: Sequence[str], *, normalised: bool
) -> dict[str, int]:
    """Returns how many rows of each other split occur in `train`, by the text in `columns`.

    Rows without text do not. With `normalised`, texts are equal if they have the same letters and
    digits in the same order, in any case and form of Unicode, with anything else between the words.
    """
    hashes = {
        name: row_hashes(rows, columns, normalised=normalised) for name, rows in splits.items()
    }
    train = hashes.pop("train")
    known = train[train != 0]
    return {name: int(np.isin(others, known).sum()) for name, others in hashes.items()}


def row_hashes(rows: "Dataset", columns: Sequence[str], *, normalised: bool = False) -> np.ndarray:
    """Returns a hash of the values of each row in some columns, uint64 [rows]; 0 without text.

    `num_shared` says what `normalised` texts are.
    """
    import datasets

    names = list(dict.fromkeys(columns))
    selected: Any = rows.select_columns(names)
    order = selected._indices  # set if the rows are a selection from a table on disk
    if order is not None and len(rows) * 8 > selected.data.num_rows:
        # Hashing the whole table in its order on disk is many times faster.
        hashes = row_hashes(datasets.Dataset(selected.data), names, normalised=normalised)
        return hashes[order.column(0).to_numpy()]
    chunks = [np.empty(0, np.uint64)]
    for chunk in selected.with_format("arrow").iter(batch_size=10_000):
        table: Any = chunk
        hashes = np.zeros(len(table), np.uint64)
        blank = np.ones(len(table), bool)
        for name in names:
            column_hashes, empty = _hashed(table[name], normalised=normalised)
            hashes = hashes * _FACTOR + column_hashes
            blank &= empty
        chunks.append(np.where(blank, np.uint64(0), hashes | np.uint64(1)))
    return np.concatenate(chunks)


def num_contradictory(hashes: np.ndarray, labels: np.ndarray) -> int:
    """Returns the number of rows that share their text with a row of a different label."""
    order = np.lexsort([labels, hashes])
    texts, classes = hashes[order], labels[order]
    first = np.flatnonzero(np.r_[True, texts[1:] != texts[:-1]][: len(texts)])
    if len(first) == 0:
        return 0
    last = np.append(first[1:], len(texts)) - 1
    contradictory = (classes[first] != classes[last]) & (texts[first] != 0)
    return int((last - first + 1)[contradictory].sum())


def _hashed(column: Any, *, normalised: bool) -> tuple[np.ndarray, np.ndarray]:
    """Returns a hash of each value, uint64, and whether it is empty, bool."""
    import pyarrow as pa
    import pyarrow.compute as pc
    from pandas import util

    compute: Any = pc
    hashing: Any = util
    if pa.types.is_dictionary(column.type):
        column = column.cast(column.type.value_type)
    if not (pa.types.is_string(column.type) or pa.types.is_large_string(column.type)):
        values = [None if value is None else _as_text(value) for value in column.to_pylist()]
        column = pa.chunked_array([pa.array(values, pa.large_string())])
    column = compute.fill_null(column, "")
    if normalised:
        column = compute.utf8_lower(compute.utf8_normalize(column, "NFKC"))
        column = compute.replace_substring_regex(column, _BETWEEN_WORDS, " ")
        column = compute.utf8_trim_whitespace(column)
    empty = compute.equal(compute.utf8_trim_whitespace(column), "").to_numpy(zero_copy_only=False)
    texts = column.to_numpy(zero_copy_only=False)
    return hashing.hash_array(texts, categorize=False), empty.astype(bool)


def _as_text(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, sort_keys=True, default=str)
