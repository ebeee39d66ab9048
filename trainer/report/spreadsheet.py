"""Tables of a report as CSV, with all digits, and safe to open in a spreadsheet."""

import csv
import io

from trainer.report.markup import plain
from trainer.report.tables.table import Cell, Number, Table

FORMULA = ("=", "+", "-", "@", "\t", "\r")
"""How a text begins that a spreadsheet would compute."""


def csv_table(table: Table) -> str:
    """Returns a table as CSV. A column with intervals is followed by columns of their ends."""
    with_interval = [
        any(isinstance(cell := row[i], Number) and cell.interval for row in table.rows)
        for i in range(len(table.columns))
    ]
    titles: list[str] = []
    for column, wide in zip(table.columns, with_interval, strict=True):
        title = _safe(column.title)
        titles += [title, f"{title} low", f"{title} high"] if wide else [title]
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(titles)
    for row in table.rows:
        values: list[str | int | float | None] = []
        for cell, wide in zip(row, with_interval, strict=True):
            values += _values(cell, wide)
        writer.writerow(values)
    return buffer.getvalue()


def _values(cell: Cell, wide: bool) -> list[str | int | float | None]:
    if isinstance(cell, Number):
        return [cell.value, *([cell.low, cell.high] if wide else [])]
    value = _safe(cell) if isinstance(cell, str) else cell
    return [value, *([None, None] if wide else [])]


def _safe(text: str) -> str:
    """Returns a text that a spreadsheet shows: an apostrophe keeps it from being a formula."""
    return f"'{plain(text)}" if text.startswith(FORMULA) else plain(text)
