"""Tasks name what is suspicious about their metrics, and only that."""

import math
from typing import Any

import numpy as np
import pytest

from trainer.metrics.classification import from_counts
from trainer.tasks.base import Task
from trainer.tasks.causal_lm.task import CausalLM
from trainer.tasks.classification.task import Classification
from trainer.tasks.masked_lm.task import MaskedLM
from trainer.tasks.question_answering.task import QuestionAnswering

LABELS = ["a", "b", "c"]


TASKS = (Classification, QuestionAnswering, MaskedLM, CausalLM)


def sentences(task: type[Task], metrics: dict[str, Any]) -> list[str]:
    return [finding.sentence() for finding in task.diagnose(metrics)]


def from_confusion(confusion: np.ndarray, labels: list[str]) -> dict[str, object]:
    return from_counts(confusion.diagonal(), confusion.sum(0), confusion.sum(1), labels)


def findings(confusion: list[list[int]], loss: float = 0.3) -> list[str]:
    metrics = from_confusion(np.array(confusion), LABELS[: len(confusion)])
    return sentences(Classification, {"loss": loss, **metrics})


def kinds(found: list[str]) -> set[str]:
    names = {
        "every example is predicted as": "one class",
        "is not above": "no better",
        "is that of guessing": "guess",
    }
    return {name for text, name in names.items() if any(text in one for one in found)}


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


@pytest.mark.parametrize("task", TASKS)
def test_a_loss_alone_is_not_suspicious(task):
    assert task.diagnose({"loss": 1.0}) == []


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
    return sentences(QuestionAnswering, {"loss": 1.0, **learned, **values})


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
    assert sentences(QuestionAnswering, metrics) == []


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
    (found,) = sentences(MaskedLM, metrics)
    assert "0.5300 is not above guessing, 0.5, by two standard errors (0.0158 each)" in found
    assert sentences(MaskedLM, {**metrics, "num_pairs": 2000}) == []


def test_answers_without_a_word_are_named():
    empty = ["every generated answer is empty"]
    assert sentences(CausalLM, {"loss": 1.0, "generated_words": 0}) == empty
    assert sentences(CausalLM, {"loss": 1.0, "generated_words": 3}) == []


def test_zero_shot_near_chance_is_said_without_a_loss():
    metrics = from_confusion(np.array([[0, 50], [0, 50]]), LABELS[:2])
    assert kinds(sentences(Classification, metrics)) == {"one class", "no better"}
    assert sentences(Classification, from_confusion(np.array([[45, 5], [5, 45]]), LABELS[:2])) == []


@pytest.mark.parametrize(
    ("f1", "never", "suspected"),
    [(20.0, 33.3, True), (33.3, 33.3, True), (34.0, 33.3, False), (5.0, 0.0, False)],
)
def test_generated_answers_are_compared_with_never_answering(f1, never, suspected):
    metrics = {"f1": f1, "exact": 0.0, "never_answer": never, "HasAns_f1": 20.0}
    found = sentences(QuestionAnswering, metrics)
    assert len(found) == suspected
    assert all(f"f1 {f1:.2f} is not above never answering, {never:.2f}" in one for one in found)


def codes(task: type[Task], metrics: dict[str, Any]) -> list[str]:
    return [finding.code for finding in task.diagnose(metrics)]


@pytest.mark.parametrize("share", [0.551, 0.509])
def test_one_class_shows_without_counts(share):
    """Recall 1 with accuracy = precision, as two reports on SST-2 print it."""
    f1 = 2 * share / (1 + share)
    scores = {"accuracy": share, "precision": share, "recall": 1.0, "f1": round(f1, 3)}
    assert codes(Classification, scores) == ["one-class"]
    assert codes(Classification, {**scores, "recall": 0.97}) == []
    assert codes(Classification, {**scores, "accuracy": share + 0.01}) == []


def test_a_perfect_classifier_without_counts_is_not_suspected():
    scores = dict.fromkeys(("accuracy", "precision", "recall", "f1"), 1.0)
    assert codes(Classification, scores) == []


SQUAD = {"best_exact": 50.09, "best_exact_thresh": 0.0, "NoAns_exact": 0.0, "length_ratio": 5.6}
"""Scores of a report on SQuAD v2."""


@pytest.mark.parametrize("also", [{}, {"exact": 12.5}, {"exact": 12.5, "never_answer": 50.07}])
def test_a_threshold_that_rejects_every_answer_is_void(also):
    assert codes(QuestionAnswering, {**SQUAD, **also}) == ["void-threshold", "answer-length"]


@pytest.mark.parametrize(
    "learned",
    [
        {"best_exact_thresh": 0.4},
        {"NoAns_exact": 30.0},
        {"exact": 50.09},
        {"exact": 12.5, "exact_at_threshold": 48.0},
    ],
)
def test_a_threshold_that_keeps_some_answers_is_not_void(learned):
    assert codes(QuestionAnswering, {**SQUAD, "length_ratio": 1.1, **learned}) == []


def test_never_answering_is_counted_from_the_questions():
    counts = {"NoAns_total": 5945, "total": 11873}
    assert codes(
        QuestionAnswering, {**SQUAD, **counts, "best_exact": 50.07, "length_ratio": 1}
    ) == ["at-never-answering"]


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("odd", [None, math.nan, math.inf, -math.inf, "0.5", [], {}, True, -1, 0])
def test_odd_values_are_not_an_error(task, odd):
    names = (
        *("accuracy", "precision", "recall", "loss", "per_class", "next_sentence_accuracy"),
        *("num_pairs", "generated_words", "never_answer", "best_exact", "exact_at_threshold"),
        *("best_exact_thresh", "HasAns_f1", "NoAns_exact", "NoAns_total", "total", "f1", "exact"),
        "length_ratio",
    )
    task.diagnose(dict.fromkeys(names, odd))
    sound = {**dict.fromkeys(names, 0.5), "per_class": {"a": {"support": 1, "predicted": 1}}}
    for name in names:
        task.diagnose({**sound, name: odd})
    task.diagnose({**sound, "per_class": {"a": {"support": odd, "predicted": 1}, "b": odd}})


def test_every_finding_says_what_to_try():
    confusion = from_confusion(np.array([[0, 50, 0], [0, 40, 0], [0, 0, 0]]), LABELS)
    never = {"never_answer": 50.0, "best_exact": 50.0, "exact_at_threshold": 40.0, "HasAns_f1": 0.0}
    found = [
        *Classification.diagnose({"loss": math.log(3), **confusion}),
        *QuestionAnswering.diagnose({**never, "length_ratio": 3.0}),
        *QuestionAnswering.diagnose({"never_answer": 50.0, "f1": 20.0}),
        *MaskedLM.diagnose({"next_sentence_accuracy": 0.5, "num_pairs": 100}),
        *CausalLM.diagnose({"generated_words": 0}),
    ]
    assert len({finding.code for finding in found}) == 11
    assert all(finding.advice and finding.split is None for finding in found)
