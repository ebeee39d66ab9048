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
    examples themselves if their rows are not known."""
    rows = split.columns.get("row")
    numbers = list(ids)
    known = isinstance(rows, np.ndarray) and split.rows is not None
    if isinstance(rows, np.ndarray) and split.rows is not None:
        indices = dict.fromkeys(int(rows[index]) for index in ids)
        numbers = [row_number(split.rows, index) for index in list(indices)[:MOST]]
    shown = [f"{number:,}" for number in numbers[:MOST]]
    text = ", ".join(shown[:-1]) + " and " * (len(shown) > 1) + shown[-1]
    return f"{'row' if known else 'example'}{'s' * (len(shown) > 1)} {text}"
