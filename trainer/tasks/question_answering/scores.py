"""Scores of answers to questions, from which the metrics are recomputed on any questions."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from trainer.metrics.answers import BESIDE_SQUAD
from trainer.metrics.scores import Metric, Scores, distinct, have, numbered, share
from trainer.metrics.squad import scores_of_text
from trainer.metrics.text_sums import text_metrics, text_sums

OF_ALL = ("exact", "f1", "exact_at_threshold", "f1_at_threshold")
"""Means over questions, in the order of their sums: over all questions, then over answerable
ones. The numbers of all and of answerable questions come before them."""
NUM_SQUAD = 2 + 2 * len(OF_ALL)


def question_scores(
    answers: Sequence[Mapping[str, Any]], metrics: Mapping[str, Any]
) -> Scores | None:
    """Returns the scores of records with `prediction`, `no_answer_probability` and `answers`; None
    if a record lacks one.

    `metrics["null_threshold"]` is the threshold of the names that end in `_at_threshold`; answers
    without one, which a model generated, have the probabilities 0 and 1. Text scores are computed
    if `metrics` has them.
    """
    fields = {"prediction": str, "no_answer_probability": (float, int), "answers": list}
    if not have(answers, fields) or any(
        math.isnan(answer["no_answer_probability"])
        or not all(isinstance(text, str) for text in answer["answers"])
        for answer in answers
    ):
        return None
    texts = None
    has_answer = np.array([len(answer["answers"]) > 0 for answer in answers])
    refused = np.array([answer["no_answer_probability"] for answer in answers])
    accepted = np.array(
        [scores_of_text(answer["answers"], answer["prediction"]) for answer in answers]
    )
    means = np.hstack(
        [
            np.where((refused > threshold)[:, None], ~has_answer[:, None], accepted)
            for threshold in (1.0, metrics.get("null_threshold", 0.5))
        ]
    )
    rows, measured = _squad_rows(means, has_answer), _squad_metrics(has_answer)
    if "bleu" in metrics:
        texts = [(answer["prediction"], answer["answers"]) for answer in answers]
        rows = np.hstack([rows, text_sums(*zip(*texts, strict=True))])
        of_texts = text_metrics(NUM_SQUAD)
        measured |= {name: of_texts[name] for name in BESIDE_SQUAD}
    groups = [answer.get("group") for answer in answers]
    outcomes, outcome_of = distinct(rows)
    return Scores(
        outcomes=outcomes,
        outcome_of=outcome_of,
        metrics=measured,
        right=means[:, OF_ALL.index("exact")] == 1,
        clusters=None if None in groups else numbered(groups),
        texts=texts,
    )


def never_answering(
    answers: Sequence[Mapping[str, Any]], metrics: Mapping[str, Any]
) -> tuple[str, Scores] | None:
    """Returns the words "never answering", and the scores of "no answer" to every question.

    Without answers, the questions are as many as `metrics` counts. None if every question has an
    answer, or if the number of those that have none is unknown.
    """
    groups = list[Any]()
    if have(answers, {"answers": list}):
        has_answer = np.array([len(answer["answers"]) > 0 for answer in answers])
        groups = [answer.get("group") for answer in answers]
    elif "never_answer" in metrics and "total" in metrics:
        total = metrics["total"]
        has_answer = np.arange(total) >= round(total * metrics["never_answer"] / 100)
    else:
        return None
    if has_answer.all():
        return None
    means = np.repeat(~has_answer[:, None], len(OF_ALL), axis=1).astype(float)
    outcomes, outcome_of = distinct(_squad_rows(means, has_answer))
    return "never answering", Scores(
        outcomes=outcomes,
        outcome_of=outcome_of,
        metrics=_squad_metrics(has_answer),
        right=~has_answer,
        clusters=numbered(groups) if groups and None not in groups else None,
    )


def _squad_rows(means: np.ndarray, has_answer: np.ndarray) -> np.ndarray:
    """Returns float64 [num_questions, NUM_SQUAD] from scores of each question, in the order of
    OF_ALL."""
    answerable = has_answer.astype(float)[:, None]
    return np.hstack([np.ones_like(answerable), answerable, means, means * answerable])


def _squad_metrics(has_answer: np.ndarray) -> dict[str, Metric]:
    metrics: dict[str, Metric] = {
        "never_answer": lambda sums: share(100 * (sums[..., 0] - sums[..., 1]), sums[..., 0])
    }
    for index, name in enumerate(OF_ALL):
        metrics[name] = _mean(2 + index, 0)
        if has_answer.any():
            metrics[f"HasAns_{name}"] = _mean(2 + len(OF_ALL) + index, 1)
        if not has_answer.all():
            metrics[f"NoAns_{name}"] = _mean_of_unanswerable(index)
    return metrics


def _mean(column: int, count: int) -> Metric:
    return lambda sums: share(100 * sums[..., column], sums[..., count])


def _mean_of_unanswerable(index: int) -> Metric:
    every, answerable = 2 + index, 2 + len(OF_ALL) + index
    return lambda sums: share(
        100 * (sums[..., every] - sums[..., answerable]), sums[..., 0] - sums[..., 1]
    )
