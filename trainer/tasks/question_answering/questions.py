"""Questions: rows with a question, its context and its answers, checked."""

from dataclasses import dataclass
from typing import Any, cast

from trainer.data.answers import Answers, answers_of, is_impossible
from trainer.errors import DataError
from trainer.wording import excerpt


@dataclass(frozen=True)
class Question:
    """A question about a context."""

    place: str
    """How messages name the row."""
    question: str
    context: str
    answers: Answers
    """Empty if the context does not answer the question."""


def question_of(
    row: dict[str, Any], number: int, known: dict[str, int]
) -> Question | str | DataError:
    """Returns the question of a row, or an error or a sentence about what is wrong with the row.

    `known` maps each id so far to the number of its row, and gets this row's. If the row has
    `is_impossible`, it must agree with the answers.
    """
    if row["id"] is None or not str(row["id"]).strip():
        return f"row {number} has no id; give each question its own"
    name = str(row["id"])
    place = f"row {number} (id {excerpt(name)})"
    if name in known:
        return f"{place}: row {known[name]} has the same id; give each question its own"
    known[name] = number
    for key in ("question", "context"):
        if not isinstance(row[key], str) or not row[key].strip():
            return f"{place}: the {key} is empty; fix or remove the row"
    try:
        answers = answers_of(row["answers"])
        impossible = is_impossible(row.get("is_impossible"))
    except DataError as error:
        return error.after(f"{place}: ")
    if impossible and not any(text.strip() for text, _ in answers or ()):
        answers = ()
    if answers is None:
        return f"{place}: it has no answers; give them, or an empty list where there is none"
    if impossible is not None and impossible == bool(answers):
        given = f"an answer, {excerpt(answers[0][0])!r}" if answers else "no answer"
        return f"{place}: is_impossible is {str(impossible).lower()}, and there is {given}; fix it"
    context = cast(str, row["context"])
    for text, start in answers:
        if not text.strip():
            return f"{place}: an answer is empty; give a text, or no answer at all"
        if not 0 <= start <= start + len(text) <= len(context) or (
            context[start : start + len(text)] != text
        ):
            near = context[max(start, 0) : max(start, 0) + len(text)]
            return (
                f"{place}: the answer {excerpt(text)!r} is not at character {start} of the "
                f"context, where {excerpt(near)!r} stands; fix its answer_start"
            )
    return Question(place, row["question"].strip(), context, answers)
