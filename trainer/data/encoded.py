"""Tokenised splits: written once under a hash of their content and read memory-mapped."""

import json
from collections.abc import Callable, Iterable, Mapping
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, BinaryIO, Literal

import numpy as np

from trainer.errors import DataError
from trainer.files.cache import cache_folder, content_key
from trainer.files.kept_folder import checksums, write_once
from trainer.files.plain import read_json
from trainer.wording import excerpt

EncodedColumns = Mapping[str, list[Any]]
"""Name of a column to one entry per example: a scalar or a list of ints."""


@dataclass
class Summary:
    """Counts that a task keeps while it encodes a split."""

    on_bad_example: Literal["error", "skip"] = field(default="error", repr=False)
    num_truncated: int = 0
    longest: int = 0
    """Tokens of the longest example before truncation."""
    num_skipped: int = 0
    first_skipped: str = ""
    remarks: dict[str, list[Any]] = field(default_factory=dict)
    """Properties of some rows: name to [number of rows, end of a sentence about them]."""

    def remark(self, name: str, what: str) -> None:
        """Counts a row of which `what` is true; keeps the first `what` of each name."""
        self.remarks.setdefault(name, [0, what])[0] += 1

    def reject(self, problem: DataError) -> None:
        """Raises the problem or, with `on_bad_example` skip, counts the example."""
        if self.on_bad_example == "error":
            raise problem
        self.num_skipped += 1
        self.first_skipped = self.first_skipped or str(problem)

    def measure(self, length: int, max_length: int) -> None:
        """Counts an example of `length` tokens that is truncated to `max_length`."""
        self.longest = max(self.longest, length)
        self.num_truncated += length > max_length


@dataclass(frozen=True)
class Ragged:
    """A column of sequences: entry i is values[offsets[i]:offsets[i + 1]]."""

    values: np.ndarray
    offsets: np.ndarray

    def __getitem__(self, index: int) -> np.ndarray:
        return self.values[self.offsets[index] : self.offsets[index + 1]]


@dataclass(frozen=True)
class PreparedSplit:
    """A tokenised split; columns are arrays, or Ragged if their entries differ in length."""

    columns: Mapping[str, np.ndarray | Ragged]
    summary: Summary
    rows: Any = None
    """The rows it was encoded from, for what needs their text."""
    digests: Mapping[str, str] = field(default_factory=dict[str, str])
    """Hashes of its `rows` and of their `tokens`."""

    @cached_property
    def lengths(self) -> np.ndarray:
        """Number of tokens of each example, [examples]."""
        return np.diff(self.ragged("input_ids").offsets)

    def __len__(self) -> int:
        return len(self.lengths)

    def ragged(self, name: str) -> Ragged:
        column = self.columns[name]
        assert isinstance(column, Ragged)
        return column

    def array(self, name: str) -> np.ndarray:
        column = self.columns[name]
        assert isinstance(column, np.ndarray)
        return column


def encode_once(
    key: str, encode: Callable[[Summary], Iterable[EncodedColumns]], summary: Summary | None = None
) -> PreparedSplit:
    """Returns the split cached under `key`, calling `encode` if it is missing.

    `encode` yields columns for some examples at a time, so that a split need not fit into memory.
    Raises DataError if it yields no example.
    """
    counted = summary or Summary()

    def write(folder: Path) -> None:
        _write(folder, encode(counted), counted)

    return _open(write_once(cache_folder() / "prepared" / key, write))


def encode_in_memory(
    chunks: Iterable[EncodedColumns], summary: Summary, rows: Any = None
) -> PreparedSplit:
    """Returns a split that is kept in memory; it has no columns if `chunks` hold no example."""
    entries: dict[str, list[Any]] = {}
    for columns in chunks:
        for name, values in columns.items():
            entries.setdefault(name, []).extend(values)
    columns = {name: _array(values) for name, values in entries.items() if values}
    return PreparedSplit(columns, summary, rows=rows)


def _array(entries: list[Any]) -> np.ndarray | Ragged:
    if not isinstance(entries[0], list):
        return np.asarray(entries)
    values = np.fromiter((value for entry in entries for value in entry), np.int32)
    lengths = np.fromiter(map(len, entries), np.int64, len(entries))
    return Ragged(values, np.concatenate([[0], lengths.cumsum()]))


def _write(folder: Path, chunks: Iterable[EncodedColumns], summary: Summary) -> None:
    """Writes each column as raw numbers: one file of values, one of the end of each entry."""
    kinds: dict[str, str] = {}
    with ExitStack() as stack:
        files: dict[str, tuple[BinaryIO, BinaryIO]] = {}
        ends: dict[str, int] = {}
        for columns in chunks:
            for name, entries in columns.items():
                if not entries:
                    continue
                if name not in files:
                    values = stack.enter_context((folder / f"{name}.values").open("wb"))
                    files[name] = values, stack.enter_context((folder / f"{name}.ends").open("wb"))
                    ends[name] = 0
                values, ending = files[name]
                if isinstance(entries[0], list):
                    array = np.fromiter((value for entry in entries for value in entry), np.int32)
                    lengths = np.fromiter(map(len, entries), np.int64, len(entries))
                    ending.write((ends[name] + lengths.cumsum()).tobytes())
                    ends[name] += len(array)
                else:
                    array = np.asarray(entries)
                values.write(array.tobytes())
                kinds[name] = f"{'ragged ' * isinstance(entries[0], list)}{array.dtype}"
    if not kinds:
        raise DataError("no example is left", hint=summary.first_skipped or "it has no rows")
    facts = {"columns": kinds, "summary": asdict(summary)}
    (folder / "prepared.json").write_text(json.dumps(facts))


def _open(folder: Path) -> PreparedSplit:
    """Opens a cached split; raises DataError if its files contradict each other."""
    try:
        facts = read_json(folder / "prepared.json")
        columns = {name: _column(folder, name, kind) for name, kind in facts["columns"].items()}
        if len({_num_entries(column) for column in columns.values()}) != 1:
            raise ValueError("its columns differ in length")
        tokens = [checksums(folder)[f"input_ids.{part}"]["xxh3"] for part in ("values", "ends")]
        return PreparedSplit(
            columns, Summary(**facts["summary"]), digests={"tokens": content_key(tokens=tokens)}
        )
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise DataError(
            f"the prepared data in {folder} cannot be used ({excerpt(error)})",
            key=str(folder),
            hint="remove that folder to write it again",
        ) from error


def _column(folder: Path, name: str, kind: str) -> np.ndarray | Ragged:
    dtype = kind.removeprefix("ragged ")
    values = _mapped(folder / f"{name}.values", dtype)
    if kind == dtype:
        return values
    offsets = np.concatenate([[0], np.fromfile(folder / f"{name}.ends", np.int64)])
    if offsets[-1] != len(values) or (np.diff(offsets) < 0).any():
        raise ValueError(f"{name}.ends does not divide {name}.values")
    return Ragged(values, offsets)


def _num_entries(column: np.ndarray | Ragged) -> int:
    return len(column.offsets) - 1 if isinstance(column, Ragged) else len(column)


def _mapped(file: Path, dtype: str) -> np.ndarray:
    return np.memmap(file, dtype, "r") if file.stat().st_size else np.empty(0, dtype)
