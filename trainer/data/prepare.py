"""Tokenised splits: written once under a hash of their content, read memory-mapped."""

import fcntl
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Generator, Iterable, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, BinaryIO, Literal

import numpy as np

from trainer.errors import DataError
from trainer.flushing import flush_all

FORMAT = 2
"""Raised when the meaning of what is written here changes."""

Columns = Mapping[str, list[Any]]
"""A number, or a list of whole numbers, for each of some examples."""


@dataclass
class Summary:
    """What a task counts while it encodes a split."""

    on_bad_example: Literal["error", "skip"] = field(default="error", repr=False)
    num_truncated: int = 0
    longest: int = 0
    """Tokens of the longest example before it was cut."""
    num_skipped: int = 0
    first_skipped: str = ""
    remarks: dict[str, list[Any]] = field(default_factory=dict)
    """What is true of some rows, by a name of it: how many they are, and a sentence's end."""

    def remark(self, name: str, what: str) -> None:
        """Counts a row of which `what` is true; of several the first is kept."""
        self.remarks.setdefault(name, [0, what])[0] += 1

    def reject(self, sentence: str) -> None:
        """Raises DataError with the sentence, or counts an example that is to be skipped."""
        if self.on_bad_example == "error":
            raise DataError(sentence)
        self.num_skipped += 1
        self.first_skipped = self.first_skipped or sentence

    def measure(self, length: int, max_length: int) -> None:
        """Counts an example of `length` tokens before it is cut to `max_length`."""
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
    """Columns of one tokenised split: arrays, or Ragged where entries differ in length."""

    columns: Mapping[str, np.ndarray | Ragged]
    summary: Summary
    rows: Any = None
    """The rows it was made from, for what is read as text."""

    @cached_property
    def lengths(self) -> np.ndarray:
        """Tokens of each example."""
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


def cache_folder() -> Path:
    """Returns where prepared data is kept: $TRAINER_CACHE, by default ~/.cache/trainer."""
    return Path(os.environ.get("TRAINER_CACHE", "~/.cache/trainer")).expanduser()


def content_key(**parts: Any) -> str:
    """Returns a hash of settings and digests."""
    text = json.dumps({"format": FORMAT, **parts}, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def write_once(folder: Path, write: Callable[[Path], None]) -> Path:
    """Returns `folder`, which `write` fills under another name unless it is there already.

    It appears only when it is complete. Of several processes one writes; the others wait.
    """
    with _exclusive(folder.with_name(f".{folder.name}.lock")):
        for left in folder.parent.glob(f".{folder.name}-*"):
            shutil.rmtree(left)  # by a process that was killed, for its lock is free
        if not folder.is_dir():
            staging = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
            try:
                write(staging)
                flush_all(staging)
                staging.rename(folder)
            finally:
                shutil.rmtree(staging, ignore_errors=True)
    return folder


def prepare(
    key: str, encode: Callable[[Summary], Iterable[Columns]], summary: Summary | None = None
) -> PreparedSplit:
    """Returns the split kept under `key`, made by `encode` where it is not there yet.

    `encode` gives columns for some examples at a time, so that no split has to fit into memory.
    Raises DataError where it gives no example.
    """
    counted = summary or Summary()

    def write(folder: Path) -> None:
        _write(folder, encode(counted), counted)

    return _open(write_once(cache_folder() / "prepared" / key, write))


def _write(folder: Path, chunks: Iterable[Columns], summary: Summary) -> None:
    """Writes columns one after the other as plain numbers: values, and where each entry ends."""
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
        raise DataError(f"no example is left; {summary.first_skipped or 'it has no rows'}")
    facts = {"columns": kinds, "summary": asdict(summary)}
    (folder / "prepared.json").write_text(json.dumps(facts))


def _open(folder: Path) -> PreparedSplit:
    facts = json.loads((folder / "prepared.json").read_text())
    columns: dict[str, np.ndarray | Ragged] = {}
    for name, kind in facts["columns"].items():
        dtype = kind.removeprefix("ragged ")
        values = _mapped(folder / f"{name}.values", dtype)
        if kind == dtype:
            columns[name] = values
        else:
            ends = np.fromfile(folder / f"{name}.ends", np.int64)
            columns[name] = Ragged(values, np.concatenate([[0], ends]))
    return PreparedSplit(columns, Summary(**facts["summary"]))


def _mapped(file: Path, dtype: str) -> np.ndarray:
    return np.memmap(file, dtype, "r") if file.stat().st_size else np.empty(0, dtype)


@contextmanager
def _exclusive(path: Path) -> Generator[None]:
    """Holds a lock that ends with its process."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX)
        except OSError as error:
            raise DataError(
                f"the file system of {path.parent} does not lock files ({error.strerror}); set "
                f"TRAINER_CACHE to a folder on one that does"
            ) from error
        yield
