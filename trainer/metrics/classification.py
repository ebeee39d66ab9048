"""Classification metrics from counts per class, equal to scikit-learn's."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from trainer.metrics.averages import OF_CLASSES, macro_averages


def from_counts(
    correct: np.ndarray, predicted: np.ndarray, support: np.ndarray, labels: Sequence[str]
) -> dict[str, Any]:
    """Returns accuracy, precision, recall and F1, between 0 and 1, from counts per class.

    `correct`, `predicted` and `support` are [classes]: correct predictions, predictions and
    examples of each class. They can be summed over batches and ranks, and take less memory than a
    confusion matrix, whose size grows with the square of the classes. `labels` names the classes.
    Returns an empty dict if there are no examples.
    """
    total = support.sum()
    if total == 0:
        return {}
    precision, recall = _share(correct, predicted), _share(correct, support)
    f1 = _share(2 * correct, predicted + support)
    accuracy = {"accuracy": float(correct.sum() / total)}
    return accuracy | _of_classes(precision, recall, f1, support, predicted, labels)


def _share(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    """Returns part / whole, and 0 for 0 / 0 as scikit-learn's `zero_division=0`."""
    return part / np.maximum(whole, 1)


def _of_classes(
    precision: np.ndarray,
    recall: np.ndarray,
    f1: np.ndarray,
    support: np.ndarray,
    predicted: np.ndarray,
    labels: Sequence[str],
) -> dict[str, Any]:
    """Returns macro averages, scores per class and, with two classes, those of the second one."""
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
