"""Failures: counts against ones made by hand, and scores at thresholds against SQuAD's."""

import json
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from trainer.errors import RunDirectoryError
from trainer.metrics.answers import answer_metrics
from trainer.metrics.squad import SquadRecord, squad_scores
from trainer.metrics.threshold_curve import MOST_POINTS, threshold_curve
from trainer.report.answers.calibration import reliability
from trainer.report.answers.failures import MOST_VALUES, churn_between, confusion, facets, failures
from trainer.report.recorded import RecordedRun
from trainer.tasks.judgement import Judgement


def recorded(
    directory: Path, task: str, metrics: dict[str, Any], **answers: list[dict[str, Any]]
) -> RecordedRun:
    """Returns a run with a test split, whose files of answers are named as keys, _ for -."""
    (directory / "predictions").mkdir()
    for name, records in answers.items():
        file = directory / "predictions" / f"{name.replace('_', '-')}.jsonl"
        file.write_text("".join(json.dumps(record) + "\n" for record in records))
    results = {"best": {"metrics": {"test": metrics}}, "baseline": {"test": metrics}}
    return RecordedRun(
        directory=directory,
        results=results,
        recipe={"task": {"name": task}},
        lines=[],
        environment={},
        status={},
    )


def labelled(*pairs: str, probability: float | None = 0.5) -> list[dict[str, Any]]:
    """Returns answers from pairs such as "ab": the gold label a answered as b."""
    return [
        {"id": index, "row": index, "label": gold, "prediction": predicted}
        | ({} if probability is None else {"probability": probability})
        for index, (gold, predicted) in enumerate(pairs)
    ]


def judgement(gold: str, predicted: str, **facet: str) -> Judgement:
    right = gold == predicted
    return Judgement(gold=gold, predicted=predicted, right=right, score=right * 1.0, facets=facet)


# Classification


def test_what_training_fixed_and_broke_is_counted(tmp_path):
    metrics = {"per_class": {"b": {}, "a": {}}}
    before = labelled("ab", "ab", "ab", "aa", "bb", "bb", "bb")
    after = labelled("aa", "aa", "ab", "ab", "bb", "bb", "bb")
    run = recorded(tmp_path, "classification", metrics, test=after, baseline_test=before[::-1])
    found = failures(run)
    assert found.keys() == {"test"}
    counts = {"fixed": 2, "broken": 1, "still_wrong": 1, "still_right": 3}
    assert found["test"]["churn"] == counts
    assert found["test"]["confusion"] == {"labels": ["b", "a"], "counts": [[3, 0], [2, 2]]}
    assert found["test"]["facets"] == {
        "label": [
            {"value": "a", "count": 4, "right": 2, "score": 0.5},
            {"value": "b", "count": 3, "right": 3, "score": 1.0},
        ]
    }
    assert found["test"]["thresholds"] is None
    assert found["test"]["num_examples_shown"] == 0
    assert sum(one["count"] for one in found["test"]["reliability"]["bins"]) == 7
    assert json.loads(json.dumps(found)) == found


def test_of_an_older_run_there_are_counts_without_churn(tmp_path):
    run = recorded(
        tmp_path, "classification", {}, test=labelled("ab", "bb", probability=None), validation=[]
    )
    found = failures(run)["test"]
    assert (found["churn"], found["confusion"], found["reliability"]) == (None, None, None)
    assert len(found["facets"]["label"]) == 2


def test_a_baseline_of_other_examples_gives_no_churn(tmp_path):
    before = [{**answer, "id": f"other {answer['id']}"} for answer in labelled("ab", "bb")]
    after = labelled("ab", "bb")
    run = recorded(tmp_path, "classification", {}, test=after, baseline_test=before)
    assert failures(run)["test"]["churn"] is None


def test_what_one_run_fixed_and_broke_of_another_is_counted(tmp_path):
    runs = []
    answers = labelled("aa", "ab", "bb", "ba"), labelled("aa", "aa", "ba", "ba"), labelled("aa")
    for number, test in enumerate(answers):
        (tmp_path / str(number)).mkdir()
        runs.append(recorded(tmp_path / str(number), "classification", {}, test=test))
    counts = {"fixed": 1, "broken": 1, "still_wrong": 1, "still_right": 1}
    assert churn_between(runs[0], runs[1]) == {"test": counts}
    assert churn_between(runs[0], runs[2]) == {}  # of other examples


def test_a_task_without_right_answers_has_no_failures(tmp_path):
    assert failures(recorded(tmp_path, "masked_lm", {}, test=labelled("ab"))) == {}
    (tmp_path / "empty").mkdir()
    assert failures(recorded(tmp_path / "empty", "classification", {})) == {}


@pytest.mark.parametrize(
    "line",
    [
        {"id": 0, "label": "a"},
        {"label": "a", "prediction": "a"},
        {"id": 0, "label": 3, "prediction": "a"},
        {"id": [], "label": "a", "prediction": "a"},
        {"id": 0, "label": "a", "prediction": "a", "probability": "high"},
    ],
)
def test_a_changed_line_is_named(line, tmp_path):
    run = recorded(tmp_path, "classification", {}, test=[*labelled("ab"), line])
    with pytest.raises(RunDirectoryError, match=r"test\.jsonl, line 2: not an answer"):
        failures(run)


def test_the_rarest_of_many_labels_are_gathered():
    labels = [f"label {index:02d}" for index in range(60)]
    judged = [judgement(label, label) for label in labels[10:]]
    judged += [judgement("label 00", "label 01"), judgement("label 00", "label 11")]
    found = confusion(judged, labels)
    assert found is not None
    assert len(found["labels"]) == MOST_VALUES + 1
    assert found["labels"][-1] == "(other)"
    assert found["labels"][:2] == ["label 00", "label 10"]  # in the order of the classes
    counts = np.array(found["counts"])
    assert counts.sum() == len(judged)
    assert counts[0, -1] == 1  # label 01 is rarer than the others
    whole = confusion([judgement("x", "y")], ["x", "y"])
    assert whole == {"labels": ["x", "y"], "counts": [[0, 1], [0, 0]]}


def test_values_of_a_facet_are_in_order():
    lengths = ["11 or more", "2", "1", "2", "3 to 5", "2"]
    found = facets([judgement("a", "a", length=length) for length in lengths])
    assert [row["value"] for row in found["length"]] == ["1", "2", "3 to 5", "11 or more"]
    words = [judgement("a", "b", word=word) for word in ("why", "who", "who", "how")]
    assert [row["value"] for row in facets(words)["word"]] == ["who", "how", "why"]
    many = [judgement("a", "ab"[index % 2], n=f"v{index}") for index in range(MOST_VALUES + 6)]
    rows = facets(many)["n"]
    assert len(rows) == MOST_VALUES + 1
    assert rows[-1] == {"value": "(other)", "count": 6, "right": 3, "score": 0.5}


# Calibration


def test_the_calibration_error_is_that_of_a_computation_by_hand():
    # Bins: (0.5, 0.6] has 0.55 and 0.6, one right; (0.9, 1.0] has 0.95, 1.0 and 1.0, all right.
    confidences, right = [0.55, 0.6, 0.95, 1.0, 1.0], [True, False, True, True, True]
    found = reliability(confidences, right)
    assert found is not None
    first = (0.5 - (0.55 + 0.6) / 2) * -1
    second = 1.0 - (0.95 + 1.0 + 1.0) / 3
    assert found["ece"] == pytest.approx(2 / 5 * first + 3 / 5 * second)
    counts = [one["count"] for one in found["bins"]]
    assert counts == [0, 0, 0, 0, 0, 2, 0, 0, 0, 3]
    assert found["bins"][5] == {
        "low": 0.5,
        "high": 0.6,
        "count": 2,
        "confidence": pytest.approx(0.575),
        "accuracy": 0.5,
    }
    assert found["bins"][0]["confidence"] is None
    assert found["bins"][0]["accuracy"] is None


def test_confidences_at_the_edges_have_a_bin():
    found = reliability([0.0, 0.1, 0.1000001, 1.0, 1.0000001], [True] * 5)
    assert found is not None
    assert [one["count"] for one in found["bins"]] == [2, 1, *[0] * 7, 2]
    sure = reliability([1.0, 1.0, 0.0], [True, True, False])
    assert sure is not None
    assert sure["ece"] == 0
    assert reliability([], []) is None


def test_answers_without_a_probability_are_left_out(tmp_path):
    answers = [*labelled("aa", probability=0.95), {"id": 1, "label": "a", "prediction": "b"}]
    answers.append({**labelled("ab")[0], "id": 2, "probability": float("nan")})
    found = failures(recorded(tmp_path, "classification", {}, test=answers))
    reliable = found["test"]["reliability"]
    assert sum(one["count"] for one in reliable["bins"]) == 1
    assert reliable["ece"] == pytest.approx(0.05)


# Question answering


def questions(number: int, seed: int, *, ties: bool) -> list[dict[str, Any]]:
    drawn = random.Random(seed)
    words = "oslo river the old 12 king".split()

    def text(least: int) -> str:
        return " ".join(drawn.choices(words, k=drawn.randrange(least, 4)))

    return [
        {
            "id": str(index),
            "row": index,
            "group": index // 5,
            "question": drawn.choice(["Who is it?", "How many are there?"]),
            "prediction": text(0),
            "probability": drawn.random(),
            "no_answer_probability": drawn.randrange(5) / 4 if ties else drawn.random(),
            "answers": [text(1) for _ in range(drawn.randrange(3))],
        }
        for index in range(number)
    ]


def scores_at(answers: list[dict[str, Any]], threshold: float) -> dict[str, float]:
    records = [
        SquadRecord(one["id"], one["answers"], one["prediction"], one["no_answer_probability"])
        for one in answers
    ]
    return squad_scores(records, threshold)


@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize("seed", range(3))
def test_every_point_of_the_curve_is_squad_s_score_at_its_threshold(seed, ties):
    answers = questions(60, seed, ties=ties)
    metrics = answer_metrics(answers, 0.5)
    found = threshold_curve(answers, metrics)
    assert found is not None
    points = {point["threshold"]: point for point in found["points"]}
    assert len(points) == len(found["points"])
    assert list(points) == sorted(points)
    assert {0.0, 1.0, *(one["no_answer_probability"] for one in answers)} <= points.keys()
    for threshold, point in points.items():
        expected = scores_at(answers, threshold)
        assert point["exact"] == pytest.approx(expected["exact"])
        assert point["f1"] == pytest.approx(expected["f1"])
    assert found["chosen"] == 0.5
    assert points[0.5]["exact"] == pytest.approx(metrics["exact_at_threshold"])
    assert points[0.5]["f1"] == pytest.approx(metrics["f1_at_threshold"])
    assert points[1.0]["f1"] == pytest.approx(metrics["f1"])
    if not ties:
        assert points[found["best"]]["f1"] == pytest.approx(metrics["best_f1"])
        assert points[found["best_exact"]]["exact"] == pytest.approx(metrics["best_exact"])
        assert max(point["f1"] for point in points.values()) == pytest.approx(metrics["best_f1"])


def test_of_many_thresholds_the_marked_ones_are_kept():
    answers = questions(3000, 7, ties=False)
    metrics = answer_metrics(answers, 0.123456)
    found = threshold_curve(answers, metrics)
    assert found is not None
    assert len(found["points"]) == MOST_POINTS
    points = {point["threshold"]: point for point in found["points"]}
    assert points[found["best"]]["f1"] == pytest.approx(metrics["best_f1"])
    assert points[found["best_exact"]]["exact"] == pytest.approx(metrics["best_exact"])
    assert points[0.123456]["f1"] == pytest.approx(metrics["f1_at_threshold"])


def test_without_a_choice_there_is_no_curve():
    answers = questions(20, 0, ties=False)
    assert threshold_curve(answers, {}) is None
    answered = [one for one in answers if one["answers"]]
    assert threshold_curve(answered, answer_metrics(answered)) is None


def test_the_threshold_decides_which_questions_are_right(tmp_path):
    answers = questions(80, 1, ties=True)
    metrics = answer_metrics(answers, 0.5)
    run = recorded(tmp_path, "question_answering", metrics, test=answers, baseline_test=answers)
    found = failures(run)["test"]
    right = metrics["exact_at_threshold"] * 80 / 100
    assert found["churn"]["still_right"] == pytest.approx(right)
    assert found["churn"]["fixed"] == found["churn"]["broken"] == 0
    answerable = {row["value"]: row for row in found["facets"]["answerable"]}
    assert 100 * answerable["yes"]["score"] == pytest.approx(metrics["HasAns_f1_at_threshold"])
    no = answerable["no"]
    assert 100 * no["right"] / no["count"] == pytest.approx(metrics["NoAns_exact_at_threshold"])
    assert {row["value"] for row in found["facets"]["question word"]} == {"who", "how many"}
    assert found["thresholds"]["chosen"] == 0.5
    assert found["confusion"] is None


# Generated text


def test_generated_answers_have_churn_and_facets(tmp_path):
    def texts(*predictions: str) -> list[dict[str, Any]]:
        return [
            {"id": index, "prompt": "p", "prediction": text, "reference": "one two"}
            for index, text in enumerate(predictions)
        ]

    after = texts("one two", "one", "two one")
    run = recorded(tmp_path, "causal_lm", {}, test=after, baseline_test=texts("", "", "one two"))
    found = failures(run)["test"]
    assert found["churn"] == {"fixed": 1, "broken": 1, "still_wrong": 1, "still_right": 0}
    (row,) = found["facets"]["answer length"]
    assert (row["count"], row["right"]) == (3, 1)
    assert row["score"] == pytest.approx((1 + 2 / 3 + 1 / 2) / 3)
    assert (found["reliability"], found["confusion"]) == (None, None)
