"""Classification metrics over scikit-learn, as an `evaluate` module that needs no network."""

from collections.abc import Sequence
from typing import Any

import datasets
import evaluate
import numpy as np
from sklearn import metrics

from trainer.metrics.averages import OF_CLASSES, macro_averages


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
        result: dict[str, Any] = {
            "accuracy": float(
                metrics.accuracy_score(references, predictions, sample_weight=sample_weight)
            )
        }
        predicted = np.bincount(predictions, weights=sample_weight, minlength=len(labels))
        return result | _of_classes(*by_class[:4], predicted=predicted, labels=labels)


def from_counts(
    correct: np.ndarray, predicted: np.ndarray, support: np.ndarray, labels: Sequence[str]
) -> dict[str, Any]:
    """Returns the metrics of what was counted for each class: examples that were answered rightly,
    answers, and examples. They grow with the number of classes, where a matrix grows with its
    square.

    Without examples there are none: an empty dict.
    """
    total = support.sum()
    if total == 0:
        return {}
    precision, recall = _share(correct, predicted), _share(correct, support)
    f1 = _share(2 * correct, predicted + support)
    accuracy = {"accuracy": float(correct.sum() / total)}
    return accuracy | _of_classes(precision, recall, f1, support, predicted, labels)


def from_confusion(confusion: np.ndarray, labels: Sequence[str]) -> dict[str, Any]:
    """Returns the metrics of a confusion matrix [reference, prediction] of counts."""
    return from_counts(confusion.diagonal(), confusion.sum(0), confusion.sum(1), labels)


def _share(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    """Returns part / whole, 0 of nothing, as scikit-learn's zero_division."""
    return part / np.maximum(whole, 1)


def _of_classes(
    precision: np.ndarray,
    recall: np.ndarray,
    f1: np.ndarray,
    support: np.ndarray,
    predicted: np.ndarray,
    labels: Sequence[str],
) -> dict[str, Any]:
    """Returns the figures of the second of two classes, the macro averages, and those by class."""
    per_class = {
        label: {
            "precision": float(precision[index]),
            "recall": float(recall[index]),
            "f1": float(f1[index]),
            "support": int(support[index]),
            "predicted": int(predicted[index]),
        }
        for index, label in enumerate(labels)
    }
    second = per_class[labels[1]] if len(labels) == 2 else {}
    binary = {name: second[name] for name in OF_CLASSES if name in second}
    return {**binary, **macro_averages(per_class), "per_class": per_class}
