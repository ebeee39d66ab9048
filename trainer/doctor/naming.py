"""Names of examples in messages: the rows of the source that they come from."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from trainer.data.sources import row_number

if TYPE_CHECKING:
    from trainer.data.encoded import PreparedSplit

MOST = 3


def names_of(split: "PreparedSplit", ids: Sequence[int]) -> str:
    """Returns the first rows that the examples `ids` come from, such as "rows 3, 8 and 12"; the
    ids of the examples if their rows are not known."""
    indices = _rows(split, ids)
    if indices is None:
        return _joined("example", list(ids[:MOST]))
    return _joined("row", [row_number(split.rows, index) for index in indices[:MOST]])


def _rows(split: "PreparedSplit", ids: Sequence[int]) -> list[int] | None:
    """Returns the indices of the rows of examples, each once; None if they are not known."""
    if split.rows is None:
        return None
    rows = split.columns.get("row")
    if isinstance(rows, np.ndarray):
        return list(dict.fromkeys(int(rows[index]) for index in ids))
    # Instructions have an example for each row, unless some are packed or were skipped.
    each = "learned" in split.columns and "position_ids" not in split.columns
    return list(ids) if each and len(split) == len(split.rows) else None


def _joined(what: str, numbers: Sequence[int]) -> str:
    shown = [f"{number:,}" for number in numbers]
    text = ", ".join(shown[:-1]) + " and " * (len(shown) > 1) + shown[-1]
    return f"{what}{'s' * (len(shown) > 1)} {text}"
