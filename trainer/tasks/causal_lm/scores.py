"""Scores of generated answers, from which the metrics are recomputed on any answers."""

from collections.abc import Mapping, Sequence
from typing import Any

from trainer.metrics.scores import Scores, distinct, have
from trainer.metrics.text_sums import MEANS, NUM_BLEU, text_metrics, text_sums


def answer_scores(answers: Sequence[Mapping[str, Any]]) -> Scores | None:
    """Returns the scores of records with `prediction` and `reference`; None if a record lacks
    one."""
    if not have(answers, {"prediction": str, "reference": str}):
        return None
    texts = [(answer["prediction"], [answer["reference"]]) for answer in answers]
    rows = text_sums(*zip(*texts, strict=True))
    outcomes, outcome_of = distinct(rows)
    return Scores(
        outcomes=outcomes,
        outcome_of=outcome_of,
        metrics=text_metrics(),
        right=rows[:, NUM_BLEU + 1 + MEANS.index("exact_match")] == 1,
        texts=texts,
    )
