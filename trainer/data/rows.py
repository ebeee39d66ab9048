"""Rows of a split in chunks, with their numbers in the source."""

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, cast

from trainer.data.columns import ROW
from trainer.data.encoded import EncodedColumns, Summary
from trainer.errors import DataError

if TYPE_CHECKING:
    from datasets import Dataset


def texts_of(rows: "Dataset", column: str, summary: Summary) -> Iterator[list[tuple[int, str]]]:
    """Yields chunks of the texts of a column, each with the number of its row.

    Rows without text are rejected.
    """
    for numbers, chunk in numbered(rows, [column]):
        texts: list[tuple[int, str]] = []
        for number, text in zip(numbers, chunk[column], strict=True):
            if isinstance(text, str) and text.strip():
                texts.append((number, text))
            else:
                summary.reject(
                    DataError(
                        f"row {number}: the column {column} has no text",
                        key="data.columns.text",
                        value=text,
                        hint="fix or remove the row, or set data.documents if it separates "
                        "documents",
                    )
                )
        yield texts


def numbered(rows: "Dataset", columns: Sequence[str]) -> Iterator[tuple[list[int], EncodedColumns]]:
    """Yields chunks of rows: their numbers in the source, and columns of values."""
    number = [ROW] if ROW in rows.column_names else []
    names = list(dict.fromkeys([*columns, *number]))
    first = 1
    for chunk in rows.select_columns(names).iter(batch_size=1000):
        values = cast(dict[str, list[Any]], chunk)
        size = len(values[names[0]])
        yield values.get(ROW) or list(range(first, first + size)), values
        first += size
