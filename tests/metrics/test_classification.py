"""Classification metrics from counts per class equal scikit-learn's from examples."""

import numpy as np
import pytest
from sklearn import metrics

from trainer.metrics.classification import from_counts

LABELS = ["a", "b", "c", "d"]


def from_confusion(confusion: np.ndarray, labels: list[str]) -> dict:
    return from_counts(confusion.diagonal(), confusion.sum(0), confusion.sum(1), labels)


@pytest.mark.parametrize("num_labels", [2, 4])
def test_counts_give_the_numbers_of_scikit_learn(num_labels):
    generator = np.random.default_rng(num_labels)
    references, predictions = generator.integers(0, num_labels, (2, 60))
    labels = LABELS[:num_labels]
    scores = from_confusion(metrics.confusion_matrix(references, predictions), labels)
    report = metrics.classification_report(
        references, predictions, target_names=labels, output_dict=True
    )
    assert scores["accuracy"] == pytest.approx(report["accuracy"])
    for name, sklearn_name in {
        "precision": "precision",
        "recall": "recall",
        "f1": "f1-score",
    }.items():
        assert scores[f"{name}_macro"] == pytest.approx(report["macro avg"][sklearn_name])
        for label in labels:
            assert scores["per_class"][label][name] == pytest.approx(report[label][sklearn_name])
        if num_labels == 2:
            assert scores[name] == pytest.approx(report["b"][sklearn_name])
        else:
            assert name not in scores
    for name, values in (("support", references), ("predicted", predictions)):
        counts = [scores["per_class"][label][name] for label in labels]
        assert counts == np.bincount(values, minlength=num_labels).tolist()


def test_without_examples_there_are_no_metrics():
    assert from_confusion(np.zeros((2, 2), int), ["a", "b"]) == {}


def test_every_number_fits_into_json():
    scores = from_confusion(np.array([[3, 1], [0, 2]]), ["a", "b"])
    numbers = [value for key, value in scores.items() if key != "per_class"]
    numbers += [value for per_label in scores["per_class"].values() for value in per_label.values()]
    assert {type(number) for number in numbers} == {float, int}
