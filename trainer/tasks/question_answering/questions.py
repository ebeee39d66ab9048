"""Questions: rows with a question, its context and its answers, checked."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, cast

from trainer.data.answers import Answers, answers_of, is_impossible
from trainer.data.rows import numbered
from trainer.errors import DataError
from trainer.wording import excerpt

if TYPE_CHECKING:
    from datasets import Dataset


@dataclass(frozen=True)
class Question:
    """A question about a context."""

    place: str
    """How messages name the row."""
    question: str
    context: str
    answers: Answers
    """Empty if the context does not answer the question."""


def answer_state(rows: "Dataset", column: str) -> Literal["answers", "no answers", "nothing"]:
    """Returns what a column holds: "answers" if any row has one, "no answers" if none has one but
    some say so with an empty list, "nothing" if every row is empty.

    A malformed value counts as an answer: encoding reports it, with its row.
    """
    state: Literal["no answers", "nothing"] = "nothing"
    for _, chunk in numbered(rows, [column]):
        for value in chunk[column]:
            try:
                answers = answers_of(value)
            except DataError:
                return "answers"
            if answers:
                return "answers"
            if answers is not None:
                state = "no answers"
    return state


def question_of(
    row: dict[str, Any], number: int, known_ids: dict[str, int]
) -> Question | DataError:
    """Returns the question of a row, or an error that says what is wrong with the row.

    `known_ids` maps each id so far to the number of its row, and gets this row's. If the row has
    `is_impossible`, it must agree with the answers.
    """
    if row["id"] is None or not str(row["id"]).strip():
        return DataError(
            f"row {number} has no id",
            key="data.columns.id",
            value=row["id"],
            hint="give each question its own",
        )
    name = str(row["id"])
    place = f"row {number} (id {excerpt(name)})"
    if name in known_ids:
        return DataError(
            f"{place}: row {known_ids[name]} has the same id",
            key="data.columns.id",
            value=row["id"],
            hint="give each question its own",
        )
    known_ids[name] = number
    for key in ("question", "context"):
        if not isinstance(row[key], str) or not row[key].strip():
            return DataError(
                f"{place}: the {key} is empty",
                key=f"data.columns.{key}",
                value=row[key],
                hint="fix or remove the row",
            )
    question, context = cast(str, row["question"]), cast(str, row["context"])
    try:
        answers = answers_of(row["answers"])
        impossible = is_impossible(row.get("is_impossible"))
    except DataError as error:
        return error.after(f"{place}: ")
    if impossible and not any(text.strip() for text, _ in answers or ()):
        answers = ()
    if answers is None:
        return DataError(
            f"{place}: it has no answers",
            key="data.columns.answers",
            value=row["answers"],
            hint="give them, or an empty list if there is none",
        )
    if impossible is not None and impossible == bool(answers):
        given = f"an answer, {excerpt(answers[0][0])!r}" if answers else "no answer"
        return DataError(
            f"{place}: is_impossible is {str(impossible).lower()}, and there is {given}",
            key="is_impossible",
            value=row["is_impossible"],
            hint="fix it",
        )
    problem = _problem_of_answers(answers, context)
    if problem is not None:
        return problem.after(f"{place}: ")
    return Question(place, question.strip(), context, answers)


def _problem_of_answers(answers: Answers, context: str) -> DataError | None:
    """Returns why an answer is not a span of its context; None if all are."""
    for text, start in answers:
        if not text.strip():
            return DataError(
                "an answer is empty",
                key="data.columns.answers",
                value=text,
                hint="give a text, or no answer at all",
            )
        if not 0 <= start <= start + len(text) <= len(context) or (
            context[start : start + len(text)] != text
        ):
            near = context[max(start, 0) : max(start, 0) + len(text)]
            return DataError(
                f"the answer {excerpt(text)!r} is not at character {start} of the context, which "
                f"has {excerpt(near)!r} there",
                key="data.columns.answers",
                value=text,
                hint="fix its answer_start",
            )
    return None
