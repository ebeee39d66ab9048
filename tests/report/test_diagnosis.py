"""Warnings about results appear when they should, and only then."""

import math

import numpy as np
import pytest

from trainer.metrics.classification import from_confusion
from trainer.report.diagnosis import diagnose

LABELS = ["a", "b", "c"]


def findings(confusion: list[list[int]], loss: float = 0.3) -> list[str]:
    metrics = from_confusion(np.array(confusion), LABELS[: len(confusion)])
    return diagnose({"loss": loss, **metrics}, "validation")


def kinds(sentences: list[str]) -> set[str]:
    names = {
        "every example is answered": "one class",
        "is not above": "no better",
        "is that of guessing": "guess",
    }
    assert all(sentence.startswith("validation: ") for sentence in sentences)
    return {name for text, name in names.items() if any(text in one for one in sentences)}


@pytest.mark.parametrize(
    "confusion",
    [
        [[45, 5], [4, 46]],
        [[90, 0], [1, 9]],  # rare, and still learned
        [[30, 1, 2], [2, 28, 3], [0, 1, 33]],
        [[50, 0], [0, 50]],
    ],
)
def test_a_model_that_learned_is_not_suspected(confusion):
    assert findings(confusion) == []


@pytest.mark.parametrize("confusion", [[[0, 50], [0, 50]], [[0, 9, 0], [0, 8, 0], [0, 7, 0]]])
def test_one_answer_for_everything_is_named(confusion):
    found = findings(confusion)
    assert kinds(found) == {"one class", "no better"}
    assert any("every example is answered 'b'" in sentence for sentence in found)


def test_one_answer_that_is_always_right_is_still_one_answer():
    assert "one class" in kinds(findings([[0, 0], [0, 50]]))


@pytest.mark.parametrize(
    ("right", "suspected"),
    [(50, True), (55, True), (60, True), (61, False), (70, False)],  # 50 + 2 * 5 of 100
)
def test_the_majority_share_must_be_passed_by_two_standard_errors(right, suspected):
    half = right // 2
    found = findings([[half, 50 - half], [50 - (right - half), right - half]])
    assert kinds(found) == ({"no better"} if suspected else set())


def test_more_examples_make_the_same_accuracy_believable():
    assert kinds(findings([[28, 22], [22, 28]])) == {"no better"}
    assert findings([[2800, 2200], [2200, 2800]]) == []


@pytest.mark.parametrize("num_classes", [2, 3])
@pytest.mark.parametrize(("distance", "suspected"), [(0.0, True), (-0.004, True), (0.01, False)])
def test_the_loss_of_guessing_is_named(num_classes, distance, suspected):
    confusion = (np.eye(num_classes, dtype=int) * 50).tolist()
    found = findings(confusion, loss=math.log(num_classes) + distance)
    assert kinds(found) == ({"guess"} if suspected else set())


def test_a_split_without_classes_says_nothing():
    assert diagnose({"loss": 1.0}, "test") == []
