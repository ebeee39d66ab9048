"""Strict JSON: one object per line, a list of objects, or an object that contains the list."""

import json
import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from trainer.data.formats.reading import LONGEST_LINE, binary_lines, faults_named, opened, shown
from trainer.errors import DataError
from trainer.wording import excerpt, listed

DEEPEST = 50
"""Maximum nesting; with several hundred levels, libraries crash the process."""

BOM = b"\xef\xbb\xbf"
ESCAPED_SURROGATE = re.compile(r"\\u[dD][89a-fA-F]")
READ = "a list of objects, an object a line, or an object with the list under data"


def json_rows_of(files: Sequence[Path]) -> Iterator[dict[str, Any]]:
    """Yields the rows of files, with their values unchanged.

    Raises DataError, naming the line, for invalid JSON and for values that readers interpret
    differently: duplicate keys, integers beyond 64 bits, halves of surrogate pairs. Also raises it
    if a later file has columns that the first one lacks.
    """
    known: dict[str, None] = {}
    for index, file in enumerate(files):
        columns: dict[str, None] = {}
        lines = rows_of_lines(binary_lines(file), shown(file)) if _is_lines(file) else None
        for row in _rows_of_whole(file) if lines is None else lines:
            columns |= dict.fromkeys(row)
            yield row
        if index == 0:
            known = columns
        elif new := [name for name in columns if name not in known]:
            raise DataError(
                f"{shown(file)} cannot be read with {shown(files[0])}: it has {listed(new)}, and "
                f"the other {listed(known) or 'nothing'}",
                key=shown(file),
                value=new,
                hint="give both the same columns",
            )


def _is_lines(file: Path) -> bool:
    """Returns whether a file holds one value per line rather than a single value.

    A .json file does if its first line is a complete object and another line follows; a .jsonl file
    does unless its first line is the beginning of an object or a list.
    """
    jsonl = ".jsonl" in (file.suffix.lower(), file.with_suffix("").suffix.lower())
    after_first = False
    with faults_named(file), opened(file) as stream:
        while line := stream.readline(LONGEST_LINE):
            text = line.removeprefix(BOM).strip()
            if after_first and text:
                return True
            if not text:
                continue
            if not text.startswith(b"{"):
                return jsonl and not text.startswith(b"[")
            if len(line) == LONGEST_LINE or _parsed(text)[1] is not None:
                return jsonl and b"}" in text[1:] and not _is_beginning(text)
            after_first = True
    return jsonl


def _is_beginning(text: bytes) -> bool:
    """Returns whether a line looks like the beginning of an object that spans several lines."""
    return text in (b"{", b"[") or text.endswith((b",", b"{", b"["))


def _rows_of_whole(file: Path) -> list[dict[str, Any]]:
    values = _values(file)
    return values if len(values) > 1 else rows_of_value(values[0], file)


def whole_value(file: Path) -> Any:
    """Returns the single value of a file; raises DataError if there are several."""
    values = _values(file)
    if len(values) > 1:
        raise DataError(
            f"{shown(file)} holds {len(values):,} values, not one",
            key=shown(file),
            hint="fix the file",
        )
    return values[0]


def _values(file: Path) -> list[Any]:
    """Returns the value of a whole file, or its objects if several follow each other."""
    with faults_named(file), opened(file) as stream:
        content = stream.read().removeprefix(BOM).rstrip()
    values, problem, line = _parsed(content)
    if problem is not None:
        raise DataError(
            f"{shown(file)}, line {line} is not {problem}",
            key=shown(file),
            value=line,
            hint="fix the file there",
        )
    return values


def rows_of_value(value: Any, file: Path) -> list[dict[str, Any]]:
    """Returns the rows in the value of a whole file.

    A list of texts becomes a column `text`. An object is read as its list under `data`, as columns
    if all its values are equally long lists without objects, and otherwise as a single row. Raises
    DataError for anything else.
    """
    if isinstance(value, dict) and isinstance(value.get("data"), list):
        place, rows = f"{shown(file)}: the list under data", value["data"]
    elif isinstance(value, list):
        place, rows = f"{shown(file)}: the list", value
    elif isinstance(value, dict) and not any(map(_has_rows, value.values())):
        return _rows_of_columns(value) if _is_columns(value) else [value]
    else:
        raise DataError(
            f"{shown(file)} holds {_kind(value)}", key=shown(file), hint=f"what is read is {READ}"
        )
    if rows and all(isinstance(row, str) for row in rows):
        return [{"text": row} for row in rows]
    for number, row in enumerate(rows, 1):
        if not isinstance(row, dict):
            raise DataError(
                f"{place} has {_kind(row)} as entry {number}",
                key=shown(file),
                value=number,
                hint=f"what is read is {READ}",
            )
    return rows


def _has_rows(value: Any) -> bool:
    """Returns whether a value is a list of objects other than the turns of a conversation."""
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


def rows_of_lines(lines: Iterable[tuple[int, bytes]], place: str) -> Iterator[dict[str, Any]]:
    """Yields the object in each of the numbered lines that is not blank.

    Raises DataError, which names `place` and the line, for any other content.
    """
    for number, line in lines:
        content = line.removeprefix(BOM) if number == 1 else line
        if not content.strip():
            continue
        values, problem, _ = _parsed(content.rstrip())
        if problem is None and not isinstance(values[0], dict):
            problem = "a JSON object"
        if problem is not None:
            raise DataError(
                f"{place}, line {number} is not {problem}",
                key=place,
                value=number,
                hint="fix or remove that line",
            )
        yield from values


class _AmbiguousError(ValueError):
    """A value that readers interpret differently."""


def _parsed(content: bytes) -> tuple[list[Any], str | None, int]:
    """Returns the values of a text; or no values, what it is not ("valid JSON") and the line."""
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
    """Yields the values of a text: one, or several objects with only white space between them."""
    value, end = DECODER.raw_decode(text, _skip_spaces(text, 0))
    yield value
    while (start := _skip_spaces(text, end)) < len(text):
        if not isinstance(value, dict) or text[start] != "{":
            raise json.JSONDecodeError("Extra data", text, start)
        value, end = DECODER.raw_decode(text, start)
        yield value


def _skip_spaces(text: str, start: int) -> int:
    """Returns the position of the next character that is not white space."""
    match = SPACES.match(text, start)
    return match.end() if match else start


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    mapping = dict(pairs)
    if len(mapping) < len(pairs):
        keys = [key for key, _ in pairs]
        repeated = next(key for key in keys if keys.count(key) > 1)
        raise _AmbiguousError(f"the key {excerpt(repeated, 40)!r} occurs twice in one object")
    return mapping


def _integer(digits: str) -> int:
    number = int(digits) if len(digits) <= 20 else 2**64
    if not -(2**63) <= number < 2**64:
        raise _AmbiguousError(f"the number {excerpt(digits, 40)} is beyond 64 bits; quote it")
    return number


DECODER = json.JSONDecoder(object_pairs_hook=_object, parse_int=_integer)
SPACES = re.compile(r"[ \t\n\r]*")


def _depth(value: Any) -> int:
    depth, level = 0, [value]
    while level:
        depth += 1
        level = [
            inner
            for outer in level
            if isinstance(outer, dict | list)
            for inner in (outer.values() if isinstance(outer, dict) else outer)
        ]
    return depth


def _kind(value: Any) -> str:
    if isinstance(value, dict):
        return f"an object of {listed(value) or 'nothing'}"
    if isinstance(value, list):
        return "a list"
    return f"{excerpt(json.dumps(value), 40)}"
