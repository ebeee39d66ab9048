"""Errors of files and disks: the system's message, and what to do about it."""

import errno
import os
import re
import stat
from pathlib import Path

from trainer.errors import FileError, causes
from trainer.wording import excerpt

KINDS = {
    stat.S_IFDIR: "a folder",
    stat.S_IFIFO: "a named pipe",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}
"""Names of what is not a plain file, by the type bits of its mode."""
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
"""The disk, a quota or a size limit is exhausted."""
_ELSEWHERE = "or choose another folder"
REMEDIES = {
    errno.ENOSPC: "free space there and run the same command again",
    errno.EDQUOT: "your quota there is used up: remove files and run the same command again",
    errno.EFBIG: "the file would be too large: see `ulimit -f`, or choose another file system",
    errno.EROFS: "the file system there is read-only: choose another folder",
    errno.EACCES: f"check its permissions, {_ELSEWHERE}",
    errno.EPERM: f"check its owner and attributes, {_ELSEWHERE}",
    errno.EIO: "the disk or its network failed: see the system log and run the same command again",
    errno.ESTALE: "the network file system lost it: run the same command again",
    errno.ENXIO: "it is not a file that can be read or written: choose another",
    errno.ENODEV: "it is not a file that can be read or written: choose another",
    errno.EMFILE: "too many files are open: raise `ulimit -n`",
    errno.ENFILE: "too many files are open on this machine: close some",
    errno.ENOTDIR: f"a file is in the place of a folder: remove it, {_ELSEWHERE}",
    errno.EEXIST: f"a file is in the place of a folder: remove it, {_ELSEWHERE}",
    errno.EISDIR: f"a folder is in the place of a file: remove it, {_ELSEWHERE}",
    errno.ENOTEMPTY: f"something else is in its place: remove it, {_ELSEWHERE}",
    errno.ELOOP: f"its links form a loop: remove them, {_ELSEWHERE}",
    errno.EMLINK: f"there are too many files: remove some, {_ELSEWHERE}",
    errno.ENAMETOOLONG: "choose a shorter name",
    errno.ENOENT: "it does not exist, or was removed in the meantime",
    errno.EBUSY: "another program is using it: stop that and run the same command again",
    errno.ETXTBSY: "another program is using it: stop that and run the same command again",
    errno.ENOLCK: f"its file system does not support locks, {_ELSEWHERE}",
    errno.EOPNOTSUPP: f"its file system does not support this, {_ELSEWHERE}",
}
"""What to do about an error of the system, by its number."""
WRITING = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EIO, errno.ESTALE)
"""Errors of the disk itself, whichever library reports them and for whichever file."""
_SPELLED = re.compile(r"(?:os error |[Ee]rrno )(\d{1,3})")
"""How Python, pyarrow and Rust libraries write the number in their messages."""


def kind_of_path(mode: int) -> str:
    """Returns what a path is, by its mode, such as "a named pipe"."""
    return KINDS.get(stat.S_IFMT(mode), "a file" if stat.S_ISREG(mode) else "something else")


def number_in(error: BaseException | str) -> int | None:
    """Returns the errno of an error, also one that a library only mentions in its message."""
    if isinstance(error, OSError) and error.errno is not None:
        return error.errno
    match = _SPELLED.search(str(error))
    return int(match[1]) if match else None


def remedy(error: BaseException | str, place: Path | None = None) -> str:
    """Returns what to do about an error; `place` is where it happened, if that is known."""
    number = number_in(error)
    if number == errno.ENOSPC and place is not None and _without_inodes(place):
        return "no inodes are left: remove files there and run the same command again"
    return REMEDIES.get(number or 0, "see the system log and run the same command again")


def file_error(error: BaseException, place: Path | None = None) -> FileError | None:
    """Returns a FileError for an error of the file system, None for any other error.

    `place` is the folder the command writes to, for errors that do not name their file.
    """
    for cause in causes(error):
        number = number_in(cause)
        if number not in REMEDIES or (cause is not error and number not in WRITING):
            continue
        if isinstance(cause, OSError) and isinstance(cause.filename, str | bytes | os.PathLike):
            path = Path(os.fsdecode(cause.filename))
            message = f"{excerpt(path, 200)}: {os.strerror(number)}"
        elif number in WRITING:
            path = place
            detail = f" ({excerpt(cause, 120)})" if not isinstance(cause, OSError) else ""
            inside = f" in {excerpt(place, 200)}" if place else ""
            message = f"a file{inside} cannot be written: {os.strerror(number)}{detail}"
        elif isinstance(cause, OSError) and number in (errno.EMFILE, errno.ENFILE):
            path, message = None, os.strerror(number)
        else:
            continue
        key = None if path is None else str(path)
        return FileError(message, key=key, value=number, hint=remedy(cause, path))
    return None


def _without_inodes(place: Path) -> bool:
    """Returns whether a file system has free bytes but no free inode."""
    for folder in (place, *place.parents):
        try:
            facts = os.statvfs(folder)
        except OSError:
            continue
        return bool(facts.f_files) and facts.f_favail == 0 and facts.f_bavail > 0
    return False
