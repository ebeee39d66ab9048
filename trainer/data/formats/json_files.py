"""JSON files read strictly: an object a line, a list of them, or an object with the list in it."""

import json
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from trainer.data.formats.reading import LONGEST_LINE, binary_lines, faults_named, opened, shown
from trainer.errors import DataError
from trainer.wording import excerpt, listed

DEEPEST = 50
"""Levels of the deepest value: beyond some hundred, libraries end the process."""

BOM = b"\xef\xbb\xbf"
ESCAPED_SURROGATE = re.compile(r"\\u[dD][89a-fA-F]")
READ = "a list of objects, an object a line, or an object with the list under data"


def json_rows_of(files: Sequence[Path]) -> Iterator[dict[str, Any]]:
    """Yields the rows of files, each as it stands there.

    Raises DataError with the line for what is not valid JSON, or means another thing to each
    reader: keys that occur twice, whole numbers beyond 64 bits, halves of surrogate pairs. And for
    a later file that has columns which the first one lacks.
    """
    known: dict[str, None] = {}
    for place, file in enumerate(files):
        found: dict[str, None] = {}
        for row in _rows_of_lines(file) if _is_lines(file) else _rows_of_whole(file):
            found |= dict.fromkeys(row)
            yield row
        if place == 0:
            known = found
        elif new := [name for name in found if name not in known]:
            raise DataError(
                f"{shown(file)} cannot be read with {shown(files[0])}: it has {listed(new)}, and "
                f"the other {listed(known) or 'nothing'}"
            )


def _is_lines(file: Path) -> bool:
    """Returns whether the lines of a file are values: of .jsonl the first is one, or no object or
    list begins with it; of .json it is an object, and something comes after it."""
    jsonl = ".jsonl" in (file.suffix.lower(), file.with_suffix("").suffix.lower())
    first = False
    with faults_named(file), opened(file) as stream:
        while line := stream.readline(LONGEST_LINE):
            text = line.removeprefix(BOM).strip()
            if first and text:
                return True
            if not text:
                continue
            if not text.startswith(b"{"):
                return jsonl and not text.startswith(b"[")
            if len(line) == LONGEST_LINE or _parsed(text)[1] is not None:
                return jsonl and b"}" in text[1:] and not _is_begun(text)
            first = True
    return jsonl


def _is_begun(text: bytes) -> bool:
    """Returns whether a text is the beginning of an object on several lines."""
    return text in (b"{", b"[") or text.endswith((b",", b"{", b"["))


def _rows_of_whole(file: Path) -> list[dict[str, Any]]:
    values = _values(file)
    return values if len(values) > 1 else rows_of_value(values[0], file)


def whole_value(file: Path) -> Any:
    """Returns the one value that a file holds; raises DataError for several."""
    values = _values(file)
    if len(values) > 1:
        raise DataError(f"{shown(file)} holds {len(values):,} values, not one; mend the file")
    return values[0]


def _values(file: Path) -> list[Any]:
    """Returns the value that a whole file holds, or its objects, one after the other."""
    with faults_named(file), opened(file) as stream:
        content = stream.read().removeprefix(BOM).rstrip()
    values, problem, line = _parsed(content)
    if problem is not None:
        raise DataError(f"{shown(file)}, line {line} is not {problem}; mend the file there")
    return values


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
        values, problem, _ = _parsed(content.rstrip())
        if problem is None and not isinstance(values[0], dict):
            problem = "a JSON object"
        if problem is not None:
            raise DataError(
                f"{shown(file)}, line {number} is not {problem}; mend or remove that line"
            )
        yield from values


class _AmbiguousError(ValueError):
    """A value that readers take for different things."""


def _parsed(content: bytes) -> tuple[list[Any], str | None, int]:
    """Returns the value of a text, or its objects, otherwise what it is not and in which line."""
    try:
        text = content.decode()
        values = list(_decoded(text))
        if ESCAPED_SURROGATE.search(text):
            json.dumps(values, ensure_ascii=False).encode()
        if text.count("[") + text.count("{") > DEEPEST and _depth(values) > DEEPEST + 1:
            return [], f"readable JSON (more than {DEEPEST} levels deep)", 1
    except json.JSONDecodeError as error:
        return [], f"valid JSON ({error.msg} at character {error.colno})", error.lineno
    except UnicodeDecodeError as error:
        return [], "valid JSON (not UTF-8)", content.count(b"\n", 0, error.start) + 1
    except UnicodeEncodeError:
        return [], "valid JSON (half of a surrogate pair)", 1
    except _AmbiguousError as error:
        return [], f"readable JSON ({error})", 1
    except RecursionError:
        return [], f"readable JSON (more than {DEEPEST} levels deep)", 1
    return values, None, 0


def _decoded(text: str) -> Iterator[Any]:
    """Yields the values of a text: one, or objects with nothing but spaces between them."""
    value, place = DECODER.raw_decode(text, _skipped(text, 0))
    yield value
    while (place := _skipped(text, place)) < len(text):
        if not isinstance(value, dict) or text[place] != "{":
            raise json.JSONDecodeError("Extra data", text, place)
        value, place = DECODER.raw_decode(text, place)
        yield value


def _skipped(text: str, place: int) -> int:
    """Returns the first place from here on at which no space of JSON stands."""
    found = SPACES.match(text, place)
    return found.end() if found else place


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


DECODER = json.JSONDecoder(object_pairs_hook=_object, parse_int=_whole_number)
SPACES = re.compile(r"[ \t\n\r]*")


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
