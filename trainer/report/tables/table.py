"""Table: cells as data, which each kind of document shows in its own way."""

from collections.abc import Sequence
from dataclasses import dataclass

LEAST_P = 0.001
"""Smaller p-values are shown as "<0.001"."""


@dataclass(frozen=True, kw_only=True)
class Number:
    """A number, how many of its digits are shown, and its interval."""

    value: float
    digits: int = 4
    low: float | None = None
    high: float | None = None
    is_p: bool = False
    """Whether it is a p-value."""

    @property
    def main(self) -> str:
        """The number without its interval."""
        if self.is_p and self.value < LEAST_P:
            return f"<{LEAST_P}"
        return f"{self.value:,.{self.digits}f}"

    @property
    def interval(self) -> str:
        """The interval as "0.850–0.895"; empty if there is none."""
        if self.low is None or self.high is None:
            return ""
        dash = " to " if self.low < 0 else "–"
        return f"{self.low:,.{self.digits}f}{dash}{self.high:,.{self.digits}f}"

    def __str__(self) -> str:
        return f"{self.main} ({self.interval})" if self.interval else self.main


Cell = str | int | Number | None


@dataclass(frozen=True, kw_only=True)
class Column:
    title: str
    numeric: bool = False


@dataclass(frozen=True, kw_only=True)
class Table:
    """A table whose first column names its rows."""

    name: str
    """Name of its files, without an ending."""
    caption: str
    columns: tuple[Column, ...]
    rows: list[list[Cell]]
    marked: frozenset[int] = frozenset()
    """Positions of rows that stand out."""

    @property
    def texts(self) -> list[list[str]]:
        """The rows as they are shown, before a document escapes them."""
        return [[shown(cell) for cell in row] for row in self.rows]


def shown(cell: Cell) -> str:
    """Returns a cell as text; a missing one is empty."""
    if cell is None:
        return ""
    return f"{cell:,}" if isinstance(cell, int) else str(cell)


def columns(names: Sequence[str], numbers: Sequence[str] = ()) -> tuple[Column, ...]:
    """Returns columns of text and then columns of numbers."""
    texts = (Column(title=name) for name in names)
    return (*texts, *(Column(title=name, numeric=True) for name in numbers))


def digits_of(scale: str | None, value: float = 0.0) -> int:
    """Returns how many decimals are shown of a metric: 3 of shares, 2 of 0-100, else 4."""
    if scale == "0-1":
        return 3
    return 2 if scale == "0-100" or abs(value) >= 100 else 4
