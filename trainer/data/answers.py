"""Reads answers and is_impossible of a question in the forms in which data sets write them."""

import json
import re
from collections.abc import Mapping
from typing import Any, cast

from trainer.wording import excerpt

Answers = tuple[tuple[str, int], ...]
"""Texts and the characters of the context at which they start."""

YES, NO = ("true", "1"), ("false", "0")


def is_impossible(value: Any) -> bool | None:
    """Returns whether a question is marked as having no answer, or None if it is not marked.

    Texts and numbers count: "false" and 0 are False. Raises ValueError for any other value.
    """
    if value is None or value != value:
        return None
    text = str(int(value) if value in (0, 1) else value).strip().lower()
    if text in YES or text in NO:
        return text in YES
    if not text:
        return None
    raise ValueError(f"is_impossible is {excerpt(repr(value))}; write true or false")


def answers_of(value: Any) -> Answers | None:
    """Returns the answers of a row, none for an empty list; None where it says nothing of them.

    They are an object of text and answer_start, with a list or one value each, a list of such
    objects, or either as JSON text. Raises ValueError for anything else.
    """
    if isinstance(value, str):
        try:
            value = json.loads(value) if value.strip() else None
        except (ValueError, RecursionError):
            raise _wrong(value) from None
    if value is None or (isinstance(value, dict) and _given(cast(Any, value)) == (None, None)):
        return None
    if isinstance(value, list):
        objects = cast(list[Any], value)
    elif isinstance(value, dict):
        objects = _objects(cast(dict[str, Any], value))
    else:
        raise _wrong(value)
    found: list[tuple[str, int]] = []
    for one in objects:
        text, start = _given(one) if isinstance(one, dict) else (None, None)
        number = _whole(start)
        if not isinstance(text, str) or number is None:
            raise _wrong(value)
        found.append((text, number))
    return tuple(found)


def answer_texts(value: Any) -> list[str]:
    """Returns the texts of the answers of a row that `answers_of` reads."""
    return [text for text, _ in answers_of(value) or ()]


def _given(value: Mapping[str, Any]) -> tuple[Any, Any]:
    return value.get("text"), value.get("answer_start")


def _objects(value: Mapping[str, Any]) -> list[Any]:
    """Returns an object for each answer of an object that holds all of them."""
    texts, starts = _given(value)
    if not isinstance(texts, list) and not isinstance(starts, list):
        return [value]
    if not isinstance(texts, list) or not isinstance(starts, list):
        raise _wrong(value)
    listed = cast(list[Any], texts), cast(list[Any], starts)
    if len(listed[0]) != len(listed[1]):
        raise _wrong(value)
    return [{"text": text, "answer_start": start} for text, start in zip(*listed, strict=True)]


def _whole(value: Any) -> int | None:
    """Returns a whole number, also one that a table holds as text or with a fraction of 0."""
    if isinstance(value, str) and re.fullmatch(r"\s*-?[0-9]{1,18}\s*", value, re.ASCII):
        return int(value)
    if isinstance(value, float) and value.is_integer():
        return int(value)
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def _wrong(value: Any) -> ValueError:
    return ValueError(
        f"the answers are no texts with an answer_start each, such as "
        f'{{"text": ["Oslo"], "answer_start": [17]}}: {excerpt(value)}; fix the row'
    )
