"""Locks on open files that end with their process.

The library filelock is not used. It opens the file for writing, so it could not wait for a lock of
another user; and it empties the file before it holds the lock, which would erase the number of the
process that does.
"""

import os
import sys
import time

BEYOND_TEXT = 2**30
"""Offset of the byte that is locked on Windows, where a locked byte cannot be read."""


def lock(descriptor: int, *, wait: bool) -> None:
    """Locks an open file.

    If another process holds the lock, waits for it or, without `wait`, raises BlockingIOError.
    Raises OSError if the file system does not lock files.
    """
    if sys.platform != "win32":
        import fcntl

        fcntl.flock(descriptor, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        return
    import msvcrt

    while True:
        os.lseek(descriptor, BEYOND_TEXT, os.SEEK_SET)
        try:
            msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)
            return
        except PermissionError as error:
            if not wait:
                raise BlockingIOError(error.errno, error.strerror) from error
        time.sleep(0.1)


def is_locked(descriptor: int) -> bool:
    """Returns whether another process holds the lock of a file that is open for reading; True if
    the file system does not say.

    Holds a shared lock for an instant, in which no other process can lock the file.
    """
    if sys.platform == "win32":
        return True
    import fcntl

    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError:
        return True
    fcntl.flock(descriptor, fcntl.LOCK_UN)
    return False
