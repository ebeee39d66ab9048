"""Scores of a classifier's answers, from which its metrics are recomputed on any examples."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from trainer.metrics.averages import OF_CLASSES
from trainer.metrics.scores import Metric, Scores, have, share
from trainer.wording import excerpt

MOST_CLASSES = 200
"""Classes up to which precision, recall and F1 are recomputed; with more, only accuracy is."""


def class_scores(answers: Sequence[Mapping[str, Any]], metrics: Mapping[str, Any]) -> Scores | None:
    """Returns the scores of records with `label` and `prediction`; None if a record lacks one.

    `metrics["per_class"]` holds the classes in their order.
    """
    classes: Mapping[str, Any] = metrics.get("per_class") or {}
    if not have(answers, {"label": str, "prediction": str}):
        return None
    index = {label: number for number, label in enumerate(classes)}
    pairs = [(answer["label"], answer["prediction"]) for answer in answers]
    if not all(label in index and predicted in index for label, predicted in pairs):
        return None
    numbers = np.array([(index[label], index[predicted]) for label, predicted in pairs], np.int64)
    return _of_numbers(numbers[:, 0], numbers[:, 1], len(index))


def majority_scores(
    answers: Sequence[Mapping[str, Any]], metrics: Mapping[str, Any]
) -> tuple[str, Scores] | None:
    """Returns the words "always 'LABEL'" for the most frequent class, and the scores of this
    answer to every example.

    Of equally frequent classes, the first counts. Without answers, the examples are those that
    `metrics["per_class"]` counts, by class.
    """
    classes: Mapping[str, Any] = metrics.get("per_class") or {}
    if have(answers, {"label": str}) and all(answer["label"] in classes for answer in answers):
        index = {label: number for number, label in enumerate(classes)}
        labels = np.array([index[answer["label"]] for answer in answers], np.int64)
    else:
        support = [counts["support"] for counts in classes.values()]
        labels = np.repeat(np.arange(len(support)), support)
    if not len(labels):
        return None
    most = int(np.bincount(labels, minlength=len(classes)).argmax())
    scores = _of_numbers(labels, np.full(len(labels), most), len(classes))
    return f"always {excerpt(list(classes)[most], 60)!r}", scores


def _of_numbers(labels: np.ndarray, predictions: np.ndarray, num_classes: int) -> Scores:
    pairs, outcome_of = np.unique(labels * num_classes + predictions, return_inverse=True)
    label, predicted = np.divmod(pairs, num_classes)
    right = (label == predicted).astype(float)
    if num_classes > MOST_CLASSES:
        outcomes = np.column_stack([right, np.ones(len(pairs))])
        metrics: dict[str, Metric] = {"accuracy": lambda sums: share(sums[..., 0], sums[..., 1])}
    else:
        one_hot = np.eye(num_classes)
        outcomes = np.hstack([one_hot[label] * right[:, None], one_hot[predicted], one_hot[label]])
        metrics = _metrics(num_classes)
    return Scores(
        outcomes=outcomes,
        outcome_of=outcome_of,
        metrics=metrics,
        right=labels == predictions,
        shares=("accuracy",),
    )


def _metrics(num_classes: int) -> dict[str, Metric]:
    """Returns the metrics as functions of the sums of correct predictions, of predictions and of
    examples of each class, [..., 3 * num_classes]; equal to those of `from_counts`."""

    def parts(sums: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        correct, predicted, support = np.split(sums, 3, axis=-1)
        return correct, predicted, support

    def of_classes(name: str, sums: np.ndarray) -> np.ndarray:
        correct, predicted, support = parts(sums)
        part, whole = {
            "precision": (correct, predicted),
            "recall": (correct, support),
            "f1": (2 * correct, predicted + support),
        }[name]
        return part / np.maximum(whole, 1)

    def accuracy(sums: np.ndarray) -> np.ndarray:
        correct, _, support = parts(sums)
        return share(correct.sum(-1), support.sum(-1))

    def macro(name: str) -> Metric:
        def average(sums: np.ndarray) -> np.ndarray:
            _, predicted, support = parts(sums)
            present = (predicted + support) > 0
            return share((of_classes(name, sums) * present).sum(-1), present.sum(-1))

        return average

    def second(name: str) -> Metric:
        return lambda sums: of_classes(name, sums)[..., 1]

    return {
        "accuracy": accuracy,
        **({name: second(name) for name in OF_CLASSES} if num_classes == 2 else {}),
        **{f"{name}_macro": macro(name) for name in OF_CLASSES},
    }
