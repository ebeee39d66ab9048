"""The judgement of an answer to a question, and the part of its context that a reader needs."""

import re
from collections.abc import Mapping
from typing import Any

from trainer.data.answers import answers_of
from trainer.errors import DataError
from trainer.metrics.squad import scores_of_text
from trainer.tasks.judgement import LONGEST_SHOWN, Judgement, length_of
from trainer.wording import excerpt

NO_ANSWER = "(no answer)"
QUESTION_WORD = re.compile(r"\b(?:how (many|much)|(how|wh(?:o|om|ose|at|en|ere|y|ich)))\b")
ENGLISH = re.compile(r"\b(?:the|did|does|this|these|with)\b")
"""Words that other languages do not have; a question without any may be in another language."""


def judge(answer: Mapping[str, Any], metrics: Mapping[str, Any]) -> Judgement:
    """Returns an answer held against the gold answers by SQuAD's exact match and F1.

    As in the scores that end in `_at_threshold`, a question counts as unanswered if its
    `no_answer_probability` is above the `null_threshold` of the metrics.
    """
    golds, text = answer["answers"], answer["prediction"]
    refused = answer["no_answer_probability"] > metrics.get("null_threshold", 1.0)
    if refused:
        text, exact, f1 = "", float(not golds), float(not golds)
    else:
        exact, f1 = scores_of_text(golds, text)
    confidence = answer.get("probability")  # a prompted model gives none
    if confidence is not None and refused:
        confidence = answer["no_answer_probability"]
    return Judgement(
        gold=" | ".join(dict.fromkeys(golds)) or NO_ANSWER,
        predicted=text or NO_ANSWER,
        right=exact == 1,
        score=f1,
        confidence=confidence,
        facets={
            "answerable": "yes" if golds else "no",
            **_question_word(answer["question"]),
            **({"answer length": length_of(golds[0])} if golds else {}),
        },
    )


def shown_texts(answer: Mapping[str, Any], row: Mapping[str, Any]) -> dict[str, str]:
    """Returns the question, and the context around the gold answer or else around the prediction,
    each of at most LONGEST_SHOWN characters."""
    texts = {"question": excerpt(answer["question"], LONGEST_SHOWN)}
    context = row.get("context")
    if isinstance(context, str):
        texts["context"] = _around(context, *_place(context, row.get("answers"), answer))
    return texts


def _question_word(question: str) -> dict[str, str]:
    """Returns the facet of the first question word; empty if the question may not be English."""
    text = question.lower()
    found = QUESTION_WORD.search(text)
    if found is None:
        return {"question word": "other"} if ENGLISH.search(text) else {}
    word = "how many" if found[1] else found[2]
    return {"question word": "who" if word in ("whom", "whose") else word}


def _place(context: str, answers: Any, answer: Mapping[str, Any]) -> tuple[int, int]:
    """Returns the characters of a context that hold the gold answer or else the prediction."""
    try:
        golds = answers_of(answers)
    except DataError:
        golds = None
    if golds:
        text, start = golds[0]
        return start, start + len(text)
    start = max(context.find(answer["prediction"]), 0)
    return start, start + len(answer["prediction"])


def _around(context: str, start: int, end: int) -> str:
    """Returns at most LONGEST_SHOWN characters of a context, with `start` to `end` in the middle
    and an ellipsis at each end that was cut off."""
    if len(context) <= LONGEST_SHOWN:
        return context
    room = LONGEST_SHOWN - 2
    middle = min(start + end, 2 * start + room) // 2  # of a long answer, the beginning is shown
    first = min(max(middle - room // 2, 0), len(context) - room)
    part = context[first : first + room]
    return "…" * (first > 0) + part + "…" * (first + room < len(context))
