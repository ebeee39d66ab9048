"""JSON files read strictly: an object a line, a list of them, or an object with the list in it."""

import json
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from trainer.data.reading import binary_lines, faults_named, opened, shown
from trainer.errors import DataError, excerpt, listed

DEEPEST = 50
"""Levels of the deepest value: beyond some hundred, libraries end the process."""

BOM = b"\xef\xbb\xbf"
ESCAPED_SURROGATE = re.compile(r"\\u[dD][89a-fA-F]")
READ = "a list of objects, an object a line, or an object with the list under data"


def json_rows_of(files: Sequence[Path]) -> Iterator[dict[str, Any]]:
    """Yields the rows of files, each as it stands there; of .jsonl each line is one.

    Raises DataError with the line for what is not valid JSON, or means another thing to each
    reader: keys that occur twice, whole numbers beyond 64 bits, halves of surrogate pairs. And for
    a later file that has columns which the first one lacks.
    """
    known: dict[str, None] = {}
    for place, file in enumerate(files):
        found: dict[str, None] = {}
        lines = ".jsonl" in (file.suffix.lower(), file.with_suffix("").suffix.lower())
        for row in _rows_of_lines(file) if lines or is_lines(file) else _rows_of_whole(file):
            found |= dict.fromkeys(row)
            yield row
        if place == 0:
            known = found
        elif new := [name for name in found if name not in known]:
            raise DataError(
                f"{shown(file)} cannot be read with {shown(files[0])}: it has {listed(new)}, and "
                f"the other {listed(known) or 'nothing'}"
            )


def is_lines(file: Path) -> bool:
    """Returns whether a .json file has an object in its first line, and something after it."""
    first = False
    for _, line in binary_lines(file):
        text = line.removeprefix(BOM).strip()
        if not text:
            continue
        if first:
            return True
        try:
            first = text.startswith(b"{") and isinstance(json.loads(text.decode()), dict)
        except (ValueError, RecursionError):
            return False
        if not first:
            return False
    return False


def _rows_of_whole(file: Path) -> list[dict[str, Any]]:
    return rows_of_value(whole_value(file), file)


def whole_value(file: Path) -> Any:
    """Returns the one value that a file holds."""
    with faults_named(file), opened(file) as stream:
        content = stream.read().removeprefix(BOM)
    value, problem, line = _parsed(content)
    if problem is not None:
        raise DataError(f"{shown(file)}, line {line} is not {problem}; mend the file there")
    return value


def rows_of_value(value: Any, file: Path) -> list[dict[str, Any]]:
    """Returns the rows that a whole file holds; raises DataError that says what it holds instead.

    A list of texts gives rows of a column `text`. An object is its list under `data`, columns if
    all its values are lists of one length without objects, and otherwise one row.
    """
    if isinstance(value, dict) and isinstance(value.get("data"), list):
        where, rows = f"{shown(file)}: the list under data", value["data"]
    elif isinstance(value, list):
        where, rows = f"{shown(file)}: the list", value
    elif isinstance(value, dict) and not any(map(_has_rows, value.values())):
        return _rows_of_columns(value) if _is_columns(value) else [value]
    else:
        raise DataError(f"{shown(file)} holds {_kind(value)}; what is read is {READ}")
    if rows and all(isinstance(row, str) for row in rows):
        return [{"text": row} for row in rows]
    for number, row in enumerate(rows, 1):
        if not isinstance(row, dict):
            raise DataError(f"{where} has {_kind(row)} as entry {number}; what is read is {READ}")
    return rows


def _has_rows(value: Any) -> bool:
    """Returns whether a value is a list of objects that are no turns of a conversation."""
    return (
        isinstance(value, list)
        and bool(value)
        and all(isinstance(row, dict) and not row.keys() & {"role", "from"} for row in value)
    )


def _is_columns(value: dict[str, Any]) -> bool:
    lengths = {
        len(column)
        if isinstance(column, list) and not any(isinstance(cell, dict) for cell in column)
        else None
        for column in value.values()
    }
    return len(lengths) == 1 and None not in lengths


def _rows_of_columns(value: dict[str, list[Any]]) -> list[dict[str, Any]]:
    return [dict(zip(value, cells, strict=True)) for cells in zip(*value.values(), strict=True)]


def _rows_of_lines(file: Path) -> Iterator[dict[str, Any]]:
    for number, line in binary_lines(file):
        content = line.removeprefix(BOM) if number == 1 else line
        if not content.strip():
            continue
        value, problem, _ = _parsed(content.rstrip())
        parts = content.split(b"\r")
        if problem is not None and len(parts) > 1:  # lines that end as on old Macintoshes
            for part in filter(bytes.strip, parts):
                value, problem, _ = _parsed(part)
                yield _row(value, problem, file, number)
            continue
        yield _row(value, problem, file, number)


def _row(value: Any, problem: str | None, file: Path, number: int) -> dict[str, Any]:
    if problem is not None:
        raise DataError(f"{shown(file)}, line {number} is not {problem}; mend or remove that line")
    if not isinstance(value, dict):
        raise DataError(
            f"{shown(file)}, line {number} is not a JSON object; mend or remove that line"
        )
    return value


class _AmbiguousError(ValueError):
    """A value that readers take for different things."""


def _parsed(content: bytes) -> tuple[Any, str | None, int]:
    """Returns the value of a text, otherwise what it is not, and in which of its lines."""
    try:
        text = content.decode()
        value = json.loads(text, object_pairs_hook=_object, parse_int=_whole_number)
        if ESCAPED_SURROGATE.search(text):
            json.dumps(value, ensure_ascii=False).encode()
        if text.count("[") + text.count("{") > DEEPEST and _depth(value) > DEEPEST:
            return None, f"readable JSON (more than {DEEPEST} levels deep)", 1
    except json.JSONDecodeError as error:
        return None, f"valid JSON ({error.msg} at character {error.colno})", error.lineno
    except UnicodeDecodeError as error:
        return None, "valid JSON (not UTF-8)", content.count(b"\n", 0, error.start) + 1
    except UnicodeEncodeError:
        return None, "valid JSON (half of a surrogate pair)", 1
    except _AmbiguousError as error:
        return None, f"readable JSON ({error})", 1
    except RecursionError:
        return None, f"readable JSON (more than {DEEPEST} levels deep)", 1
    return value, None, 0


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    made = dict(pairs)
    if len(made) < len(pairs):
        keys = [key for key, _ in pairs]
        twice = next(key for key in keys if keys.count(key) > 1)
        raise _AmbiguousError(f"the key {excerpt(twice, 40)!r} occurs twice in one object")
    return made


def _whole_number(digits: str) -> int:
    number = int(digits) if len(digits) <= 20 else 2**64
    if not -(2**63) <= number < 2**63:
        raise _AmbiguousError(f"the number {excerpt(digits, 40)} is beyond 64 bits; quote it")
    return number


def _depth(value: Any) -> int:
    depth, level = 0, [value]
    while level:
        depth += 1
        level = [
            inner
            for one in level
            if isinstance(one, dict | list)
            for inner in (one.values() if isinstance(one, dict) else one)
        ]
    return depth


def _kind(value: Any) -> str:
    if isinstance(value, dict):
        return f"an object of {listed(value) or 'nothing'}"
    if isinstance(value, list):
        return "a list"
    return f"{excerpt(json.dumps(value), 40)}"
