"""Strict CSV and TSV: each cell is the text in the file, and errors name the line."""

import csv
from collections.abc import Generator, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from trainer.data.formats.reading import LONGEST_LINE, Tables, chunks_of, lines_of, shown
from trainer.errors import DataError
from trainer.recipe.data import Csv
from trainer.wording import listed

if TYPE_CHECKING:
    from datasets import Features

DELIMITERS = {",": "commas", ";": "semicolons", "\t": "tabs", "|": "bars"}


@dataclass(frozen=True)
class Dialect:
    """How lines of a table are split into cells."""

    delimiter: str
    quotechar: str | None
    encoding: str = "utf-8"
    header: bool = True
    guessed: bool = False
    """Whether the delimiter follows from the file's name rather than from the recipe."""

    def cells(self, lines: Iterable[str], delimiter: str | None = None) -> Iterator[list[str]]:
        return csv.reader(
            lines,
            delimiter=delimiter or self.delimiter,
            quotechar=self.quotechar,
            quoting=csv.QUOTE_NONE if self.quotechar is None else csv.QUOTE_MINIMAL,
            strict=True,
        )


def dialect_of(kind: str, settings: Csv | None) -> Dialect:
    """Returns the dialect of a kind of file; in .tsv, quotes are literal by default."""
    settings = settings or Csv()
    quotechar = settings.quotechar
    if quotechar == "auto":
        quotechar = None if kind == ".tsv" else '"'
    return Dialect(
        settings.delimiter or ("\t" if kind == ".tsv" else ","),
        quotechar,
        settings.encoding,
        settings.header,
        guessed=settings.delimiter is None,
    )


@dataclass
class Record:
    """One row: its cells and the lines it spans."""

    number: int
    """Number of its first line."""
    cells: list[str]
    lines: list[str]

    def is_blank(self) -> bool:
        return not self.cells or (len(self.cells) == 1 and not "".join(self.lines).strip(" \t\r\n"))


@dataclass
class Table:
    """A table in a file; `notes` is complete once `rows` is exhausted."""

    file: Path
    dialect: Dialect
    columns: list[str] = field(default_factory=list[str])
    notes: list[str] = field(default_factory=list[str])

    def __post_init__(self) -> None:
        records = self._records()
        head = next(records, None)
        if head is None:
            raise DataError(f"no rows in {shown(self.file)}", key=shown(self.file))
        if not self.dialect.header:
            self.columns = [str(index) for index in range(len(head.cells))]
            return
        self.columns = [name or f"Unnamed: {index}" for index, name in enumerate(head.cells)]
        row = next(records, None)
        if self.dialect.guessed and row is not None:
            self._check_delimiter([*head.lines, *row.lines])
        repeated = dict.fromkeys(name for name in self.columns if self.columns.count(name) > 1)
        if repeated:
            raise DataError(
                f"{self._place(head)} has several columns called {listed(repeated)}",
                key=shown(self.file),
                value=[*repeated],
                hint="give each column a name of its own",
            )

    def rows(self) -> Iterator[list[str]]:
        """Yields the cells of each row; raises DataError if a row has too many or too few."""
        records = self._records()
        if self.dialect.header:
            next(records)
        spanning, doubled = list[int](), list[int]()  # numbers of lines
        has_literal_quotes = False
        for record in records:
            if len(record.cells) != len(self.columns):
                raise self._wrong_size(record)
            if len(record.lines) > 1 and len(self.columns) > 1 and self._are_rows(record.lines):
                spanning.append(record.number)
            elif self.dialect.quotechar is None and '"' in record.lines[0]:
                cells = [cell for cell in record.cells if '"' in cell]
                has_literal_quotes = has_literal_quotes or not all(map(_is_enclosed, cells))
                if any('""' in cell[1:-1] for cell in cells):
                    doubled.append(record.number)
            yield record.cells
        if spanning:
            self.notes.append(
                f"{shown(self.file)}: {len(spanning)} quoted cells span lines that look like "
                f"separate rows, the first in line {spanning[0]}; if quotes are literal "
                f"characters, set data.source.csv: {{quotechar: null}}"
            )
        if doubled and not has_literal_quotes:
            self.notes.append(
                f"{shown(self.file)}: {len(doubled)} rows have cells in double quotes, which are "
                f"read as literal characters, the first in line {doubled[0]}; if they enclose "
                f"cells, set data.source.csv: {{quotechar: '\"'}}"
            )

    def _records(self) -> Iterator[Record]:
        """Yields the rows that are not blank, including the header."""
        lines: list[str] = []
        number = 1

        def recorded() -> Iterator[str]:
            for line in lines_of(self.file, self.dialect.encoding):
                lines.append(line)
                yield line

        cells = self.dialect.cells(recorded())
        ends: set[bool] = set()
        while True:
            try:
                record = Record(number, next(cells, []), [*lines])
            except csv.Error as error:
                raise DataError(
                    f"{shown(self.file)}, line {number}: a quote is not closed, or is followed by "
                    f"text ({error})",
                    key=shown(self.file),
                    value=number,
                    hint="double the quotes inside a quoted cell, or set data.source.csv: "
                    "{quotechar: null} if quotes are literal characters",
                ) from error
            if not lines:
                return
            number += len(lines)
            lines.clear()
            if record.is_blank():
                continue
            if not record.lines[-1].endswith(("\n", "\r")):
                yield record
                continue
            ends.add(record.lines[-1].endswith("\n"))
            if len(ends) > 1:
                raise DataError(
                    f"{self._place(record)}: some lines end with LF and some with a lone carriage "
                    f"return, which may be part of a cell",
                    key=shown(self.file),
                    value=record.number,
                    hint="remove it, or quote the cell",
                )
            yield record

    def _are_rows(self, lines: Sequence[str]) -> bool:
        size = len(self.columns)
        return all(line.count(self.dialect.delimiter) == size - 1 for line in lines)

    def _check_delimiter(self, lines: Sequence[str]) -> None:
        """Raises DataError if another delimiter splits header and first row into more cells."""
        for delimiter, name in DELIMITERS.items():
            if delimiter == self.dialect.delimiter:
                continue
            try:
                sizes = {len(cells) for cells in self.dialect.cells(lines, delimiter)}
            except csv.Error:
                continue
            if len(sizes) == 1 and sizes.pop() > len(self.columns):
                escaped = "\\t" if delimiter == "\t" else delimiter
                raise DataError(
                    f"{shown(self.file)}, line 1 is divided by {name}, not by "
                    f"{DELIMITERS.get(self.dialect.delimiter)}",
                    key=shown(self.file),
                    value=delimiter,
                    hint=f'set data.source.csv: {{delimiter: "{escaped}"}}',
                )

    def _wrong_size(self, record: Record) -> DataError:
        reference = "header" if self.dialect.header else "first row"
        name = DELIMITERS.get(self.dialect.delimiter, f"the delimiter {self.dialect.delimiter!r}")
        hint = f"quote cells that contain {name} or line breaks, or fix that line"
        if self.dialect.quotechar is None:
            hint = (
                "fix that line, or set data.source.csv: {quotechar: '\"'} if quotes enclose cells"
            )
        return DataError(
            f"{self._place(record)} has {len(record.cells)} cells, and the {reference} "
            f"{len(self.columns)}",
            key=shown(self.file),
            value=record.number,
            hint=hint,
        )

    def _place(self, record: Record) -> str:
        return f"{shown(self.file)}, line {record.number}"


def table_features(columns: Sequence[str]) -> "Features":
    """Returns features that are all text; inferred types would read 01 as 1 and null as None."""
    import datasets

    return datasets.Features({name: datasets.Value("string") for name in columns})


def read_tables(
    files: Sequence[Path], dialect: Dialect, notes: list[str]
) -> "tuple[Features, Tables]":
    """Returns the features and the rows of all files; notes are appended as rows are read."""
    with _long_cells():
        tables = [Table(file, dialect) for file in files]
    for table in tables[1:]:
        if set(table.columns) != set(tables[0].columns):
            raise DataError(
                f"{shown(table.file)} cannot be read with {shown(files[0])}: it has the columns "
                f"{listed(table.columns)}, and the other {listed(tables[0].columns)}",
                key=shown(table.file),
                value=table.columns,
                hint="give both the same columns",
            )
    return table_features(tables[0].columns), _chunks(tables, tables[0].columns, notes)


def table_rows(file: Path, dialect: Dialect) -> Iterator[dict[str, str]]:
    """Yields the rows of one file by column, with little of it in memory."""
    with _long_cells():
        table = Table(file, dialect)
        for cells in table.rows():
            yield dict(zip(table.columns, cells, strict=True))


def _chunks(tables: list[Table], columns: list[str], notes: list[str]) -> Tables:
    import pyarrow as pa

    schema = table_features(columns).arrow_schema
    with _long_cells():
        for table in tables:
            indices = [table.columns.index(name) for name in columns]
            for chunk in chunks_of(table.rows(), _length):
                cells = list(zip(*chunk, strict=True))
                arrays = [pa.array(cells[index], pa.string()) for index in indices]
                yield pa.Table.from_arrays(arrays, schema=schema)
            notes += table.notes


def _length(row: list[str]) -> int:
    return sum(map(len, row))


def check_table(file: Path, dialect: Dialect) -> None:
    """Raises DataError if the rows of a table differ in their number of cells."""
    with _long_cells():
        for _ in Table(file, dialect).rows():
            pass


def _is_enclosed(cell: str) -> bool:
    """Returns whether a cell is in quotes and every quote inside it is doubled."""
    return len(cell) > 1 and cell[0] == cell[-1] == '"' and '"' not in cell[1:-1].replace('""', "")


@contextmanager
def _long_cells() -> Generator[None]:
    """Context manager: lets the csv module read cells as long as a line may be."""
    before = csv.field_size_limit(LONGEST_LINE)
    try:
        yield
    finally:
        csv.field_size_limit(before)
