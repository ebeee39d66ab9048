"""Cache folders: written once, complete when they appear, and verified on every use.

Each has a manifest of sizes and checksums. The checksum is xxh3, which reads about 7 GB/s per core:
a billion tokens (4 GB) take less than a second, or as long as the disk takes to read them.
"""

import errno
import json
import logging
import os
from collections.abc import Callable, Generator
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import Any
from uuid import uuid4

from trainer.errors import DataError
from trainer.files.cache import cache_folder
from trainer.files.durable import flush_all
from trainer.files.file_errors import FULL
from trainer.files.file_lock import lock
from trainer.files.modes import follow_umask
from trainer.files.plain import open_plain, read_json, reason, remove
from trainer.wording import excerpt

LOG = logging.getLogger("trainer")
MANIFEST = "manifest.json"
UNLISTED = "it has no manifest"
"""Problem of a folder that an older version wrote."""
_ONLY_READS: ContextVar[bool] = ContextVar("only_reads", default=False)


class NotKeptError(DataError):
    """A folder is missing or damaged, and may not be written."""


@contextmanager
def only_kept() -> Generator[None]:
    """Context manager: inside, `write_once` returns only folders that are there, and otherwise
    raises NotKeptError.

    Sizes of files are compared with the manifest and contents are not, so that it takes no longer
    for large data.
    """
    before = _ONLY_READS.set(True)
    try:
        yield
    finally:
        _ONLY_READS.reset(before)


def write_once(
    folder: Path, write: Callable[[Path], None], *, accept_unlisted: bool = False
) -> Path:
    """Returns `folder`, after `write` has filled it if it is missing or damaged.

    `write` gets a temporary folder, which is renamed to `folder` when it is complete. If several
    processes call this, one writes and the others wait. A folder that was changed since it was
    written is written again, which is logged. A folder without a manifest, from an older
    version, is written again silently or, with `accept_unlisted`, returned as it is. Raises
    DataError if the folder cannot be read or written.
    """
    problem = _problem(folder, accept_unlisted)
    if problem is None:
        return folder
    if _ONLY_READS.get():
        raise NotKeptError(f"{folder} is not in the cache ({problem})", key=str(folder))
    try:
        with _exclusive(folder.with_name(f".{folder.name}.lock")):
            problem = _problem(folder, accept_unlisted)
            if problem is not None:
                _make(folder, write, problem)
    except _UnwritableError as error:
        raise DataError(
            f"{folder.parent} cannot be written ({reason(error.cause)})",
            key=str(folder.parent),
            hint=_hint(folder),
        ) from error
    return folder


def checksums(folder: Path) -> dict[str, Any]:
    """Returns the size and checksum of each file listed in the manifest of a kept folder."""
    return dict(read_json(folder / MANIFEST)["files"])


class _UnwritableError(Exception):
    """The parent folder cannot be changed."""

    def __init__(self, cause: OSError) -> None:
        super().__init__(str(cause))
        self.cause = cause


@contextmanager
def _writing() -> Generator[None]:
    """Context manager: marks an OSError as one of our own writes, not of the reads in `write`."""
    try:
        yield
    except OSError as error:
        if error.errno in FULL:
            raise
        raise _UnwritableError(error) from error


def _make(folder: Path, write: Callable[[Path], None], problem: str) -> None:
    with _writing():
        for leftover in folder.parent.glob(f".{folder.name}-*"):
            remove(leftover)  # of a process that was killed, because we hold its lock
        if os.path.lexists(folder):
            if problem != UNLISTED:
                LOG.warning("%s is not as it was written (%s); writing it again", folder, problem)
            # Renamed first, so that a half-removed folder never has its name.
            remove(folder.rename(_hidden(folder)))
        staging = _hidden(folder)
        staging.mkdir()
    try:
        write(staging)
        (staging / MANIFEST).unlink(missing_ok=True)
        listed = {name: checksum(staging / name) for name in files_below(staging)}
        (staging / MANIFEST).write_text(json.dumps({"files": listed}, indent=2))
        follow_umask(staging)
        flush_all(staging)
        with _writing():
            staging.rename(folder)
    finally:
        remove(staging)


def _problem(folder: Path, accept_unlisted: bool) -> str | None:
    """Returns why a folder is not as it was written, or None if it is.

    Raises DataError if permissions forbid reading it: it may be sound and belong to another user.
    """
    try:
        if not folder.is_dir():
            return "it is not a folder" if os.path.lexists(folder) else "it does not exist"
        names = files_below(folder)
        if MANIFEST not in names:
            return None if accept_unlisted and names else UNLISTED
        try:
            listed = checksums(folder)
        except (ValueError, TypeError, KeyError, AttributeError):
            return "its manifest cannot be read"
        differing = sorted(listed.keys() ^ (names - {MANIFEST}))
        if differing:
            return f"{excerpt(differing[0], 60)} is missing or was added"
        # Sizes first: they cost nothing.
        for name, expected in sorted(listed.items()):
            if not isinstance(expected, dict) or expected.get("bytes") != _size(folder / name):
                return f"{name} has a different size"
        if _ONLY_READS.get():
            return None
        for name, expected in sorted(listed.items()):
            if checksum(folder / name) != expected:
                return f"{name} has different content"
    except OSError as error:
        if error.errno in (errno.EACCES, errno.EPERM):
            raise DataError(
                f"{error.filename or folder} cannot be read ({reason(error)}): another user may "
                f"have written it",
                key=str(error.filename or folder),
                hint=f"ask that user for `chmod -R a+rX {folder}`, or {_hint(folder)}",
            ) from error
        return reason(error)
    return None


def files_below(folder: Path) -> set[str]:
    """Returns the relative paths of all files and links below a folder."""
    paths: set[str] = set()
    for place, folders, names in os.walk(folder, onerror=_raise):
        links = [name for name in folders if (Path(place) / name).is_symlink()]
        paths |= {str((Path(place) / name).relative_to(folder)) for name in (*names, *links)}
    return paths


def _raise(error: OSError) -> None:
    raise error


def _size(file: Path) -> int:
    return file.stat().st_size


def checksum(file: Path) -> dict[str, int | str]:
    """Returns the size of a plain file in bytes, and the xxh3 of its content."""
    import xxhash

    digest, size = xxhash.xxh3_128(), 0
    with open_plain(file) as opened:
        while block := opened.read(2**20):
            digest.update(block)
            size += len(block)
    return {"bytes": size, "xxh3": digest.hexdigest()}


def _hidden(folder: Path) -> Path:
    return folder.with_name(f".{folder.name}-{uuid4().hex[:8]}")


def _hint(folder: Path) -> str:
    if folder.is_relative_to(cache_folder()):
        return "set TRAINER_CACHE to a folder of your own"
    return "choose another --run-dir"


@contextmanager
def _exclusive(path: Path) -> Generator[None]:
    """Context manager: holds an exclusive lock, which the system frees if the process dies."""
    with _writing():
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor = _open_lock(path)
    with os.fdopen(descriptor):
        try:
            lock(descriptor, wait=True)
        except OSError as error:
            raise DataError(
                f"the file system of {path.parent} does not lock files ({error.strerror})",
                key="TRAINER_CACHE",
                value=str(path.parent),
                hint="set TRAINER_CACHE to a folder on a file system that does",
            ) from error
        yield


def _open_lock(path: Path) -> int:
    """Returns the descriptor of a lock file; another user's is opened read-only, which suffices."""
    flags = os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    try:
        return os.open(path, os.O_RDWR | os.O_CREAT | flags, 0o666)
    except PermissionError:
        return os.open(path, os.O_RDONLY | flags)
