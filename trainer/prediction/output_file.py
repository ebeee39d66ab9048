"""The output file: parts joined in order, as JSON Lines, a table or Parquet.

It appears under its name only when it is complete.
"""

import csv
import json
import shutil
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from trainer.data.formats.reading import shown
from trainer.errors import ConfigError
from trainer.files.durable import flush
from trainer.files.plain import remove

KINDS = (".jsonl", ".csv", ".tsv", ".parquet")
"""Suffixes of an output file; one with another name holds JSON Lines."""


def check_output(output: Path, file: Path, *, overwrite: bool) -> None:
    """Raises ConfigError if an output cannot have this name, exists and may not be replaced, or is
    the input `file`."""
    try:
        if output.is_dir():
            problem, hint = "is a folder", "name a file"
        elif not output.name or not output.parent.is_dir():
            problem, hint = f"has no folder {shown(output.parent)}", "create the folder first"
        elif output.exists() and not output.is_file():
            problem, hint = "is a pipe or a device", "redirect standard output in place of it"
        elif output.suffix == ".gz":
            problem, hint = "would be compressed", f"end the name in {', '.join(KINDS)}"
        elif output.exists() and file.exists() and output.samefile(file):
            problem, hint = "is the input", "name another file"
        elif output.exists() and not overwrite:
            problem, hint = "exists", "name another file, or replace it with --overwrite"
        else:
            return
    except (OSError, ValueError) as error:  # a name too long, a NUL in it
        problem, hint = f"cannot be written ({getattr(error, 'strerror', error)})", "rename it"
    raise ConfigError(
        f"--output: {shown(output)} {problem}", key="--output", value=str(output), hint=hint
    )


def join(parts: Sequence[Path], output: Path) -> None:
    """Writes the rows of all parts to the output, in the format that its suffix names."""
    staging = output.with_name(f".{output.name}.staging")
    kind = output.suffix.lower()
    remove(staging)
    try:
        if kind in (".csv", ".tsv"):
            _write_table(parts, staging, "\t" if kind == ".tsv" else ",")
        elif kind == ".parquet":
            _write_parquet(parts, staging)
        else:
            _write_lines(parts, staging)
        flush(staging)
        staging.replace(output)
    finally:
        remove(staging)


def _write_lines(parts: Sequence[Path], file: Path) -> None:
    with file.open("xb") as joined:
        for part in parts:
            with part.open("rb") as opened:
                shutil.copyfileobj(opened, joined, 2**20)


def _rows(part: Path) -> Iterator[dict[str, Any]]:
    with part.open("rb") as opened:
        yield from map(json.loads, opened)


def _columns(parts: Sequence[Path]) -> list[str]:
    """Returns the names in any row, in the order in which they occur first."""
    names: dict[str, None] = {}
    for part in parts:
        for row in _rows(part):
            names |= dict.fromkeys(row)
    return list(names)


def _write_table(parts: Sequence[Path], file: Path, delimiter: str) -> None:
    columns = _columns(parts)
    with file.open("x", encoding="utf-8", newline="") as opened:
        writer = csv.writer(opened, delimiter=delimiter, lineterminator="\n")
        if columns:
            writer.writerow(columns)
        for part in parts:
            writer.writerows([_cell(row.get(name)) for name in columns] for row in _rows(part))


def _cell(value: Any) -> str:
    if value is None:
        return ""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _write_parquet(parts: Sequence[Path], file: Path) -> None:
    import pyarrow as pa
    from pyarrow import parquet

    schema, as_text = _schema(parts)
    with parquet.ParquetWriter(file, schema) as writer:
        for part in parts:
            rows = [_with_text(row, as_text) for row in _rows(part)]
            writer.write_table(pa.Table.from_pylist(rows, schema=schema))


def _schema(parts: Sequence[Path]) -> tuple[Any, set[str]]:
    """Returns the schema of all rows, and the columns that are kept as JSON text: no type of
    Parquet holds all of their values."""
    import pyarrow as pa

    types: dict[str, Any] = {}
    as_text = set[str]()
    for widen in (True, False):  # an integer may not fit the type that a later part needs
        for part in parts:
            for name, values in _cells(part).items():
                try:
                    types[name] = _type_of(values, types.get(name, pa.null()), widen=widen)
                except (pa.ArrowException, OverflowError):
                    as_text.add(name)
                    types.setdefault(name, pa.null())
    fields = [(name, pa.string() if name in as_text else kind) for name, kind in types.items()]
    return pa.schema(fields), as_text


def _cells(part: Path) -> dict[str, list[Any]]:
    """Returns the values of each column in one part."""
    cells: dict[str, list[Any]] = {}
    for row in _rows(part):
        for name, value in row.items():
            cells.setdefault(name, []).append(value)
    return cells


def _type_of(values: Sequence[Any], known: Any, *, widen: bool) -> Any:
    """Returns the type `known`, made wider if need be and if `widen`.

    Raises ArrowException or OverflowError if it does not hold the values, or if Parquet lacks it.
    """
    import pyarrow as pa
    from pyarrow import parquet

    if not widen:
        return pa.array(values, type=known).type
    schemas = [pa.schema([("", kind)]) for kind in (known, pa.array(values).type)]
    schema = pa.unify_schemas(schemas, promote_options="permissive")
    with parquet.ParquetWriter(pa.BufferOutputStream(), schema):
        return schema.field(0).type


def _with_text(row: Mapping[str, Any], as_text: set[str]) -> dict[str, Any]:
    return {
        name: json.dumps(value, ensure_ascii=False)
        if name in as_text and value is not None
        else value
        for name, value in row.items()
    }
