"""Shards: the safetensors files of a checkpoint; each rank writes some of them."""

import math
import time
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor

from trainer.checkpoints.record import Fingerprint, fingerprint
from trainer.engines.portable_state import GatherableTensor
from trainer.files.durable import flush
from trainer.files.modes import follow_umask

SHARD_BYTES = 512 * 2**20
"""Maximum size of a file, unless a single tensor is larger. If training waits for the save, a rank
holds at most two files in memory, or one such tensor."""


@dataclass
class ShardWriter:
    """Writes this rank's shards of a checkpoint in a separate thread.

    Errors are kept for `result`: a rank that raised at once would leave the others waiting in the
    next gather.
    """

    folder: Path
    rank: int
    num_ranks: int
    snapshot: bool
    """Whether to copy everything that this rank writes first, so that training can continue
    meanwhile."""
    _pool: ThreadPoolExecutor = field(default_factory=lambda: ThreadPoolExecutor(1))
    _written: list["Future[tuple[str, Fingerprint]]"] = field(default_factory=list)
    _num_shards: int = 0
    last_written: float = field(default_factory=time.monotonic)
    """When the last file was complete, on the clock of time.monotonic()."""

    def write(self, kind: str, tensors: Iterable[GatherableTensor]) -> None:
        """Gathers tensors, and queues files such as model-00001.safetensors.

        Collective: every rank calls it. Which rank writes which file depends only on the sizes.
        """
        size_before = math.inf
        for number, group in enumerate(_grouped(tensors), start=1):
            size = sum(tensor.num_bytes for tensor in group)
            mine = self._num_shards % self.num_ranks == self.rank
            if not self.snapshot and (mine or max(size_before, size) > SHARD_BYTES):
                self._wait()
            shard: dict[str, Tensor] = {}
            for tensor in group:
                if mine:
                    shard[tensor.name] = tensor.gather().to("cpu", copy=self.snapshot)
                else:
                    tensor.gather()  # collective: every rank takes part
            if mine:
                file = self.folder / f"{kind}-{number:05d}.safetensors"
                self._written.append(self._pool.submit(_write, file, shard))
                self._written[-1].add_done_callback(self._note_time)
            self._num_shards += 1
            size_before = size

    @property
    def busy(self) -> bool:
        """Whether this rank is still writing."""
        return not all(written.done() for written in self._written)

    def result(self) -> tuple[dict[str, Fingerprint], OSError | SafetensorError | None]:
        """Waits until this rank's files are on disk, ends the writer, and returns the fingerprints
        of the files by name, or the error."""
        self._pool.shutdown(wait=True)
        try:
            return dict(written.result() for written in self._written), None
        except (OSError, SafetensorError) as error:
            return {}, error

    def abandon(self) -> None:
        """Ends the writer after the file that it is writing; the checkpoint stays incomplete."""
        self._pool.shutdown(wait=False, cancel_futures=True)

    def _note_time(self, _written: "Future[tuple[str, Fingerprint]]") -> None:
        self.last_written = time.monotonic()

    def _wait(self) -> None:
        """Waits until everything queued is written and its memory is freed."""
        for written in self._written:
            written.exception()


def _grouped(tensors: Iterable[GatherableTensor]) -> Iterator[list[GatherableTensor]]:
    """Yields the tensors of each shard."""
    group: list[GatherableTensor] = []
    size = 0
    for tensor in tensors:
        if size and size + tensor.num_bytes > SHARD_BYTES:
            yield group
            group, size = [], 0
        group.append(tensor)
        size += tensor.num_bytes
    if group:
        yield group


def _write(file: Path, shard: dict[str, Tensor]) -> tuple[str, Fingerprint]:
    """Writes a shard, returns its name and fingerprint once it is on disk, and empties `shard`."""
    places: set[int] = set()
    for name, tensor in shard.items():
        if tensor.data_ptr() in places:  # 8-bit optimizers share tables; safetensors refuses that
            shard[name] = tensor.clone()
        places.add(tensor.data_ptr())
    save_file(shard, file)
    shard.clear()  # the future of this call stays alive and would keep the memory
    follow_umask(file)
    flush(file)
    return file.name, fingerprint(file)
