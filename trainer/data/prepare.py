"""Tokenised splits: written once under a hash of their content, read memory-mapped."""

import fcntl
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

FORMAT = 1
"""Raised when the meaning of what is written here changes."""


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
    summary: Mapping[str, Any]
    """Facts that the task counted while it encoded, such as truncated examples."""

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
        if not folder.is_dir():
            staging = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
            try:
                write(staging)
                staging.rename(folder)
            finally:
                shutil.rmtree(staging, ignore_errors=True)
    return folder


def prepare(
    key: str, encode: Callable[[], tuple[dict[str, list[Any]], dict[str, Any]]]
) -> PreparedSplit:
    """Returns the split kept under `key`, made by `encode` where it is not there yet.

    `encode` returns columns, a number or a list of numbers for each example, and a summary.
    """

    def write(folder: Path) -> None:
        columns, summary = encode()
        for name, entries in columns.items():
            if isinstance(entries[0], list):
                lengths = np.fromiter(map(len, entries), np.int64, len(entries))
                np.save(folder / f"{name}.offsets.npy", np.concatenate([[0], lengths.cumsum()]))
                values = (value for entry in entries for value in entry)
                array = np.fromiter(values, np.int32, int(lengths.sum()))
            else:
                array = np.asarray(entries)
            np.save(folder / f"{name}.npy", array)
        (folder / "summary.json").write_text(json.dumps(summary))

    return _open(write_once(cache_folder() / "prepared" / key, write))


def _open(folder: Path) -> PreparedSplit:
    columns: dict[str, np.ndarray | Ragged] = {}
    for file in sorted(folder.glob("*.npy")):
        name = file.name.removesuffix(".npy")
        if name.endswith(".offsets"):
            continue
        values = np.load(file, mmap_mode="r")
        offsets = folder / f"{name}.offsets.npy"
        columns[name] = Ragged(values, np.load(offsets)) if offsets.is_file() else values
    return PreparedSplit(columns, json.loads((folder / "summary.json").read_text()))


@contextmanager
def _exclusive(path: Path) -> Generator[None]:
    """Holds a lock that ends with its process."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
