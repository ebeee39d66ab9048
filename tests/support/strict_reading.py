"""The content of a file, read by simple code: the reference for tests of hostile files.

Functions return rows, or None for a file that has no single meaning and must be refused.
"""

import gzip
import json
import math
import zlib
from typing import Any

Rows = list[dict[str, Any]]


def strictly(name: str, content: bytes) -> Rows | None:
    """Returns the rows of a file by its name: .csv, .tsv, .json, .jsonl or .txt, also with .gz."""
    if content[:2] == b"\x1f\x8b":
        try:
            content = gzip.decompress(content)
        except (OSError, EOFError, zlib.error):
            return None
    kind = name.removesuffix(".gz").rpartition(".")[2]
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError:
        return None
    if kind in ("json", "jsonl"):
        return _json(text, lines=kind == "jsonl")
    if "\0" in text:
        return None
    if kind == "txt":
        return [{"text": line} for line in _lines(text)]
    return _table(_cells(text, *{"csv": (",", '"'), "tsv": ("\t", None)}[kind]))


def same_values(left: Any, right: Any) -> bool:
    """Returns whether two values have the same type and are equal, floats up to their last digits.

    An integer equals the float of the same value, and a missing key equals null.
    """
    if isinstance(left, dict) and isinstance(right, dict):
        return all(same_values(left.get(key), right.get(key)) for key in {**left, **right})
    if isinstance(left, list) and isinstance(right, list):
        return len(left) == len(right) and all(map(same_values, left, right))
    if type(left) in (int, float) and type(right) in (int, float):
        if int in (type(left), type(right)):
            return left == right
        return math.isclose(left, right, rel_tol=1e-9) or (left != left and right != right)
    return type(left) is type(right) and left == right


def _lines(text: str) -> list[str]:
    lines = text.replace("\r\n", "\n").replace("\r", "\n").split("\n")
    return lines[:-1] if lines[-1] == "" else lines


def _cells(text: str, delimiter: str, quote: str | None) -> list[list[str]] | None:
    """Returns the cells of each line that is not blank, by RFC 4180, character by character."""
    rows: list[list[str]] = []
    row: list[str] = []
    cell, place, quoted, bare = "", 0, False, True
    while place < len(text):
        character = text[place]
        if quoted:
            if character != quote:
                cell += character
            elif text[place + 1 : place + 2] == quote:
                cell += character
                place += 1
            elif text[place + 1 : place + 2] not in ("", delimiter, "\n", "\r"):
                return None
            else:
                quoted = False
        elif (
            character == quote
            and cell == ""
            and text[place - 1 : place] in ("", "\n", "\r", delimiter)
        ):
            quoted, bare = True, False
        elif character == delimiter:
            row, cell = [*row, cell], ""
        elif character in "\r\n":
            if row or cell.strip(" \t") or not bare:
                rows.append([*row, cell])
            row, cell, bare = [], "", True
            place += text[place : place + 2] == "\r\n"
        else:
            cell += character
        place += 1
    if quoted:
        return None
    if row or cell.strip(" \t") or not bare:
        rows.append([*row, cell])
    return rows


def _table(cells: list[list[str]] | None) -> Rows | None:
    if not cells or len(cells) < 2:
        return None
    names = [name or f"Unnamed: {place}" for place, name in enumerate(cells[0])]
    if len(set(names)) < len(names) or any(len(row) != len(names) for row in cells):
        return None
    return [dict(zip(names, row, strict=True)) for row in cells[1:]]


class _WrongError(Exception):
    pass


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    if len(dict(pairs)) < len(pairs):
        raise _WrongError
    return dict(pairs)


def _values(text: str) -> list[Any]:
    """Returns the value of a text, or its objects, one after the other."""
    decoder = json.JSONDecoder(object_pairs_hook=_object)
    values: list[Any] = []
    text = text.strip(" \t\r\n")
    try:
        while text or not values:
            value, end = decoder.raw_decode(text)
            json.dumps(value, ensure_ascii=False).encode()
            values.append(value)
            text = text[end:].lstrip(" \t\r\n")
    except (ValueError, RecursionError) as error:
        raise _WrongError from error
    if len(values) > 1 and not all(isinstance(value, dict) for value in values):
        raise _WrongError
    return values


def _json(text: str, *, lines: bool) -> Rows | None:
    try:
        rows: Any = _values(text)
    except _WrongError:
        return None
    begun = lines and "\n" not in text.strip()
    if len(rows) == 1 and isinstance(rows[0], list):
        rows = rows[0]
        if rows and all(isinstance(row, str) for row in rows):
            rows = [{"text": row} for row in rows]
    elif len(rows) == 1 and not begun and isinstance(rows[0], dict):
        rows = rows[0]["data"] if isinstance(rows[0].get("data"), list) else rows
    if not rows or not all(isinstance(row, dict) for row in rows) or not any(rows):
        return None
    names = dict.fromkeys(name for row in rows for name in row)
    return [{name: row.get(name) for name in names} for row in rows]
