"""Scores of examples give the metrics that were measured, on all examples and on any of them."""

from typing import Any

import numpy as np
import pytest
import sacrebleu
from sklearn import metrics as sklearn_metrics

from trainer.metrics.answers import answer_metrics
from trainer.metrics.classification import from_counts
from trainer.metrics.generation import TEXT_SCORES, generation_scores
from trainer.metrics.scores import distinct, have, numbered
from trainer.metrics.text_sums import NUM_BLEU, bleu, text_sums
from trainer.tasks.causal_lm.task import CausalLM
from trainer.tasks.classification.scores import MOST_CLASSES
from trainer.tasks.classification.task import Classification
from trainer.tasks.masked_lm.task import MaskedLM
from trainer.tasks.question_answering.task import QuestionAnswering

EXACT = 1e-9
WORDS = ["the", "old", "cat", "sat", "on", "a", "red", "mat", "in", "Paris", "1999", "."]


def classified(num_classes: int, num_examples: int, seed: int = 1) -> list[dict[str, Any]]:
    """Answers of which the last class never occurs and is never predicted."""
    generator = np.random.default_rng(seed)
    pairs = generator.integers(0, max(num_classes - 1, 2), (num_examples, 2))
    return [
        {"id": index, "label": f"c{label}", "prediction": f"c{predicted}", "probability": 0.5}
        for index, (label, predicted) in enumerate(pairs.tolist())
    ]


def counted(answers: list[dict[str, Any]], num_classes: int) -> dict[str, Any]:
    names = [f"c{index}" for index in range(num_classes)]
    pairs = [
        (names.index(answer["label"]), names.index(answer["prediction"])) for answer in answers
    ]
    labels, predicted = np.array(pairs).T
    size = num_classes
    return from_counts(
        np.bincount(labels[labels == predicted], minlength=size),
        np.bincount(predicted, minlength=size),
        np.bincount(labels, minlength=size),
        names,
    )


def sentence(generator: np.random.Generator, fewest: int = 0) -> str:
    return " ".join(generator.choice(WORDS, generator.integers(fewest, 9)))


def questions(num_questions: int, *, answerable: float = 0.6) -> list[dict[str, Any]]:
    """Answers to questions in articles of three; predictions resemble the gold answers."""
    generator = np.random.default_rng(3)
    answers: list[dict[str, Any]] = []
    for index in range(num_questions):
        golds = [sentence(generator, 1) for _ in range(generator.integers(1, 4))]
        guess = golds[0] if generator.random() < 0.4 else sentence(generator)
        answers.append(
            {
                "id": f"q{index}",
                "question": "who?",
                "prediction": guess,
                "no_answer_probability": float(generator.random()),
                "answers": golds if generator.random() < answerable else [],
                "group": index // 3,
            }
        )
    return answers


def generated(num_texts: int) -> list[dict[str, Any]]:
    generator = np.random.default_rng(4)
    references = [sentence(generator, 1) for _ in range(num_texts)]
    return [
        {
            "id": index,
            "prompt": "p",
            "prediction": text if generator.random() < 0.3 else sentence(generator),
            "reference": text,
        }
        for index, text in enumerate(references)
    ]


@pytest.mark.parametrize("num_classes", [2, 3, 5])
def test_a_classifier_s_metrics_are_those_of_its_sums(num_classes):
    answers = classified(num_classes, 300)
    measured = counted(answers, num_classes)
    scores = Classification.scores(answers, measured)
    assert scores is not None
    numbers = {name: value for name, value in measured.items() if name != "per_class"}
    assert scores.values() == pytest.approx(numbers, abs=EXACT)
    assert set(scores.metrics) == set(numbers)
    assert scores.shares == ("accuracy",)
    assert scores.right is not None
    assert scores.right.mean() == pytest.approx(measured["accuracy"])
    assert len(scores.outcomes) <= num_classes**2


def test_a_resample_has_the_metrics_of_its_answers():
    answers = classified(3, 80)
    scores = Classification.scores(answers, counted(answers, 3))
    assert scores is not None
    drawn = np.random.default_rng(9).integers(0, 80, 80)
    values = scores.of(drawn).values()
    again = counted([answers[index] for index in drawn], 3)
    assert values["f1_macro"] == pytest.approx(again["f1_macro"], abs=EXACT)
    labels, predicted = zip(
        *((answers[index]["label"], answers[index]["prediction"]) for index in drawn), strict=True
    )
    expected = sklearn_metrics.f1_score(labels, predicted, average="macro")
    assert values["f1_macro"] == pytest.approx(expected, abs=EXACT)


def test_metrics_of_several_sums_at_once_are_those_of_each():
    answers = classified(2, 40)
    scores = Classification.scores(answers, counted(answers, 2))
    assert scores is not None
    some = scores.outcomes[scores.outcome_of].reshape(4, 10, -1).sum(1)
    for name, metric in scores.metrics.items():
        assert metric(some).tolist() == [float(metric(sums)) for sums in some], name


def test_with_many_classes_only_accuracy_is_recomputed():
    size = MOST_CLASSES + 1
    answers = classified(size, 400)
    measured = counted(answers, size)
    scores = Classification.scores(answers, measured)
    assert scores is not None
    assert scores.values() == pytest.approx({"accuracy": measured["accuracy"]}, abs=EXACT)
    assert scores.outcomes.shape[1] == 2


def test_the_majority_is_the_most_frequent_class():
    answers = [{"label": label, "prediction": "b"} for label in ["a", "b", "b", "a", "b", "a", "a"]]
    measured = {"per_class": {"b": {"support": 3}, "a": {"support": 4}}}
    unread = Classification.scores_without_reading(answers, measured)
    assert unread is not None
    words, scores = unread
    assert words == "always 'a'"
    assert scores.values()["accuracy"] == pytest.approx(4 / 7)
    assert scores.values()["f1"] == pytest.approx(2 * 4 / (4 + 7))
    assert scores.right is not None
    assert scores.right.tolist() == [True, False, False, True, False, True, True]
    # Without answers, the counts suffice.
    again = Classification.scores_without_reading([], measured)
    assert again is not None
    assert again[1].values() == pytest.approx(scores.values())
    assert Classification.scores_without_reading([], {}) is None


def test_a_long_or_hostile_label_is_shortened_in_words():
    label = "<b>\n" + "x" * 500
    answers = [{"label": label, "prediction": label}]
    measured = {"per_class": {label: {"support": 1}}}
    unread = Classification.scores_without_reading(answers, measured)
    assert unread is not None
    words, _ = unread
    assert "\n" not in words
    assert len(words) < 90


def test_the_number_of_judged_examples():
    measured = counted(classified(3, 50), 3)
    assert Classification.num_judged(measured) == {"accuracy": 50}
    assert MaskedLM.num_judged({"num_pairs": 9}) == {"next_sentence_accuracy": 9}
    assert MaskedLM.num_judged({"num_masked": 9}) == {}
    assert CausalLM.num_judged({}) == {}


@pytest.mark.parametrize("answerable", [0.0, 0.6, 1.0])
@pytest.mark.parametrize("threshold", [None, 0.5])
def test_answers_metrics_are_those_of_their_sums(answerable, threshold):
    answers = questions(60, answerable=answerable)
    measured = answer_metrics(answers, threshold)
    scores = QuestionAnswering.scores(answers, measured)
    assert scores is not None
    values = scores.values()
    assert values == pytest.approx({name: measured[name] for name in values}, abs=EXACT)
    expected = {"exact", "f1", "exact_at_threshold", "f1_at_threshold", "never_answer"}
    parts = (("HasAns", answerable > 0), ("NoAns", answerable < 1))
    expected |= {
        name for name in measured if name.startswith(tuple(p for p, is_in in parts if is_in))
    }
    expected -= {name for name in expected if name.endswith("_total")}
    if answerable:
        expected |= {*TEXT_SCORES} - {"exact_match"}
    assert set(values) == expected
    assert scores.right is not None
    assert 100 * scores.right.mean() == pytest.approx(measured["exact"])
    assert scores.clusters is not None
    assert scores.clusters.tolist() == [index // 3 for index in range(60)]


def test_zero_shot_answers_have_no_threshold_of_their_own():
    answers = [
        {**answer, "id": index, "no_answer_probability": float(index % 2)}
        for index, answer in enumerate(questions(20))
    ]
    scored = [{**answer, "id": str(answer["id"])} for answer in answers]
    measured = {n: v for n, v in answer_metrics(scored, 0.5).items() if n != "null_threshold"}
    scores = QuestionAnswering.scores(answers, measured)
    assert scores is not None
    values = scores.values()
    assert values == pytest.approx({name: measured[name] for name in values}, abs=EXACT)
    assert values["exact_at_threshold"] != values["exact"]


def test_never_answering_is_right_where_there_is_no_answer():
    answers = questions(30)
    measured = answer_metrics(answers)
    unread = QuestionAnswering.scores_without_reading(answers, measured)
    assert unread is not None
    words, scores = unread
    assert words == "never answering"
    silent = [{**answer, "prediction": "", "no_answer_probability": 1.0} for answer in answers]
    expected = answer_metrics(silent, measured["null_threshold"])
    values = scores.values()
    assert values == pytest.approx({name: expected[name] for name in values}, abs=EXACT)
    assert values["exact"] == pytest.approx(measured["never_answer"])
    assert scores.clusters is not None
    unread = QuestionAnswering.scores_without_reading([], measured)
    assert unread is not None
    assert unread[1].values() == pytest.approx(values)
    assert QuestionAnswering.scores_without_reading(questions(5, answerable=1.0), {}) is None
    assert QuestionAnswering.scores_without_reading([], {}) is None


def test_generated_answers_metrics_are_those_of_their_sums():
    answers = generated(50)
    measured = generation_scores(
        [answer["prediction"] for answer in answers],
        [[answer["reference"]] for answer in answers],
    )
    scores = CausalLM.scores(answers, measured)
    assert scores is not None
    values = scores.values()
    assert values == pytest.approx({name: measured[name] for name in TEXT_SCORES}, abs=EXACT)
    some = np.arange(10, 30)
    again = generation_scores(
        [answers[index]["prediction"] for index in some],
        [[answers[index]["reference"]] for index in some],
    )
    expected = {name: again[name] for name in TEXT_SCORES}
    assert scores.of(some).values() == pytest.approx(expected, abs=EXACT)
    assert scores.right is not None
    assert 100 * scores.right.mean() == pytest.approx(measured["exact_match"])


@pytest.mark.parametrize(
    ("predictions", "references"),
    [
        ([""], ["a cat"]),  # no token
        (["dog"], ["a cat"]),  # nothing matches
        (["a cat"], ["a cat"]),  # no 4-gram
        (["a cat sat on it"], ["a cat ran at the old red mat"]),  # smoothed twice, and short
        (["a b c d e f"], ["a b c d"]),  # too long
        (["a x b y c z d", "p q r s"], ["a b c d", "p q r t"]),
    ],
)
def test_bleu_of_sums_is_sacrebleu_s(predictions, references):
    sums = text_sums(predictions, [[text] for text in references])
    expected = sacrebleu.corpus_bleu(predictions, [references]).score
    assert float(bleu(sums.sum(0)[:NUM_BLEU])) == pytest.approx(expected, abs=EXACT)


@pytest.mark.parametrize(
    ("task", "answers"),
    [
        (Classification, [{"id": 0, "label": "a", "prediction": None}]),
        (Classification, [{"id": 0, "label": "a"}]),
        (Classification, [{"id": 0, "label": "a", "prediction": "unknown"}]),
        (QuestionAnswering, [{"prediction": "a", "answers": ["a"]}]),
        (QuestionAnswering, [{"prediction": "a", "answers": [1], "no_answer_probability": 0.0}]),
        (
            QuestionAnswering,
            [{"prediction": "a", "answers": [], "no_answer_probability": float("nan")}],
        ),
        (CausalLM, [{"id": 0, "prediction": "a"}]),
        (CausalLM, []),
        (MaskedLM, [{"id": 0}]),
    ],
)
def test_records_that_do_not_say_enough_have_no_scores(task, answers):
    assert task.scores(answers, {"per_class": {"a": {"support": 1}}}) is None


def test_distinct_rows_and_numbered_groups():
    rows = np.array([[1.0, 2.0], [0.0, 1.0], [1.0, 2.0]])
    different, index = distinct(rows)
    assert len(different) == 2
    assert (different[index] == rows).all()
    groups = numbered(["x", "y", "x"])
    assert groups is not None
    assert groups.tolist() == [0, 1, 0]
    assert numbered(["x", "y"]) is None
    assert have([{"a": 1}], {"a": int})
    assert not have([], {"a": int})
