"""The scores of answers to questions as a function of the threshold for "no answer"."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from trainer.metrics.squad import scores_of_text

MOST_POINTS = 200


def threshold_curve(
    answers: Sequence[Mapping[str, Any]], metrics: Mapping[str, Any]
) -> dict[str, Any] | None:
    """Returns exact match and F1, 0 to 100, of at most MOST_POINTS thresholds in ascending order.

    `points` has the `exact` and `f1` of each `threshold` as `squad_scores` defines them: a question
    whose `no_answer_probability` is above the threshold counts as unanswered. `chosen` is the
    threshold that the metrics of these answers used, `best` and `best_exact` are those with the
    best F1 and exact match on these answers; each of them is a point. None if there is nothing to
    choose: the metrics have no threshold, or every question has an answer or none has one.
    """
    marks = {
        "chosen": metrics.get("null_threshold"),
        "best": metrics.get("best_f1_thresh"),
        "best_exact": metrics.get("best_exact_thresh"),
    }
    if None in marks.values():
        return None
    answerable = np.array([len(answer["answers"]) > 0 for answer in answers], bool)
    if answerable.all() or not answerable.any():
        return None
    probabilities = np.array([answer["no_answer_probability"] for answer in answers], float)
    thresholds = _thresholds(probabilities, [float(mark) for mark in marks.values() if mark])
    order = np.argsort(probabilities, kind="stable")
    num_accepted = np.searchsorted(probabilities[order], thresholds, side="right")
    scores = np.array(
        [scores_of_text(answer["answers"], answer["prediction"]) for answer in answers]
    )
    curves = {"threshold": thresholds}
    for name, accepted in zip(("exact", "f1"), scores.T, strict=True):
        gains = (accepted - ~answerable)[order]
        totals = np.sum(~answerable) + np.append(0.0, gains.cumsum())
        curves[name] = 100 * totals[num_accepted] / len(answers)
    columns = (values.tolist() for values in curves.values())
    points = [dict(zip(curves, values, strict=True)) for values in zip(*columns, strict=True)]
    return {"points": points, **marks}


def _thresholds(probabilities: np.ndarray, marks: Sequence[float]) -> np.ndarray:
    """Returns 0, 1, the marks and probabilities, evenly spaced among the distinct ones."""
    fixed = np.array([0.0, 1.0, *marks])
    distinct = np.setdiff1d(probabilities, fixed)
    room = MOST_POINTS - len(np.unique(fixed))
    if len(distinct) > room:
        distinct = distinct[np.linspace(0, len(distinct) - 1, room).round().astype(int)]
    return np.union1d(fixed, distinct)
