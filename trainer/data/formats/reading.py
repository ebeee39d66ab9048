"""Opens and decodes files, plain or gzipped, line by line; any fault of a file is a DataError."""

import gzip
import stat
import zlib
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import contextmanager
from io import TextIOWrapper
from pathlib import Path
from typing import IO, Any, TypeVar, cast

from trainer.errors import DataError
from trainer.files.file_errors import FULL, kind_of_path
from trainer.wording import excerpt

Tables = Iterable[Any]
"""Rows as pyarrow tables of some thousand rows each."""

LONGEST_LINE = 256 * 2**20
"""Maximum characters or bytes of a line."""

CHUNK_ROWS, CHUNK_CHARACTERS = 10_000, 16 * 2**20
"""Maximum size of the chunks in which rows of text are written."""

Row = TypeVar("Row")
GZIP = b"\x1f\x8b"
UTF16 = (b"\xff\xfe", b"\xfe\xff")
SAVE = "save it as UTF-8, or name the encoding of a table in data.source.csv"


def shown(path: Path) -> str:
    """Returns a path for a message: printable, and only the end of a long one."""
    text = str(path).encode("utf-8", "backslashreplace").decode()
    return text if len(text) <= 200 else f"…{text[-199:]}"


def file_size(path: Path) -> int:
    """Returns the size of a regular file in bytes; raises DataError for anything else."""
    try:
        facts = path.stat()
    except (FileNotFoundError, NotADirectoryError) as error:
        raise DataError(f"there is no file {shown(path)}", key=shown(path)) from error
    except (OSError, ValueError) as error:  # a loop of links, a name too long, a NUL in it
        raise DataError(
            f"{shown(path)} cannot be read ({_reason(error)})", key=shown(path)
        ) from error
    if not stat.S_ISREG(facts.st_mode):
        raise DataError(
            f"{shown(path)} is {kind_of_path(facts.st_mode)}, not a file", key=shown(path)
        )
    return facts.st_size


def is_folder(path: Path) -> bool:
    """Returns whether a path is a folder; False for a path that cannot exist."""
    try:
        return path.is_dir()
    except (OSError, ValueError):
        return False


def is_file(path: Path) -> bool:
    """Returns whether a path is a regular file; False for a path that cannot exist."""
    try:
        return path.is_file()
    except (OSError, ValueError):
        return False


@contextmanager
def faults_named(file: Path) -> Generator[None]:
    """Context manager: turns an error of the disk, of gzip or of memory into a DataError.

    A full disk is passed on, because it concerns the file that is written.
    """
    try:
        yield
    except (OSError, EOFError, zlib.error) as error:
        if isinstance(error, OSError) and error.errno in FULL:
            raise
        raise DataError(
            f"{shown(file)} cannot be read ({_reason(error)})",
            key=shown(file),
            hint="fetch it again",
        ) from error
    except MemoryError as error:
        raise DataError(
            f"{shown(file)} does not fit into memory", key=shown(file), hint="divide it"
        ) from error


def is_zipped(file: Path) -> bool:
    """Returns whether a file starts with the magic bytes of gzip."""
    with faults_named(file), file.open("rb") as stream:
        return stream.read(2) == GZIP


def opened(file: Path) -> IO[bytes]:
    """Opens a file for reading, decompressed if its content is gzipped, whatever its name."""
    return cast(IO[bytes], gzip.open(file)) if is_zipped(file) else file.open("rb")


def lines_of(file: Path, encoding: str = "utf-8") -> Iterator[str]:
    """Yields the lines of a text file with their ends: LF, CR LF or CR.

    A byte order mark is skipped. Raises DataError if the file is not text in that encoding.
    """
    name = encoding.lower().replace("_", "-")
    unicode = name in ("utf-8", "utf8", "utf-8-sig")
    number = 0
    with faults_named(file), opened(file) as stream:
        if unicode and stream.read(2) in UTF16:
            raise DataError(f"{shown(file)} is UTF-16, not UTF-8", key=shown(file), hint=SAVE)
        stream.seek(0)
        text = TextIOWrapper(stream, "utf-8" if unicode else encoding, newline="")
        try:
            while line := text.readline(LONGEST_LINE):
                number += 1
                line = line.removeprefix("\ufeff") if number == 1 else line
                if len(line) == LONGEST_LINE:
                    raise DataError(
                        f"{shown(file)}, line {number} has more than {LONGEST_LINE:,} characters",
                        key=shown(file),
                        value=number,
                        hint="divide it",
                    )
                if "\0" in line:
                    raise DataError(
                        f"{shown(file)}, line {number} contains a NUL character",
                        key=shown(file),
                        value=number,
                        hint="if the file is UTF-16, save it as UTF-8",
                    )
                yield line
        except UnicodeError as error:
            line = f"line {_undecodable_line(file)}" if unicode else f"after line {number}"
            raise DataError(
                f"{shown(file)}, {line} is not {excerpt(encoding, 40)} text",
                key=shown(file),
                hint=SAVE,
            ) from error


def binary_lines(file: Path) -> Iterator[tuple[int, bytes]]:
    """Yields the LF-terminated lines of a file, each with its number, starting at 1."""
    with faults_named(file), opened(file) as stream:
        yield from numbered_lines(stream, shown(file))


def numbered_lines(stream: IO[bytes], place: str) -> Iterator[tuple[int, bytes]]:
    """Yields the LF-terminated lines of a stream, each with its number, starting at 1.

    `place` is the name of the stream in messages.
    """
    number = 0
    while line := stream.readline(LONGEST_LINE):
        number += 1
        if len(line) == LONGEST_LINE:
            raise DataError(
                f"{place}, line {number} has more than {LONGEST_LINE:,} bytes",
                key=place,
                value=number,
                hint="divide it",
            )
        yield number, line


def chunks_of(rows: Iterable[Row], length: Callable[[Row], int]) -> Iterator[list[Row]]:
    """Yields rows in chunks of at most CHUNK_ROWS; `length` counts the characters of a row."""
    chunk, size = list[Row](), 0
    for row in rows:
        chunk.append(row)
        size += length(row)
        if len(chunk) == CHUNK_ROWS or size > CHUNK_CHARACTERS:
            yield chunk
            chunk, size = [], 0
    if chunk:
        yield chunk


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
