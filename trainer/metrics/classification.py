"""Classification metrics over scikit-learn, as an `evaluate` module that needs no network."""

from collections.abc import Sequence
from typing import Any

import datasets
import evaluate
import numpy as np
from sklearn import metrics


class ClassificationMetrics(evaluate.Metric):
    """Accuracy, precision, recall and F1 of label indices, between 0 and 1 as scikit-learn's.

    `compute(predictions=…, references=…, labels=…)` takes the label names in the order of their
    indices, and `sample_weight` where one pair stands for several examples.
    """

    def _info(self) -> evaluate.MetricInfo:
        return evaluate.MetricInfo(
            description="Accuracy, precision, recall and F1, binary, macro and by class.",
            citation="",
            features=datasets.Features(
                {"predictions": datasets.Value("int64"), "references": datasets.Value("int64")}
            ),
        )

    def _compute(
        self, *, predictions: Any = None, references: Any = None, **kwargs: Any
    ) -> dict[str, Any]:
        return self._scores(predictions, references, **kwargs)

    @staticmethod
    def _scores(
        predictions: Sequence[int],
        references: Sequence[int],
        labels: Sequence[str],
        sample_weight: Sequence[float] | None = None,
    ) -> dict[str, Any]:
        indices = list(range(len(labels)))
        settings: Any = {"sample_weight": sample_weight, "zero_division": 0.0}
        by_class: Any = metrics.precision_recall_fscore_support(
            references, predictions, labels=indices, **settings
        )
        macro: Any = metrics.precision_recall_fscore_support(
            references, predictions, labels=indices, average="macro", **settings
        )
        result: dict[str, Any] = {
            "accuracy": float(
                metrics.accuracy_score(references, predictions, sample_weight=sample_weight)
            )
        }
        if len(labels) == 2:
            result |= dict(zip(("precision", "recall", "f1"), (float(v[1]) for v in by_class)))  # noqa: B905
        names = ("precision_macro", "recall_macro", "f1_macro")
        result |= {name: float(value) for name, value in zip(names, macro[:3], strict=True)}
        predicted = np.bincount(predictions, weights=sample_weight, minlength=len(labels))
        result["per_class"] = {
            label: {
                "precision": float(by_class[0][index]),
                "recall": float(by_class[1][index]),
                "f1": float(by_class[2][index]),
                "support": int(by_class[3][index]),
                "predicted": int(predicted[index]),
            }
            for index, label in enumerate(labels)
        }
        return result


def from_confusion(confusion: np.ndarray, labels: Sequence[str]) -> dict[str, Any]:
    """Returns the metrics of a confusion matrix [reference, prediction] of counts.

    Without examples there are none: an empty dict.
    """
    references, predictions = np.nonzero(confusion)
    if len(references) == 0:
        return {}
    module = ClassificationMetrics(keep_in_memory=True)
    result = module.compute(
        predictions=predictions,
        references=references,
        labels=labels,
        sample_weight=confusion[references, predictions],
    )
    assert result is not None
    return result
