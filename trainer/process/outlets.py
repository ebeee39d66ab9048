"""Standard output and error that may go away: a run does not end because nobody reads it."""

import errno
import io
import os
import sys
from contextlib import suppress


class _Outlet(io.FileIO):
    """A file descriptor that discards what it cannot write, without an error."""

    problem: OSError | None = None

    def write(self, data: "io.ReadableBuffer", /) -> int | None:  # pyright: ignore
        try:
            return super().write(data)
        except OSError as error:
            self.problem = error
            # Libraries in C and processes that start later keep writing to this descriptor.
            with suppress(OSError):
                nowhere = os.open(os.devnull, os.O_WRONLY)
                os.dup2(nowhere, self.fileno())
                os.close(nowhere)
            return memoryview(data).nbytes


_outlets: list[_Outlet] = []


def open_outlets() -> None:
    """Opens standard descriptors that are closed, and makes output survive the loss of its reader.

    The next file to be opened would otherwise get a closed descriptor, and with it the lines that
    libraries print. Characters that the encoding lacks are escaped.
    """
    _outlets.clear()
    for descriptor in (0, 1, 2):
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # gets the lowest free number
    for descriptor, name in ((1, "stdout"), (2, "stderr")):
        old = getattr(sys, name)
        outlet = _Outlet(descriptor, "w", closefd=False)
        _outlets.append(outlet)
        stream = io.TextIOWrapper(
            io.BufferedWriter(outlet),
            encoding=getattr(old, "encoding", None) or "utf-8",
            errors="backslashreplace",
            line_buffering=outlet.isatty() or descriptor == 2,
        )
        if old is not None:
            old.flush()
        setattr(sys, name, stream)


def reader_left() -> bool:
    """Returns whether nobody reads standard output any more, as far as writing has shown it."""
    problem = _outlets[0].problem if _outlets else None
    return problem is not None and problem.errno == errno.EPIPE


def lost_output() -> OSError | None:
    """Returns why standard output could not be written; None if it was, or if its reader left."""
    if not _outlets:
        return None
    sys.stdout.flush()
    problem = _outlets[0].problem
    return None if problem is None or problem.errno in (errno.EPIPE, errno.EIO) else problem
