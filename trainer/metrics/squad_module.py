"""SQuAD's scores as a module of the `evaluate` library, which needs no network.

`evaluate.load("squad_v2")` downloads its script; this module has the same inputs and names of
scores. The trainer itself calls `squad_scores`.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import datasets
import evaluate

from trainer.errors import DataError
from trainer.metrics.squad import SquadRecord, refuse_repeated, squad_scores


class SquadMetrics(evaluate.Metric):
    """Exact match and F1 between 0 and 100, overall, by answerability and at the best threshold.

    Takes predictions `{"id", "prediction_text", "no_answer_probability"}` and references
    `{"id", "answers": {"text": [...], "answer_start": [...]}}`, paired by id, not by position.
    `compute(..., no_answer_threshold=1.0)` returns the dict of `squad_scores`.
    """

    def _info(self) -> evaluate.MetricInfo:
        return evaluate.MetricInfo(
            description="Exact match and F1 as SQuAD v1.1 and v2.0 define them.",
            citation="",
            features=datasets.Features(
                {
                    "predictions": {
                        "id": datasets.Value("string"),
                        "prediction_text": datasets.Value("string"),
                        "no_answer_probability": datasets.Value("float64"),
                    },
                    "references": {
                        "id": datasets.Value("string"),
                        "answers": {
                            "text": datasets.List(datasets.Value("string")),
                            "answer_start": datasets.List(datasets.Value("int32")),
                        },
                    },
                }
            ),
        )

    # Without the base's **kwargs, so that a misspelt argument is an error.
    def _compute(  # pyright: ignore[reportIncompatibleMethodOverride]
        self,
        *,
        predictions: Any = None,
        references: Any = None,
        no_answer_threshold: float = 1.0,
    ) -> dict[str, float]:
        return squad_scores(_records(predictions, references), no_answer_threshold)


def _records(
    predictions: Sequence[Mapping[str, Any]], references: Sequence[Mapping[str, Any]]
) -> list[SquadRecord]:
    """Returns one record per prediction, in the same order, with the gold answers of its id.

    Raises DataError unless predictions and references have the same ids, each exactly once. That
    there are as many predictions as references is checked by `evaluate`.
    """
    refuse_repeated("prediction", (prediction["id"] for prediction in predictions))
    refuse_repeated("question", (reference["id"] for reference in references))
    gold = {reference["id"]: reference["answers"]["text"] for reference in references}
    for prediction in predictions:
        if prediction["id"] not in gold:
            raise DataError(
                f"prediction {prediction['id']!r} belongs to none of the {len(gold)} questions",
                key="id",
                value=prediction["id"],
                hint="give it the id of its question",
            )
    return [
        SquadRecord(
            id=prediction["id"],
            gold_answers=gold[prediction["id"]],
            prediction_text=prediction["prediction_text"],
            no_answer_probability=prediction["no_answer_probability"],
        )
        for prediction in predictions
    ]
