"""Errors of files and disks: what the system says, and what to do about each of them."""

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
"""What a path can be that is not a file, by the type in its mode."""
_ELSEWHERE = "or choose another folder"
REMEDIES = {
    errno.ENOSPC: "free space there, and run the same command",
    errno.EDQUOT: "your quota there is used up: remove files, and run the same command",
    errno.EFBIG: "a file may not be that large: see `ulimit -f`, or choose another file system",
    errno.EROFS: "the file system there is read-only: choose another folder",
    errno.EACCES: f"see its permissions, {_ELSEWHERE}",
    errno.EPERM: f"see its owner and attributes, {_ELSEWHERE}",
    errno.EIO: "the disk or its network fails: see the log of the system, and run the same command",
    errno.ESTALE: "the network's file system has lost it: run the same command",
    errno.ENXIO: "it is no file that can be read or written: choose another",
    errno.ENODEV: "it is no file that can be read or written: choose another",
    errno.EMFILE: "too many files are open: raise `ulimit -n`",
    errno.ENFILE: "too many files are open on this machine: close some",
    errno.ENOTDIR: f"a file lies where a folder should: remove it, {_ELSEWHERE}",
    errno.EEXIST: f"a file lies where a folder should: remove it, {_ELSEWHERE}",
    errno.EISDIR: f"a folder lies where a file should: remove it, {_ELSEWHERE}",
    errno.ENOTEMPTY: f"something else lies in its place: remove it, {_ELSEWHERE}",
    errno.ELOOP: f"its links lead in a circle: remove them, {_ELSEWHERE}",
    errno.EMLINK: f"there are too many files: remove some, {_ELSEWHERE}",
    errno.ENAMETOOLONG: "choose a shorter name",
    errno.ENOENT: "it is not there, or was removed meanwhile",
    errno.EBUSY: "something else uses it: end that, and run the same command",
    errno.ETXTBSY: "something else uses it: end that, and run the same command",
    errno.ENOLCK: f"its file system does not lock files, {_ELSEWHERE}",
    errno.EOPNOTSUPP: f"its file system cannot do this, {_ELSEWHERE}",
}
"""What to do about what the system says, by its number."""
WRITING = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EIO, errno.ESTALE)
"""What is the disk's, whichever library says so, and about whatever file."""
_SPELLED = re.compile(r"(?:os error |[Ee]rrno )(\d{1,3})")
"""How Python, pyarrow and libraries in Rust spell the number."""


def kind_of_path(mode: int) -> str:
    """Returns what a path is, by its mode, such as a named pipe."""
    return KINDS.get(stat.S_IFMT(mode), "a file" if stat.S_ISREG(mode) else "something else")


def number_in(error: BaseException | str) -> int | None:
    """Returns the number of the system's error, also where a library has only spelled it."""
    if isinstance(error, OSError) and error.errno is not None:
        return error.errno
    found = _SPELLED.search(str(error))
    return int(found[1]) if found else None


def remedy(error: BaseException | str, place: Path | None = None) -> str:
    """Returns what to do about an error; `place` is where it happened, if that is known."""
    number = number_in(error)
    if number == errno.ENOSPC and place is not None and _without_inodes(place):
        return "no inodes are left: remove files there, and run the same command"
    return REMEDIES.get(number or 0, "see the log of the system, and run the same command")


def file_error(error: BaseException, place: Path | None = None) -> FileError | None:
    """Returns the sentence for an error of the file system, None for another error.

    `place` is where the command writes: an error does not always name its file.
    """
    for one in causes(error):
        number = number_in(one)
        if number not in REMEDIES or (one is not error and number not in WRITING):
            continue
        if isinstance(one, OSError) and isinstance(one.filename, str | bytes | os.PathLike):
            where = Path(os.fsdecode(one.filename))
            said = f"{excerpt(where, 200)}: {os.strerror(number)}"
        elif number in WRITING:
            where = place
            named = f" ({excerpt(one, 120)})" if not isinstance(one, OSError) else ""
            near = f" in {excerpt(place, 200)}" if place else ""
            said = f"a file{near} cannot be written: {os.strerror(number)}{named}"
        elif isinstance(one, OSError) and number in (errno.EMFILE, errno.ENFILE):
            where, said = None, os.strerror(number)
        else:
            continue
        return FileError(f"{said}; {remedy(one, where)}")
    return None


def _without_inodes(place: Path) -> bool:
    """Returns whether a file system has bytes left and no inode."""
    for folder in (place, *place.parents):
        try:
            found = os.statvfs(folder)
        except OSError:
            continue
        return bool(found.f_files) and found.f_favail == 0 and found.f_bavail > 0
    return False
