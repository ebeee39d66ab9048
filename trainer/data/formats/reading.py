"""Files opened and decoded: plain or zipped, one line after the other, each fault one sentence."""

import errno
import gzip
import stat
import zlib
from collections.abc import Generator, Iterable, Iterator
from contextlib import contextmanager
from io import TextIOWrapper
from pathlib import Path
from typing import IO, Any, cast

from trainer.errors import DataError
from trainer.files.file_errors import kind_of_path
from trainer.wording import excerpt

Tables = Iterable[Any]
"""Rows as tables of pyarrow, some thousand in each."""

LONGEST_LINE = 256 * 2**20
"""Characters or bytes of the longest line that is read."""

FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
GZIP = b"\x1f\x8b"
UTF16 = (b"\xff\xfe", b"\xfe\xff")
SAVE = "save it as UTF-8, or name the encoding of a table in data.source.csv"


def shown(path: Path) -> str:
    """Returns a path as a message has it: printable, and without the beginning of a long one."""
    text = str(path).encode("utf-8", "backslashreplace").decode()
    return text if len(text) <= 200 else f"…{text[-199:]}"


def file_size(path: Path) -> int:
    """Returns the bytes of a regular file; raises DataError for whatever is none."""
    try:
        facts = path.stat()
    except (FileNotFoundError, NotADirectoryError) as error:
        raise DataError(f"there is no file {shown(path)}") from error
    except (OSError, ValueError) as error:  # a loop of links, a name too long, a NUL in it
        raise DataError(f"{shown(path)} cannot be read ({_reason(error)})") from error
    if not stat.S_ISREG(facts.st_mode):
        raise DataError(f"{shown(path)} is {kind_of_path(facts.st_mode)}, not a file")
    return facts.st_size


def is_folder(path: Path) -> bool:
    """Returns whether a path is a folder; one that no file can have is none."""
    try:
        return path.is_dir()
    except (OSError, ValueError):
        return False


def is_file(path: Path) -> bool:
    """Returns whether a path is a regular file, likewise."""
    try:
        return path.is_file()
    except (OSError, ValueError):
        return False


@contextmanager
def faults_named(file: Path) -> Generator[None]:
    """Makes a DataError that names the file of an error of the disk, of zip or of memory.

    That a disk is full is about another file.
    """
    try:
        yield
    except (OSError, EOFError, zlib.error) as error:
        if isinstance(error, OSError) and error.errno in FULL:
            raise
        raise DataError(
            f"{shown(file)} cannot be read ({_reason(error)}); fetch it again"
        ) from error
    except MemoryError as error:
        raise DataError(f"{shown(file)} does not fit into memory; divide it") from error


def is_zipped(file: Path) -> bool:
    """Returns whether the first bytes of a file are those of gzip."""
    with faults_named(file), file.open("rb") as stream:
        return stream.read(2) == GZIP


def opened(file: Path) -> IO[bytes]:
    """Returns the content of a file as a stream; what is zipped is known by its first bytes."""
    return cast(IO[bytes], gzip.open(file)) if is_zipped(file) else file.open("rb")


def lines_of(file: Path, encoding: str = "utf-8") -> Iterator[str]:
    """Yields the lines of a text with their ends, which are LF, CR LF or CR.

    A byte order mark is left out. Raises DataError for what is not text in that encoding.
    """
    name = encoding.lower().replace("_", "-")
    unicode = name in ("utf-8", "utf8", "utf-8-sig")
    number = 0
    with faults_named(file), opened(file) as stream:
        if unicode and stream.read(2) in UTF16:
            raise DataError(f"{shown(file)} is UTF-16, not UTF-8; {SAVE}")
        stream.seek(0)
        text = TextIOWrapper(stream, "utf-8" if unicode else encoding, newline="")
        try:
            while line := text.readline(LONGEST_LINE):
                number += 1
                line = line.removeprefix("\ufeff") if number == 1 else line
                if len(line) == LONGEST_LINE:
                    raise DataError(
                        f"{shown(file)}, line {number} has more than {LONGEST_LINE:,} characters; "
                        f"divide it"
                    )
                if "\0" in line:
                    raise DataError(
                        f"{shown(file)}, line {number} has a NUL character, as no text has; is it "
                        f"UTF-16? Save it as UTF-8"
                    )
                yield line
        except UnicodeError as error:
            place = f", line {_undecodable_line(file)}" if unicode else f", after line {number}"
            raise DataError(
                f"{shown(file)}{place} is not {excerpt(encoding, 40)} text; {SAVE}"
            ) from error


def binary_lines(file: Path) -> Iterator[tuple[int, bytes]]:
    """Yields the lines of a file, which end with LF, with their numbers from 1."""
    number = 0
    with faults_named(file), opened(file) as stream:
        while line := stream.readline(LONGEST_LINE):
            number += 1
            if len(line) == LONGEST_LINE:
                raise DataError(
                    f"{shown(file)}, line {number} has more than {LONGEST_LINE:,} bytes; divide it"
                )
            yield number, line


def _undecodable_line(file: Path) -> int:
    number = 0
    for number, line in binary_lines(file):
        try:
            line.decode()
        except UnicodeDecodeError:
            return number
    return number


def _reason(error: BaseException) -> str:
    return excerpt(getattr(error, "strerror", None) or error or type(error).__name__)
