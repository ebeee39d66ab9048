"""Parts of an output: the answers to each block in a file of its own, until all can be joined.

A part appears under its name only when it is complete. So a command that was killed continues with
the blocks that lack one, on any number of processes. Block b belongs to process b modulo the number
of processes; they share nothing but the folder and, at the start, the list of parts in it.
"""

import json
import time
from collections.abc import Callable, Generator, Iterable, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from trainer.data.formats.reading import shown
from trainer.data.streamed_rows import Row, as_json
from trainer.distributed.environment_variables import whole_number
from trainer.errors import ConfigError, FileError, LaunchError, TrainerError
from trainer.files.durable import flush, write_json
from trainer.files.file_errors import file_error
from trainer.files.file_lock import lock
from trainer.files.plain import read_json, remove
from trainer.wording import listed

IDENTITY = "identity.json"
Say = Callable[[str], None]
Identity = Callable[[], dict[str, Any]]
"""Returns what answers depend on; called by the main process only."""


@dataclass(frozen=True)
class Parts:
    """The parts of one output, and this process among those that write them."""

    folder: Path
    rank: int
    num_ranks: int
    present: frozenset[int]
    """Numbers of the blocks that had a part when the command started."""

    def lacks(self, block: int) -> bool:
        """Returns whether this process has to write the part of a block."""
        return block % self.num_ranks == self.rank and block not in self.present

    def file(self, block: int) -> Path:
        return self.folder / f"part-{block:08d}.jsonl"

    def write(self, block: int, rows: Iterable[Row]) -> None:
        """Writes the part of a block, a JSON object a line."""
        staging = self.folder / f".part-{block:08d}.staging"
        with staging.open("w", encoding="utf-8") as opened:
            opened.writelines(f"{as_json(row)}\n" for row in rows)
        flush(staging)
        staging.replace(self.file(block))

    def wait_for(self, num_blocks: int, limit: float) -> list[Path]:
        """Returns all parts in order, once every process has written its own.

        Raises LaunchError if no part appears for `limit` seconds.
        """
        files = [self.file(block) for block in range(num_blocks)]
        lacking, since = files, time.monotonic()
        while still := [file for file in lacking if not file.exists()]:
            if len(still) < len(lacking):
                lacking, since = still, time.monotonic()
            if time.monotonic() - since > limit:
                ranks = sorted({files.index(file) % self.num_ranks for file in lacking})
                raise LaunchError(
                    f"the processes {listed(ranks)} have not answered {len(lacking)} of "
                    f"{num_blocks} blocks",
                    key="WORLD_SIZE",
                    value=self.num_ranks,
                    hint="see what they say, and run the same command again, which continues",
                )
            time.sleep(0.05)
        return files


@contextmanager
def parts_of(output: Path, identity: Identity, say: Say) -> Generator[Parts]:
    """Context manager: yields the parts of an output file, those of an earlier command included.

    The main process holds the folder OUTPUT.parts. It keeps the parts in it if they were written
    with the same identity; otherwise it says what differs, and removes them. A single process
    leaves no folder without parts. Raises ConfigError if another command holds the folder, or if it
    holds other files, and FileError if it cannot be written.
    """
    folder = output.with_name(f"{output.name}.parts")
    rank, num_ranks = whole_number("RANK", 0), whole_number("WORLD_SIZE", 1)
    with ExitStack() as stack:
        if num_ranks == 1:
            present = _opened(folder, identity, say, stack)
        else:
            present = _agreed(folder, identity, say, stack, main=rank == 0)
        try:
            yield Parts(folder, rank, num_ranks, present)
        finally:
            if num_ranks == 1 and not any(folder.glob("part-*")):
                remove(folder)


def _agreed(
    folder: Path, identity: Identity, say: Say, stack: ExitStack, *, main: bool
) -> frozenset[int]:
    """Returns the parts that the main process found; raises its error on every process."""
    from trainer.distributed.rendezvous import meeting

    store: Any = stack.enter_context(meeting())
    if not main:
        answer = json.loads(store.get("parts"))
        if isinstance(answer, str):
            raise ConfigError(answer, key="--output")
        return frozenset(answer)
    try:
        present = _opened(folder, identity, say, stack)
    except TrainerError as error:
        store.set("parts", json.dumps(str(error)))
        raise
    store.set("parts", json.dumps(sorted(present)))
    return present


def _opened(folder: Path, identity: Identity, say: Say, stack: ExitStack) -> frozenset[int]:
    """Holds the folder until `stack` closes; returns the numbers of the parts to keep."""
    try:
        folder.mkdir(exist_ok=True)
        files = [file.name for file in folder.iterdir() if not file.name.startswith(".")]
        if files and IDENTITY not in files:
            raise ConfigError(
                f"{shown(folder)}, the folder for parts of the output, holds {listed(files)}",
                key="--output",
                value=str(folder),
                hint="move them, or name another file",
            )
        held = stack.enter_context((folder / ".lock").open("a"))
        try:
            lock(held.fileno(), wait=False)
        except BlockingIOError as error:
            raise ConfigError(
                f"another command is writing {shown(folder)}",
                key="--output",
                value=str(folder),
                hint="wait for it, or name another file",
            ) from error
        own = identity()
        changed = _changes(folder, own)
        if changed is not None:
            if changed:
                say(
                    f"{shown(folder)} is of a command with other values of {', '.join(changed)}; "
                    f"starting again"
                )
            for file in folder.iterdir():
                if file.name not in (".lock", IDENTITY):  # parts never lack an identity
                    remove(file)
            write_json(folder / IDENTITY, own)
        numbers = [file.stem.partition("-")[2] for file in folder.glob("part-*.jsonl")]
        return frozenset(int(number) for number in numbers if number.isdecimal())
    except OSError as error:
        raise _unwritable(error, folder) from error


def _changes(folder: Path, own: Mapping[str, Any]) -> list[str] | None:
    """Returns what differs from the command that wrote the parts; None if nothing does, and an
    empty list if nothing was written."""
    try:
        before = read_json(folder / IDENTITY)
    except FileNotFoundError:
        return []
    except ValueError:
        return ["command"]
    if not isinstance(before, dict):
        return ["command"]
    return [name for name, value in own.items() if before.get(name) != value] or None


def _unwritable(error: OSError, folder: Path) -> FileError:
    return file_error(error, folder) or FileError(
        f"{shown(folder)} cannot be written ({error.strerror or error})",
        key="--output",
        value=error.errno,
        hint="name another file",
    )


def waiting_limit() -> float:
    """Returns how many seconds the main process waits for the next part of another one."""
    from trainer.distributed.timeouts import step_time

    return step_time().total_seconds()
