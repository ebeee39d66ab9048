"""Tasks name what is suspicious about their metrics, and only that."""

import math

import numpy as np
import pytest

from trainer.metrics.classification import from_counts
from trainer.tasks.causal_lm.task import CausalLM
from trainer.tasks.classification.diagnosis import diagnose as diagnose_classes
from trainer.tasks.masked_lm.task import MaskedLM
from trainer.tasks.question_answering.diagnosis import diagnose as diagnose_answers

LABELS = ["a", "b", "c"]


def diagnose_pairs(metrics: dict[str, float]) -> list[str]:
    return MaskedLM.diagnose(MaskedLM.__new__(MaskedLM), metrics)


def diagnose_texts(metrics: dict[str, float]) -> list[str]:
    return CausalLM.diagnose(CausalLM.__new__(CausalLM), metrics)


def from_confusion(confusion: np.ndarray, labels: list[str]) -> dict[str, object]:
    return from_counts(confusion.diagonal(), confusion.sum(0), confusion.sum(1), labels)


def findings(confusion: list[list[int]], loss: float = 0.3) -> list[str]:
    metrics = from_confusion(np.array(confusion), LABELS[: len(confusion)])
    return diagnose_classes({"loss": loss, **metrics})


def kinds(sentences: list[str]) -> set[str]:
    names = {
        "every example is predicted as": "one class",
        "is not above": "no better",
        "is that of guessing": "guess",
    }
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
    assert any("every example is predicted as 'b'" in sentence for sentence in found)


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


@pytest.mark.parametrize(
    "diagnose", [diagnose_classes, diagnose_answers, diagnose_pairs, diagnose_texts]
)
def test_a_loss_alone_is_not_suspicious(diagnose):
    assert diagnose({"loss": 1.0}) == []


def answer_findings(**values: float) -> list[str]:
    """What is said of a model that has learned to answer, but for the values given."""
    learned = {
        "exact_at_threshold": 60.0,
        "best_exact": 61.0,
        "best_exact_thresh": 0.4,
        "never_answer": 50.0,
        "HasAns_f1": 55.0,
        "length_ratio": 1.1,
    }
    return diagnose_answers({"loss": 1.0, **learned, **values})


@pytest.mark.parametrize(
    "values",
    [
        {},
        {
            "never_answer": 0.0,
            "exact_at_threshold": 0.5,
            "best_exact": 0.5,
        },  # every question has an answer
        {"exact_at_threshold": 50.0},
        {"length_ratio": 2.0},
        {"length_ratio": 0.5},
    ],
)
def test_a_model_that_answers_is_not_suspected(values):
    assert answer_findings(**values) == []


def test_where_no_question_has_an_answer_never_answering_is_right():
    metrics = dict.fromkeys(("exact_at_threshold", "best_exact", "never_answer"), 100.0)
    metrics["best_exact_thresh"] = 0.0
    assert diagnose_answers(metrics) == []


@pytest.mark.parametrize(("best", "suspected"), [(50.0, True), (50.004, True), (50.02, False)])
def test_a_best_score_of_never_answering_is_named(best, suspected):
    found = answer_findings(exact_at_threshold=50.0, best_exact=best, best_exact_thresh=0.0)
    assert len(found) == suspected
    assert all("at the threshold 0.0 is that of never answering, 50.00" in one for one in found)


def test_a_score_below_never_answering_is_named():
    (found,) = answer_findings(exact_at_threshold=48.25)
    assert "exact_at_threshold 48.25 is below never answering, 50.00" in found


@pytest.mark.parametrize(("f1", "suspected"), [(0.0, True), (0.9, True), (3.0, False)])
def test_questions_that_are_hardly_answered_are_named(f1, suspected):
    found = answer_findings(HasAns_f1=f1)
    assert len(found) == suspected
    assert all(f"HasAns_f1 is {f1:.2f} of 100" in one for one in found)


@pytest.mark.parametrize("ratio", [0.4, 2.1, 5.6])
def test_predictions_of_another_length_are_named(ratio):
    (found,) = answer_findings(length_ratio=ratio)
    assert f"{ratio:.1f} times the words of the gold answers" in found


def test_pairs_that_are_guessed_are_named():
    metrics = {"loss": 6.0, "next_sentence_accuracy": 0.53, "num_pairs": 1000}
    (sentence,) = diagnose_pairs(metrics)
    assert "0.5300 is not above guessing, 0.5, by two standard errors (0.0158 each)" in sentence
    assert diagnose_pairs({**metrics, "num_pairs": 2000}) == []


def test_answers_without_a_word_are_named():
    empty = ["every generated answer is empty"]
    assert diagnose_texts({"loss": 1.0, "generated_words": 0}) == empty
    assert diagnose_texts({"loss": 1.0, "generated_words": 3}) == []


def test_zero_shot_near_chance_is_said_without_a_loss():
    metrics = from_confusion(np.array([[0, 50], [0, 50]]), LABELS[:2])
    assert kinds(diagnose_classes(metrics)) == {"one class", "no better"}
    assert diagnose_classes(from_confusion(np.array([[45, 5], [5, 45]]), LABELS[:2])) == []


@pytest.mark.parametrize(
    ("f1", "never", "suspected"),
    [(20.0, 33.3, True), (33.3, 33.3, True), (34.0, 33.3, False), (5.0, 0.0, False)],
)
def test_generated_answers_are_compared_with_never_answering(f1, never, suspected):
    metrics = {"f1": f1, "exact": 0.0, "never_answer": never, "HasAns_f1": 20.0}
    found = diagnose_answers(metrics)
    assert len(found) == suspected
    assert all(f"f1 {f1:.2f} is not above never answering, {never:.2f}" in one for one in found)
