"""Rows of one file or of standard input, one after the other: any number needs little memory.

The values are those that `read_files` gives, but for columns of numbers: here an integer stays one
if other rows hold fractions.
"""

import base64
import itertools
import json
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import date, datetime, time
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, cast

from trainer.data.columns import ROW
from trainer.data.files import READERS, check_file, first_line, kind_of
from trainer.data.formats.csv_files import dialect_of, table_rows
from trainer.data.formats.json_files import json_rows_of, rows_of_lines
from trainer.data.formats.json_tables import own_tables
from trainer.data.formats.reading import (
    faults_named,
    is_folder,
    lines_of,
    numbered_lines,
    opened,
    shown,
)
from trainer.data.formats.squad_json import is_squad_json, read_squad_json
from trainer.errors import DataError
from trainer.recipe.data import Csv
from trainer.wording import excerpt

if TYPE_CHECKING:
    from datasets import Dataset

Row = dict[str, Any]
"""The values of a row by column: those of JSON."""

STANDARD_INPUT = "standard input"


def check_streamable(file: Path) -> None:
    """Raises DataError unless a file is of a kind that `streamed_rows` reads."""
    if is_folder(file):
        raise DataError(f"{shown(file)} is a folder", key=shown(file), hint="name one of its files")
    check_file(file)


def holds_lines(file: Path) -> bool:
    """Returns whether the rows of a file are plain lines, without columns."""
    return READERS[kind_of(file)] == "text"


def streamed_rows(file: Path, csv: Csv | None = None) -> Iterator[Row]:
    """Yields the rows of a file; those of plain lines have the column `text`.

    A .json file is read into memory whole, all others in parts. Raises DataError, which names the
    file and if possible the line, for a file that cannot be read.
    """
    check_streamable(file)
    kind = kind_of(file)
    if READERS[kind] == "csv":
        yield from table_rows(file, dialect_of(kind, csv))
    elif holds_lines(file):
        yield from ({"text": line.rstrip("\r\n")} for line in lines_of(file))
    elif kind == ".json" and is_squad_json(file):
        yield from cast(Iterable[Row], read_squad_json([file]))
    elif READERS[kind] == "json":
        yield from json_rows_of([file])
    else:
        yield from _arrow_rows(file, kind)


def rows_of_input(stream: IO[bytes]) -> tuple[Iterator[Row], bool]:
    """Returns the rows of standard input, and whether they are plain lines.

    They are JSON Lines if the first line that is not blank starts with a brace, and otherwise a
    text a line, in the column `text`.
    """
    lines = numbered_lines(stream, STANDARD_INPUT)
    first = list[tuple[int, bytes]]()
    for numbered in lines:
        first.append(numbered)
        if numbered[1].strip():
            break
    every = itertools.chain(first, lines)
    if first and first[-1][1].removeprefix(b"\xef\xbb\xbf").lstrip().startswith(b"{"):
        return rows_of_lines(every, STANDARD_INPUT), False
    return _rows_of_text(every), True


def plain(value: Any) -> Any:
    """Returns a value as JSON holds it: dates as text, bytes in base64, NaN and infinities as
    null."""
    if value is None or isinstance(value, str | bool | int):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in cast(Mapping[Any, Any], value).items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in cast(Sequence[Any], value)]
    if isinstance(value, datetime | date | time):
        return value.isoformat()
    if isinstance(value, bytes):
        return base64.b64encode(value).decode()
    if hasattr(value, "tolist"):  # numpy
        return plain(value.tolist())
    return str(value)


def as_json(row: Row) -> str:
    """Returns a row as JSON on one line; NaN and infinities, which JSON lacks, become null."""
    try:
        return json.dumps(row, ensure_ascii=False, allow_nan=False)
    except ValueError:
        return json.dumps(plain(row), ensure_ascii=False)


def dataset_of(rows: Sequence[Row], numbers: Sequence[int]) -> "Dataset":
    """Returns rows as a Dataset in memory, which knows their numbers in the source."""
    import datasets
    import pyarrow as pa

    features, tables = own_tables(lambda: iter(rows))
    table = pa.concat_tables(tables)
    dataset = datasets.Dataset(table, info=datasets.DatasetInfo(features=features))
    return cast(Any, dataset).add_column(ROW, list(numbers))


def _rows_of_text(lines: Iterable[tuple[int, bytes]]) -> Iterator[Row]:
    for number, line in lines:
        content = line.removeprefix(b"\xef\xbb\xbf") if number == 1 else line
        try:
            text = content.decode()
        except UnicodeDecodeError as error:
            raise DataError(
                f"{STANDARD_INPUT}, line {number} is not UTF-8 text",
                key=STANDARD_INPUT,
                value=number,
                hint="convert it to UTF-8",
            ) from error
        yield {"text": text.rstrip("\r\n")}


def _arrow_rows(file: Path, kind: str) -> Iterator[Row]:
    import pyarrow as pa
    from pyarrow import parquet

    try:
        with faults_named(file), opened(file) as stream:
            if kind == ".parquet":
                batches: Any = parquet.ParquetFile(stream).iter_batches(batch_size=1000)
            else:
                batches = _arrow_batches(stream)
            for batch in batches:
                names = batch.schema.names
                if len(set(names)) < len(names):
                    raise pa.ArrowInvalid("several columns have the same name")
                yield from (plain(row) for row in batch.to_pylist())
    except (pa.ArrowException, UnicodeDecodeError, OverflowError) as error:
        raise DataError(
            f"{shown(file)} cannot be read as {kind[1:]}: {excerpt(first_line(error), 200)}",
            key=shown(file),
            hint="write it again",
        ) from error


def _arrow_batches(stream: IO[bytes]) -> Any:
    import pyarrow as pa

    start = stream.read(6)
    stream.seek(0)
    if start != b"ARROW1":
        return pa.ipc.open_stream(stream)
    reader = pa.ipc.open_file(stream)
    return (reader.get_batch(index) for index in range(reader.num_record_batches))
