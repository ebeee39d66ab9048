"""The classification metrics as an `evaluate` module: batch by batch, offline, scikit-learn's."""

import numpy as np
import pytest
from sklearn import metrics

from trainer.metrics.classification import ClassificationMetrics, from_confusion

LABELS = ["a", "b", "c", "d"]


def sample(num_labels: int) -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(num_labels)
    return generator.integers(0, num_labels, 60), generator.integers(0, num_labels, 60)


@pytest.mark.parametrize("num_labels", [2, 4])
def test_batches_add_up_to_the_numbers_of_scikit_learn(num_labels, tmp_path):
    references, predictions = sample(num_labels)
    module = ClassificationMetrics(cache_dir=str(tmp_path))
    for start in range(0, 60, 25):
        part = slice(start, start + 25)
        module.add_batch(predictions=predictions[part], references=references[part])
    found = module.compute(labels=LABELS[:num_labels])
    assert found is not None
    report = metrics.classification_report(
        references, predictions, target_names=LABELS[:num_labels], output_dict=True
    )
    assert found["accuracy"] == pytest.approx(report["accuracy"])
    for name, sklearn_name in {
        "precision": "precision",
        "recall": "recall",
        "f1": "f1-score",
    }.items():
        assert found[f"{name}_macro"] == pytest.approx(report["macro avg"][sklearn_name])
        for label in LABELS[:num_labels]:
            assert found["per_class"][label][name] == pytest.approx(report[label][sklearn_name])
        if num_labels == 2:
            assert found[name] == pytest.approx(report["b"][sklearn_name])
        else:
            assert name not in found
    supports = [found["per_class"][label]["support"] for label in LABELS[:num_labels]]
    assert supports == np.bincount(references).tolist()


@pytest.mark.parametrize("num_labels", [2, 4])
def test_a_confusion_matrix_gives_what_its_examples_give(num_labels):
    references, predictions = sample(num_labels)
    labels = LABELS[:num_labels]
    module = ClassificationMetrics(keep_in_memory=True)
    expected = module.compute(predictions=predictions, references=references, labels=labels)
    found = from_confusion(metrics.confusion_matrix(references, predictions), labels)
    assert expected is not None
    per_class = expected.pop("per_class")
    for label, numbers in found.pop("per_class").items():
        assert numbers == pytest.approx(per_class[label])
    assert found == pytest.approx(expected)


def test_without_examples_there_are_no_metrics():
    assert from_confusion(np.zeros((2, 2), int), ["a", "b"]) == {}


def test_every_number_fits_into_json():
    found = from_confusion(np.array([[3, 1], [0, 2]]), ["a", "b"])
    numbers = [value for key, value in found.items() if key != "per_class"]
    numbers += [value for one in found["per_class"].values() for value in one.values()]
    assert {type(number) for number in numbers} == {float, int}
