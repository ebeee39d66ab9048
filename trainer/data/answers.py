"""Reads a question's answers, and whether it has any, in the forms in which data sets hold them."""

import json
import re
from collections.abc import Mapping
from typing import Any, cast

from trainer.errors import DataError
from trainer.wording import excerpt

Answers = tuple[tuple[str, int], ...]
"""Texts, each with the index of the character of the context at which it starts."""

YES, NO = ("true", "1"), ("false", "0")


def is_impossible(value: Any) -> bool | None:
    """Returns whether a question is marked as having no answer, or None if it is not marked.

    Texts and numbers count: "false" and 0 are False. Raises DataError for any other value.
    """
    if value is None or value != value:
        return None
    text = str(int(value) if value in (0, 1) else value).strip().lower()
    if text in YES or text in NO:
        return text in YES
    if not text:
        return None
    raise DataError(
        f"is_impossible is {excerpt(repr(value))}",
        key="is_impossible",
        value=value,
        hint="write true or false",
    )


def answers_of(value: Any) -> Answers | None:
    """Returns the answers of a row: none of them for an empty list, None if they are not known.

    `value` is an object of text and answer_start, each a list or a single value; a list of such
    objects; or either as JSON text. Raises DataError for anything else.
    """
    if isinstance(value, str):
        try:
            value = json.loads(value) if value.strip() else None
        except (ValueError, RecursionError):
            raise _wrong(value) from None
    if value is None or (isinstance(value, dict) and _fields(cast(Any, value)) == (None, None)):
        return None
    if isinstance(value, list):
        objects = cast(list[Any], value)
    elif isinstance(value, dict):
        objects = _objects(cast(dict[str, Any], value))
    else:
        raise _wrong(value)
    answers: list[tuple[str, int]] = []
    for item in objects:
        text, start = _fields(item) if isinstance(item, dict) else (None, None)
        index = _integer(start)
        if not isinstance(text, str) or index is None:
            raise _wrong(value)
        answers.append((text, index))
    return tuple(answers)


def answer_texts(value: Any) -> list[str]:
    """Returns the texts of the answers in a value that `answers_of` reads."""
    return [text for text, _ in answers_of(value) or ()]


def _fields(answer: Mapping[str, Any]) -> tuple[Any, Any]:
    return answer.get("text"), answer.get("answer_start")


def _objects(value: Mapping[str, Any]) -> list[Any]:
    """Returns one object per answer of an object that holds them in two lists."""
    texts, starts = _fields(value)
    if not isinstance(texts, list) and not isinstance(starts, list):
        return [value]
    if not isinstance(texts, list) or not isinstance(starts, list):
        raise _wrong(value)
    lists = cast(list[Any], texts), cast(list[Any], starts)
    if len(lists[0]) != len(lists[1]):
        raise _wrong(value)
    return [{"text": text, "answer_start": start} for text, start in zip(*lists, strict=True)]


def _integer(value: Any) -> int | None:
    """Returns an integer, also from text or from a float without a fraction, as tables hold it."""
    if isinstance(value, str) and re.fullmatch(r"\s*-?[0-9]{1,18}\s*", value, re.ASCII):
        return int(value)
    if isinstance(value, float) and value.is_integer():
        return int(value)
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def _wrong(value: Any) -> DataError:
    return DataError(
        f"the answers are not texts with an answer_start each, such as "
        f'{{"text": ["Oslo"], "answer_start": [17]}}: {excerpt(value)}',
        key="data.columns.answers",
        value=value,
        hint="fix the row",
    )
