"""Rows of a question, its context and its answers, checked."""

from dataclasses import dataclass
from typing import Any, cast


@dataclass(frozen=True)
class Question:
    place: str
    """Names the row in sentences."""
    question: str
    context: str
    answers: tuple[tuple[str, int], ...]
    """Texts and the characters of the context at which they start; none if there is no answer."""


def question_of(row: dict[str, Any], number: int, known: dict[str, int]) -> Question | str:
    """Returns the question of a row, or a sentence that says what is wrong with it.

    `known` holds the number of the row of each id so far; the row's is added.
    """
    if row["id"] is None or not str(row["id"]).strip():
        return f"row {number} has no id; give each question its own"
    name = str(row["id"])
    place = f"row {number} (id {name})"
    if name in known:
        return f"{place}: row {known[name]} has the same id; give each question its own"
    known[name] = number
    for key in ("question", "context"):
        if not isinstance(row[key], str) or not row[key].strip():
            return f"{place}: the {key} is empty; mend or remove the row"
    answers = _answers(row["answers"])
    if answers is None:
        return (
            f"{place}: the answers are no texts with an answer_start each, such as "
            f'{{"text": ["Oslo"], "answer_start": [17]}}; mend the row'
        )
    context = cast(str, row["context"])
    for text, start in answers:
        if not text.strip():
            return f"{place}: an answer is empty; give a text, or no answer at all"
        if not 0 <= start <= start + len(text) <= len(context) or (
            context[start : start + len(text)] != text
        ):
            near = context[max(start, 0) : max(start, 0) + len(text)]
            return (
                f"{place}: the answer {text!r} is not at character {start} of the context, where "
                f"{near!r} stands; mend its answer_start"
            )
    return Question(place, row["question"].strip(), context, answers)


def _answers(value: Any) -> tuple[tuple[str, int], ...] | None:
    """Returns texts with their starts, None for anything else."""
    if not isinstance(value, dict):
        return None
    given = cast(dict[str, Any], value)
    texts, starts = given.get("text"), given.get("answer_start")
    if not isinstance(texts, list) or not isinstance(starts, list) or len(texts) != len(starts):
        return None
    pairs = tuple(zip(cast(list[Any], texts), cast(list[Any], starts), strict=True))
    if not all(isinstance(text, str) and isinstance(start, int) for text, start in pairs):
        return None
    return pairs
