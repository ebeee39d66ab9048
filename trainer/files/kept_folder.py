"""Folders of the cache: written once, complete when they appear, and verified whenever used.

Each has a manifest of sizes and checksums. Checksums are xxh3, which reads about 7 GB/s on a core:
a billion tokens, 4 GB, take under a second, or as long as the disk takes to read them.
"""

import errno
import fcntl
import json
import os
import sys
from collections.abc import Callable, Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from uuid import uuid4

from trainer.errors import DataError
from trainer.files.cache import cache_folder
from trainer.files.durable import flush_all
from trainer.files.modes import follow_umask
from trainer.files.plain import open_plain, read_json, reason, remove
from trainer.wording import excerpt

MANIFEST = "manifest.json"
UNLISTED = "it has no manifest"
"""As caches of older versions have none."""
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def write_once(
    folder: Path, write: Callable[[Path], None], *, accept_unlisted: bool = False
) -> Path:
    """Returns `folder`, which `write` fills under another name unless it is there as it was made.

    It appears only when it is complete. Of several processes one writes; the others wait. What was
    changed since is made anew, which is said on stderr; what an older version made without a
    manifest is made anew without a word or, with `accept_unlisted`, taken as it is. Raises
    DataError if it cannot be read or written.
    """
    if _problem(folder, accept_unlisted) is None:
        return folder
    try:
        with _exclusive(folder.with_name(f".{folder.name}.lock")):
            problem = _problem(folder, accept_unlisted)
            if problem is not None:
                _make(folder, write, problem)
    except _UnwritableError as error:
        raise DataError(
            f"{folder.parent} cannot be written ({reason(error.cause)}); {_remedy(folder)}"
        ) from error
    return folder


def checksums(folder: Path) -> dict[str, Any]:
    """Returns size and checksum of each file that the manifest of a kept folder lists."""
    return dict(read_json(folder / MANIFEST)["files"])


class _UnwritableError(Exception):
    """The folder around cannot be changed."""

    def __init__(self, cause: OSError) -> None:
        super().__init__(str(cause))
        self.cause = cause


@contextmanager
def _writing() -> Generator[None]:
    """Tells an OSError of writing apart from those of the reading that goes on inside `write`."""
    try:
        yield
    except OSError as error:
        if error.errno in FULL:
            raise
        raise _UnwritableError(error) from error


def _make(folder: Path, write: Callable[[Path], None], problem: str) -> None:
    with _writing():
        for left in folder.parent.glob(f".{folder.name}-*"):
            remove(left)  # by a process that was killed, for its lock is free
        if os.path.lexists(folder):
            if problem != UNLISTED:
                print(
                    f"trainer: {folder} is not as it was written ({problem}), and is made anew",
                    file=sys.stderr,
                )
            # Renamed first: whoever has it open keeps it, and nothing half removed has its name.
            leaving = folder.rename(_hidden(folder))
            remove(leaving)
        staging = _hidden(folder)
        staging.mkdir()
    try:
        write(staging)
        (staging / MANIFEST).unlink(missing_ok=True)
        listed = {name: _checksum(staging / name) for name in _files(staging)}
        (staging / MANIFEST).write_text(json.dumps({"files": listed}, indent=2))
        follow_umask(staging)
        flush_all(staging)
        with _writing():
            staging.rename(folder)
    finally:
        remove(staging)


def _problem(folder: Path, accept_unlisted: bool) -> str | None:
    """Returns why a folder is not as it was written, None if it is.

    Raises DataError if it may not be read, for it may be sound and another user's.
    """
    try:
        if not folder.is_dir():
            return "it is no folder" if os.path.lexists(folder) else "it is not there"
        names = _files(folder)
        if MANIFEST not in names:
            return None if accept_unlisted and names else UNLISTED
        try:
            listed = checksums(folder)
        except (ValueError, TypeError, KeyError, AttributeError):
            return "its manifest cannot be read"
        others = sorted(listed.keys() ^ (names - {MANIFEST}))
        if others:
            return f"{excerpt(others[0], 60)} is missing or was added"
        # Sizes first: they cost nothing.
        for name, expected in sorted(listed.items()):
            if not isinstance(expected, dict) or expected.get("bytes") != _size(folder / name):
                return f"{name} has another size"
        for name, expected in sorted(listed.items()):
            if _checksum(folder / name) != expected:
                return f"{name} has other content"
    except OSError as error:
        if error.errno in (errno.EACCES, errno.EPERM):
            raise DataError(
                f"{error.filename or folder} cannot be read ({reason(error)}): another user may "
                f"have made it; ask for `chmod -R a+rX {folder}`, or {_remedy(folder)}"
            ) from error
        return reason(error)
    return None


def _files(folder: Path) -> set[str]:
    """Returns the names of all files in a folder and the folders in it."""
    found: set[str] = set()
    for place, folders, names in os.walk(folder, onerror=_raise):
        links = [name for name in folders if (Path(place) / name).is_symlink()]
        found |= {str((Path(place) / name).relative_to(folder)) for name in (*names, *links)}
    return found


def _raise(error: OSError) -> None:
    raise error


def _size(file: Path) -> int:
    return file.stat().st_size


def _checksum(file: Path) -> dict[str, int | str]:
    import xxhash

    digest, size = xxhash.xxh3_128(), 0
    with open_plain(file) as opened:
        while block := opened.read(2**20):
            digest.update(block)
            size += len(block)
    return {"bytes": size, "xxh3": digest.hexdigest()}


def _hidden(folder: Path) -> Path:
    return folder.with_name(f".{folder.name}-{uuid4().hex[:8]}")


def _remedy(folder: Path) -> str:
    if folder.is_relative_to(cache_folder()):
        return "set TRAINER_CACHE to a folder of your own"
    return "choose another --run-dir"


@contextmanager
def _exclusive(path: Path) -> Generator[None]:
    """Holds a lock that ends with its process."""
    with _writing():
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor = _open_lock(path)
    with os.fdopen(descriptor):
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        except OSError as error:
            raise DataError(
                f"the file system of {path.parent} does not lock files ({error.strerror}); set "
                f"TRAINER_CACHE to a folder on one that does"
            ) from error
        yield


def _open_lock(path: Path) -> int:
    """Returns a lock file opened, another user's for reading only, which is enough to lock it."""
    flags = os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    try:
        return os.open(path, os.O_RDWR | os.O_CREAT | flags, 0o666)
    except PermissionError:
        return os.open(path, os.O_RDONLY | flags)
