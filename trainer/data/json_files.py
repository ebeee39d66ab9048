"""JSON files, plain or with .gz: opened, and the line at which one is broken."""

import gzip
import json
import zlib
from pathlib import Path
from typing import IO, Any, cast


def opened(file: Path) -> IO[bytes]:
    """Returns the content of a file as a stream."""
    return cast(IO[bytes], gzip.open(file)) if file.suffix == ".gz" else file.open("rb")


def problem_in(file: Path, *, lines: bool) -> str | None:
    """Returns a sentence about the line at which a file is broken; None where none is.

    `lines` says that each line is an object. Otherwise a file may also be one value as a whole,
    which it is unless its first line is an object already.
    """
    try:
        return _problem_in_lines(file, lines=lines)
    except (OSError, EOFError, zlib.error):  # no JSON is read that far
        return None


def _problem_in_lines(file: Path, *, lines: bool) -> str | None:
    with opened(file) as stream:
        for number, line in enumerate(stream, 1):
            if not line.strip():
                continue
            value, problem, _ = _parsed(line.rstrip())
            if not lines and not isinstance(value, dict):
                return _problem_in_whole(file)
            if problem is not None:
                return f"line {number} is not valid JSON ({problem}); mend or remove that line"
            if not isinstance(value, dict):
                return f"line {number} is not a JSON object; mend or remove that line"
            lines = True
    return None


def _problem_in_whole(file: Path) -> str | None:
    with opened(file) as stream:
        _, problem, line = _parsed(stream.read())
    return problem and f"line {line} is not valid JSON ({problem}); mend the file there"


def _parsed(text: bytes) -> tuple[Any, str | None, int]:
    """Returns the value of a text, otherwise what is wrong with it and in which of its lines."""
    try:
        return json.loads(text), None, 0
    except json.JSONDecodeError as error:
        return None, f"{error.msg} at character {error.colno}", error.lineno
    except UnicodeDecodeError as error:
        return None, "not UTF-8", text.count(b"\n", 0, error.start) + 1
