"""Rows of a split, some at a time, with their numbers in the source."""

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, cast

from trainer.data.columns import ROW
from trainer.data.encoded import EncodedColumns, Summary

if TYPE_CHECKING:
    from datasets import Dataset


def texts_of(rows: "Dataset", column: str, summary: Summary) -> Iterator[list[tuple[int, str]]]:
    """Returns the texts of a column with the number of their row, some at a time.

    A row without text is rejected.
    """
    for numbers, chunk in numbered(rows, [column]):
        found: list[tuple[int, str]] = []
        for number, text in zip(numbers, chunk[column], strict=True):
            if isinstance(text, str) and text.strip():
                found.append((number, text))
            else:
                summary.reject(
                    f"row {number}: the column {column} has no text; fix or remove the row, or "
                    f"set data.documents where it separates documents"
                )
        yield found


def numbered(rows: "Dataset", columns: Sequence[str]) -> Iterator[tuple[list[int], EncodedColumns]]:
    """Returns the rows some at a time: their numbers in the source, and columns of values."""
    number = [ROW] if ROW in rows.column_names else []
    names = list(dict.fromkeys([*columns, *number]))
    first = 1
    for chunk in rows.select_columns(names).iter(batch_size=1000):
        values = cast(dict[str, list[Any]], chunk)
        size = len(values[names[0]])
        yield values.get(ROW) or list(range(first, first + size)), values
        first += size
