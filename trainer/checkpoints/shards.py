"""Tensors in files: written in shards, each by one of the ranks, and read by name on any number."""

import hashlib
import os
import time
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from trainer.engines.portable_state import Whole
from trainer.files.durable import flush
from trainer.files.modes import follow_umask
from trainer.files.plain import open_plain

SHARD_BYTES = 512 * 2**20
"""Of a file, unless one tensor has more. A rank that writes while training waits holds two files at
most, or one such tensor."""

Fingerprint = dict[str, int | str]
"""Size and checksum of a file: `bytes` and `sha256`."""


@dataclass
class ShardWriter:
    """Writes this rank's files of a checkpoint, in a thread, while the next ones are gathered.

    What goes wrong is kept for `result`, for a rank that raised at once would leave the others
    waiting for it in the next tensor.
    """

    folder: Path
    rank: int
    num_ranks: int
    snapshot: bool
    """Whether to hold copies of all that this rank writes, so that training can go on meanwhile."""
    _pool: ThreadPoolExecutor = field(default_factory=lambda: ThreadPoolExecutor(1))
    _written: list["Future[tuple[str, Fingerprint]]"] = field(default_factory=list)
    _num_shards: int = 0
    last_written: float = field(default_factory=time.monotonic)
    """When the last of the files was done, on the clock of time.monotonic()."""

    def write(self, kind: str, tensors: Iterable[Whole]) -> None:
        """Gathers tensors, and hands on files such as model-00001.safetensors; all ranks call it.

        Which rank writes which file depends on the sizes alone.
        """
        number, held, shard, places = 1, 0, dict[str, Tensor](), set[int]()
        if not self.snapshot:
            self._wait()
        for tensor in tensors:
            if held and held + tensor.num_bytes > SHARD_BYTES:
                self._hand_on(f"{kind}-{number:05d}.safetensors", shard)
                if not self.snapshot and max(held, tensor.num_bytes) > SHARD_BYTES:
                    self._wait()
                number, held, shard, places = number + 1, 0, {}, set()
            held += tensor.num_bytes
            if self._num_shards % self.num_ranks != self.rank:
                tensor.get()  # for the rank that writes it
                continue
            if not shard and not self.snapshot:
                self._wait()
            value = tensor.get().to("cpu", copy=self.snapshot)
            if value.data_ptr() in places:  # 8-bit optimizers share tables; safetensors does not
                value = value.clone()
            places.add(value.data_ptr())
            shard[tensor.name] = value
            del value
        if held:
            self._hand_on(f"{kind}-{number:05d}.safetensors", shard)

    @property
    def busy(self) -> bool:
        return not all(written.done() for written in self._written)

    def abandon(self) -> None:
        """Ends the writer after the file it is at; what it was to write is of no use."""
        self._pool.shutdown(wait=False, cancel_futures=True)

    def result(self) -> tuple[dict[str, Fingerprint], OSError | SafetensorError | None]:
        """Returns the fingerprints of this rank's files once they lie on the disk, or what failed.

        Ends the writer.
        """
        self._pool.shutdown(wait=True)
        try:
            return dict(written.result() for written in self._written), None
        except (OSError, SafetensorError) as error:
            return {}, error

    def _hand_on(self, name: str, shard: dict[str, Tensor]) -> None:
        if shard:
            self._written.append(self._pool.submit(_write, self.folder / name, shard))
            self._written[-1].add_done_callback(self._note_time)
        self._num_shards += 1

    def _note_time(self, _written: "Future[tuple[str, Fingerprint]]") -> None:
        self.last_written = time.monotonic()

    def _wait(self) -> None:
        """Waits until this rank holds nothing that is still to be written."""
        for written in self._written:
            written.exception()


class SavedTensors(Mapping[str, Tensor]):
    """The tensors of some files by name, each read when it is asked for.

    Raises OSError or SafetensorError for one that cannot be read, or holds what is no number.
    """

    def __init__(self, files: Iterable[Path]) -> None:
        """Raises OSError or SafetensorError for a file that cannot be read."""
        self._places: dict[str, Path] = {}
        for path in files:
            with safe_open(path, framework="pt") as file:
                for name in sorted(file.keys()):
                    if name in self._places:
                        raise SafetensorError(f"{name} is in {self._places[name].name}, too")
                    self._places[name] = path
        self._path: Path | None = None
        self._file: Any = None

    def __getitem__(self, name: str) -> Tensor:
        path = self._places[name]
        if path != self._path:  # what was read of a file counts as held until it is closed
            self._path, self._file = path, safe_open(path, framework="pt")
        # A copy: else it would be a view into the file.
        tensor = self._file.get_tensor(name).clone()
        if tensor.is_floating_point() and tensor.isnan().any():
            raise SafetensorError(f"{name} in {path.name} holds values that are not numbers")
        return tensor

    def kinds(self) -> dict[str, tuple[tuple[int, ...], str]]:
        """Returns shape and type of each, such as F32, without reading them."""
        found: dict[str, tuple[tuple[int, ...], str]] = {}
        for path in dict.fromkeys(self._places.values()):
            with safe_open(path, framework="pt") as file:
                for name in sorted(file.keys()):
                    part = file.get_slice(name)
                    found[name] = tuple(part.get_shape()), part.get_dtype()
        return found

    def __iter__(self) -> Iterator[str]:
        return iter(self._places)

    def __len__(self) -> int:
        return len(self._places)


def fingerprint(file: Path) -> Fingerprint:
    """Returns size and checksum of a file; raises OSError where it is none."""
    with open_plain(file) as opened:
        return {
            "bytes": os.fstat(opened.fileno()).st_size,
            "sha256": hashlib.file_digest(opened, "sha256").hexdigest(),
        }


def _write(file: Path, shard: dict[str, Tensor]) -> tuple[str, Fingerprint]:
    save_file(shard, file)
    shard.clear()  # the future lives on, and would hold it
    follow_umask(file)
    flush(file)
    return file.name, fingerprint(file)
