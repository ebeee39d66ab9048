"""CSV and TSV read strictly: every cell the text that stands there, or a sentence with the line."""

import csv
from collections.abc import Generator, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from trainer.data.formats.reading import LONGEST_LINE, Tables, lines_of, shown
from trainer.errors import DataError
from trainer.recipe.schema import Csv
from trainer.wording import listed

if TYPE_CHECKING:
    from datasets import Features

DELIMITERS = {",": "commas", ";": "semicolons", "\t": "tabs", "|": "bars"}
CHUNK_ROWS = 10_000
CHUNK_CHARACTERS = 16 * 2**20


@dataclass(frozen=True)
class Dialect:
    """How the lines of a table are divided into cells."""

    delimiter: str
    quotechar: str | None
    encoding: str = "utf-8"
    header: bool = True
    guessed: bool = False
    """Whether the delimiter follows from the name of the file only."""

    def cells(self, lines: Iterable[str], delimiter: str | None = None) -> Iterator[list[str]]:
        return csv.reader(
            lines,
            delimiter=delimiter or self.delimiter,
            quotechar=self.quotechar,
            quoting=csv.QUOTE_NONE if self.quotechar is None else csv.QUOTE_MINIMAL,
            strict=True,
        )


def dialect_of(kind: str, given: Csv | None) -> Dialect:
    """Returns how files of a kind are read; in .tsv, quotes are characters unless a recipe says."""
    given = given or Csv()
    quotechar = given.quotechar
    if quotechar == "auto":
        quotechar = None if kind == ".tsv" else '"'
    return Dialect(
        given.delimiter or ("\t" if kind == ".tsv" else ","),
        quotechar,
        given.encoding,
        given.header,
        guessed=given.delimiter is None,
    )


@dataclass
class Record:
    """One row: its cells, and the lines on which it stands."""

    number: int
    """Of its first line."""
    cells: list[str]
    lines: list[str]

    def is_blank(self) -> bool:
        return not self.cells or (len(self.cells) == 1 and not "".join(self.lines).strip(" \t\r\n"))


@dataclass
class Table:
    """A table in a file: `columns` names its cells, and `notes` is complete after `rows`."""

    file: Path
    dialect: Dialect
    columns: list[str] = field(default_factory=list[str])
    notes: list[str] = field(default_factory=list[str])

    def __post_init__(self) -> None:
        records = self._records()
        head = next(records, None)
        if head is None:
            raise DataError(f"no rows in {shown(self.file)}")
        if not self.dialect.header:
            self.columns = [str(place) for place in range(len(head.cells))]
            return
        self.columns = [name or f"Unnamed: {place}" for place, name in enumerate(head.cells)]
        row = next(records, None)
        if self.dialect.guessed and row is not None:
            self._check_delimiter([*head.lines, *row.lines])
        twice = dict.fromkeys(name for name in self.columns if self.columns.count(name) > 1)
        if twice:
            raise DataError(
                f"{self._place(head)} has several columns called {listed(twice)}; give each column "
                f"a name of its own"
            )

    def rows(self) -> Iterator[list[str]]:
        """Yields the cells of each row; raises DataError for one of another number of cells."""
        records = self._records()
        if self.dialect.header:
            next(records)
        swallowed: list[int] = []
        doubled, literal = list[int](), False
        for record in records:
            if len(record.cells) != len(self.columns):
                raise DataError(self._wrong_size(record))
            if len(record.lines) > 1 and len(self.columns) > 1 and self._are_rows(record.lines):
                swallowed.append(record.number)
            elif self.dialect.quotechar is None and '"' in record.lines[0]:
                cells = [cell for cell in record.cells if '"' in cell]
                literal = literal or not all(map(_is_enclosed, cells))
                if any('""' in cell[1:-1] for cell in cells):
                    doubled.append(record.number)
            yield record.cells
        if swallowed:
            self.notes.append(
                f"{shown(self.file)}: {len(swallowed)} quoted cells hold line breaks between what "
                f"may be rows of their own, the first in line {swallowed[0]}; if quotes are "
                f"characters, set data.source.csv: {{quotechar: null}}"
            )
        if doubled and not literal:
            self.notes.append(
                f"{shown(self.file)}: {len(doubled)} rows have cells in double quotes, which are "
                f"read as characters, the first in line {doubled[0]}; if they enclose cells, set "
                f"data.source.csv: {{quotechar: '\"'}}"
            )

    def _records(self) -> Iterator[Record]:
        """Yields the rows that are not blank, the header among them."""
        lines: list[str] = []
        number = 1

        def seen() -> Iterator[str]:
            for line in lines_of(self.file, self.dialect.encoding):
                lines.append(line)
                yield line

        cells = self.dialect.cells(seen())
        ends: set[bool] = set()
        while True:
            try:
                record = Record(number, next(cells, []), [*lines])
            except csv.Error as error:
                raise DataError(
                    f"{shown(self.file)}, line {number}: a quote is not closed, or text stands "
                    f"after it ({error}); write quotes inside a quoted cell twice, or set "
                    f"data.source.csv: {{quotechar: null}} if quotes are characters"
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
                    f"return, which may be a part of a cell; remove it, or quote the cell"
                )
            yield record

    def _are_rows(self, lines: Sequence[str]) -> bool:
        size = len(self.columns)
        return all(line.count(self.dialect.delimiter) == size - 1 for line in lines)

    def _check_delimiter(self, lines: Sequence[str]) -> None:
        """Raises DataError if another delimiter divides header and first row alike into more."""
        for other, name in DELIMITERS.items():
            if other == self.dialect.delimiter:
                continue
            try:
                sizes = {len(cells) for cells in self.dialect.cells(lines, other)}
            except csv.Error:
                continue
            if len(sizes) == 1 and sizes.pop() > len(self.columns):
                written = "\\t" if other == "\t" else other
                raise DataError(
                    f"{shown(self.file)}, line 1 is divided by {name}, not by "
                    f"{DELIMITERS.get(self.dialect.delimiter)}; set data.source.csv: "
                    f'{{delimiter: "{written}"}}'
                )

    def _wrong_size(self, record: Record) -> str:
        named = "header" if self.dialect.header else "first row"
        name = DELIMITERS.get(self.dialect.delimiter, f"the delimiter {self.dialect.delimiter!r}")
        mend = f"quote cells that have {name} or line breaks in them, or mend that line"
        if self.dialect.quotechar is None:
            mend = (
                "mend that line, or set data.source.csv: {quotechar: '\"'} if quotes enclose cells"
            )
        return (
            f"{self._place(record)} has {len(record.cells)} cells, and the {named} "
            f"{len(self.columns)}; {mend}"
        )

    def _place(self, record: Record) -> str:
        return f"{shown(self.file)}, line {record.number}"


def table_features(columns: Sequence[str]) -> "Features":
    """Returns the kinds of columns: text, for guessed types would make 01 a 1 and null a gap."""
    import datasets

    return datasets.Features({name: datasets.Value("string") for name in columns})


def read_tables(
    files: Sequence[Path], dialect: Dialect, notes: list[str]
) -> "tuple[Features, Tables]":
    """Returns the kinds of the columns, and the rows of all files; `notes` grows with them."""
    with _long_cells():
        tables = [Table(file, dialect) for file in files]
    for table in tables[1:]:
        if set(table.columns) != set(tables[0].columns):
            raise DataError(
                f"{shown(table.file)} cannot be read with {shown(files[0])}: it has the columns "
                f"{listed(table.columns)}, and the other {listed(tables[0].columns)}"
            )
    return table_features(tables[0].columns), _chunks(tables, tables[0].columns, notes)


def _chunks(tables: list[Table], columns: list[str], notes: list[str]) -> Tables:
    import pyarrow as pa

    schema = table_features(columns).arrow_schema
    with _long_cells():
        for table in tables:
            places = [table.columns.index(name) for name in columns]
            for chunk in _several(table.rows()):
                cells = list(zip(*chunk, strict=True))
                arrays = [pa.array(cells[place], pa.string()) for place in places]
                yield pa.Table.from_arrays(arrays, schema=schema)
            notes += table.notes


def _several(rows: Iterable[list[str]]) -> Iterator[list[list[str]]]:
    chunk, size = list[list[str]](), 0
    for row in rows:
        chunk.append(row)
        size += sum(map(len, row))
        if len(chunk) == CHUNK_ROWS or size > CHUNK_CHARACTERS:
            yield chunk
            chunk, size = [], 0
    if chunk:
        yield chunk


def check_table(file: Path, dialect: Dialect) -> None:
    """Raises DataError if a table is not one of equally long rows."""
    with _long_cells():
        for _ in Table(file, dialect).rows():
            pass


def _is_enclosed(cell: str) -> bool:
    """Returns whether a cell is one in quotes, with each quote inside written twice."""
    return len(cell) > 1 and cell[0] == cell[-1] == '"' and '"' not in cell[1:-1].replace('""', "")


@contextmanager
def _long_cells() -> Generator[None]:
    """Lets the csv module read cells of any length that a line can have."""
    before = csv.field_size_limit(LONGEST_LINE)
    try:
        yield
    finally:
        csv.field_size_limit(before)
