"""The evidence of a run: intervals and tests from its directory, whatever that holds."""

import json
import shutil
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy import stats
from support.recorded_runs import asked, classified, counted, measured_answers, write_run
from support.task_cases import CASES

import trainer
from trainer.errors import RunDirectoryError
from trainer.metrics.generation import generation_scores
from trainer.report.recorded import read_run
from trainer.report.statistics.columns import columns_of
from trainer.report.statistics.evidence import between, statistics
from trainer.tasks import task_named

LABELS = "nnnnpppppp" * 10
BEFORE = "npnpnpnpnp" * 10  # half of each class: 50 of 100
AFTER = "nnnppppppn" * 10  # 80 of 100
ZERO_SHOT = "pppppppppp" * 10


@pytest.fixture
def run_files() -> tuple[dict[str, Any], dict[str, Any]]:
    """Metrics and answers of a classifier's run that kept everything, its best step not the
    last."""
    answers = {
        "baseline-test": classified(LABELS, BEFORE),
        "zero_shot_test": classified(LABELS, ZERO_SHOT),
        "test": classified(LABELS, AFTER),
        "final-test": classified(LABELS, AFTER[:50] + BEFORE[50:]),
    }
    metrics = {
        column: {"test": counted(answers[name])}
        for column, name in (
            ("baseline", "baseline-test"),
            ("zero_shot", "zero_shot_test"),
            ("best", "test"),
            ("final", "final-test"),
        )
    }
    return metrics, answers


def test_a_complete_run(tmp_path, run_files):
    evidence = statistics(write_run(tmp_path, *run_files))
    assert list(evidence) == ["test"]
    test = evidence["test"]
    assert test["num_examples"] == 100
    assert test["clustered_by"] is None
    assert test["majority_is"] == "always 'p'"
    accuracy = test["metrics"]["accuracy"]
    assert list(accuracy) == ["majority", "baseline", "zero_shot", "best", "final"]
    values = {column: numbers["value"] for column, numbers in accuracy.items()}
    assert values == {
        "majority": 0.6,
        "baseline": 0.5,
        "zero_shot": 0.6,
        "best": 0.8,
        "final": 0.65,
    }
    for numbers in accuracy.values():
        expected = stats.binomtest(round(100 * numbers["value"]), 100).proportion_ci(
            method="wilson"
        )
        assert (numbers["low"], numbers["high"]) == pytest.approx(tuple(expected))
        assert numbers["method"] == "Wilson"
    f1 = test["metrics"]["f1"]
    assert f1["best"]["method"] == "bootstrap"
    assert f1["best"]["low"] < f1["best"]["value"] < f1["best"]["high"]
    assert test["metrics"]["loss"]["best"] == {
        "value": 0.5,
        "low": None,
        "high": None,
        "method": None,
    }
    assert "seconds" not in test["metrics"]
    json.dumps(evidence, allow_nan=False)


def test_tests_against_earlier_columns(tmp_path, run_files):
    test = statistics(write_run(tmp_path, *run_files))["test"]
    names = [(result["metric"], result["before"], result["after"]) for result in test["tests"]]
    assert names == [
        ("accuracy", "majority", "best"),
        ("accuracy", "baseline", "best"),
        ("f1", "baseline", "best"),
        ("accuracy", "zero_shot", "best"),
        ("f1", "zero_shot", "best"),
    ]
    baseline = test["tests"][1]
    right = [[a == b for a, b in zip(LABELS, answer, strict=True)] for answer in (BEFORE, AFTER)]
    won = sum(after and not before for before, after in zip(*right, strict=True))
    lost = sum(before and not after for before, after in zip(*right, strict=True))
    assert (baseline["won"], baseline["lost"]) == (won, lost)
    assert baseline["p"] == pytest.approx(stats.binomtest(won, won + lost).pvalue)
    assert baseline["method"] == "exact McNemar"
    assert baseline["difference"] == pytest.approx(0.3)
    assert baseline["low"] < 0.3 < baseline["high"]
    assert test["tests"][2]["method"] == "paired bootstrap"
    assert test["tests"][2]["won"] is None
    assert baseline["p_adjusted"] >= baseline["p"]
    ranked = sorted(test["tests"], key=lambda result: result["p"])
    assert ranked[0]["p_adjusted"] == pytest.approx(5 * ranked[0]["p"])
    assert set(test["detectable"]) == {"accuracy", "f1"}


def test_answers_in_another_order_change_nothing(tmp_path, run_files):
    metrics, answers = run_files
    expected = statistics(write_run(tmp_path / "a", metrics, answers))
    reversed_answers = {**answers, "baseline-test": answers["baseline-test"][::-1]}
    assert statistics(write_run(tmp_path / "b", metrics, reversed_answers)) == expected


def test_statistics_are_the_same_every_time(tmp_path, run_files):
    run = write_run(tmp_path, *run_files)
    assert json.dumps(statistics(run)) == json.dumps(statistics(run))


def test_a_run_that_kept_no_answers(tmp_path, run_files):
    metrics, _ = run_files
    test = statistics(write_run(tmp_path, metrics, {}))["test"]
    assert test["num_examples"] == 100
    accuracy = test["metrics"]["accuracy"]
    for column in ("majority", "baseline", "best"):
        assert accuracy[column]["method"] == "Wilson"
    expected = stats.binomtest(80, 100).proportion_ci(method="wilson")
    assert (accuracy["best"]["low"], accuracy["best"]["high"]) == pytest.approx(tuple(expected))
    assert test["metrics"]["f1"]["best"]["low"] is None
    assert test["tests"] == []
    assert set(test["detectable"]) == {"accuracy"}


def test_an_older_run_kept_the_exported_step_s_answers(tmp_path, run_files):
    metrics, answers = run_files
    test = statistics(write_run(tmp_path, metrics, {"test": answers["test"]}))["test"]
    assert [result["before"] for result in test["tests"]] == ["majority"]
    assert test["metrics"]["f1"]["best"]["method"] == "bootstrap"
    assert test["metrics"]["f1"]["baseline"]["method"] is None


def shifted(records: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{**record, "row": record["row"] + 1} for record in records]


def with_another_target(records: list[dict[str, Any]]) -> list[dict[str, Any]]:
    assert records[0]["label"] != records[4]["label"]
    return [{**records[0], "label": records[4]["label"]}, *records[1:]]


def repeated(records: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [records[0], *records[:-1]]


def of_others(records: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [*records, {**records[0], "id": 1000, "row": 1000}]


def nameless(records: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{name: record[name] for name in ("label", "prediction")} for record in records]


@pytest.mark.parametrize("change", [shifted, with_another_target, repeated, of_others, nameless])
def test_answers_of_other_examples_are_not_tested(tmp_path, run_files, change):
    metrics, answers = run_files
    answers["baseline-test"] = change(answers["baseline-test"])
    metrics["baseline"]["test"] = counted(answers["baseline-test"])
    test = statistics(write_run(tmp_path, metrics, answers))["test"]
    assert {result["before"] for result in test["tests"]} == {"majority", "zero_shot"}
    assert test["metrics"]["accuracy"]["baseline"]["method"] == "Wilson"
    assert test["metrics"]["f1"]["baseline"]["method"] == "bootstrap"


def test_records_that_are_no_answers_count_for_nothing(tmp_path, run_files):
    metrics, answers = run_files
    answers["baseline-test"] = [{"text": "?"} for _ in answers["baseline-test"]]
    test = statistics(write_run(tmp_path, metrics, answers))["test"]
    assert {result["before"] for result in test["tests"]} == {"majority", "zero_shot"}
    assert test["metrics"]["f1"]["baseline"]["method"] is None


def test_answers_that_give_other_metrics_count_for_nothing(tmp_path, run_files):
    metrics, answers = run_files
    answers["test"] = classified(LABELS, BEFORE)
    test = statistics(write_run(tmp_path, metrics, answers))["test"]
    assert test["tests"] == []
    assert test["metrics"]["f1"]["best"]["low"] is None
    assert test["metrics"]["accuracy"]["best"]["value"] == 0.8


def test_a_damaged_file_is_named(tmp_path, run_files):
    run = write_run(tmp_path, *run_files)
    (tmp_path / "predictions" / "baseline-test.jsonl").write_text("{")
    with pytest.raises(RunDirectoryError, match=r"baseline-test\.jsonl cannot be read"):
        statistics(run)


def test_best_and_last_step_are_the_same(tmp_path, run_files):
    metrics, answers = run_files
    metrics["final"] = metrics["best"]
    del answers["final-test"]
    test = statistics(write_run(tmp_path, metrics, answers, best_step=20))["test"]
    accuracy = test["metrics"]["accuracy"]
    assert accuracy["final"] == accuracy["best"]
    assert test["metrics"]["f1"]["final"] == test["metrics"]["f1"]["best"]


def test_a_run_that_exports_its_last_step(tmp_path, run_files):
    metrics, answers = run_files
    metrics["best"] = metrics["final"]
    answers["test"] = answers.pop("final-test")
    run = write_run(tmp_path, metrics, answers, best_step=20, model="final")
    test = statistics(run)["test"]
    assert list(test["metrics"]["accuracy"]) == ["majority", "baseline", "zero_shot", "final"]
    assert {result["after"] for result in test["tests"]} == {"final"}
    assert test["metrics"]["f1"]["final"]["low"] is not None


def test_a_task_that_is_not_installed(tmp_path, run_files):
    test = statistics(write_run(tmp_path, *run_files, task="absent"))["test"]
    assert test["num_examples"] is None
    assert test["metrics"]["accuracy"]["best"] == {
        "value": 0.8,
        "low": None,
        "high": None,
        "method": None,
    }
    assert test["tests"] == []


def test_a_single_example(tmp_path):
    answers = classified("p", "p")
    metrics = {column: {"test": counted(answers)} for column in ("baseline", "best")}
    files = {"test": answers, "baseline-test": answers}
    test = statistics(write_run(tmp_path, metrics, files, best_step=20))["test"]
    accuracy = test["metrics"]["accuracy"]["best"]
    assert (accuracy["low"], accuracy["high"]) == pytest.approx((0.2065, 1.0), abs=1e-4)
    assert test["metrics"]["f1"]["best"]["low"] is None
    assert test["tests"] == []


def test_metrics_that_are_not_numbers_are_left_out(tmp_path, run_files):
    metrics, answers = run_files
    metrics["best"]["test"]["loss"] = float("nan")
    test = statistics(write_run(tmp_path, metrics, answers))["test"]
    assert list(test["metrics"]["loss"]) == ["baseline", "zero_shot", "final"]
    json.dumps(test, allow_nan=False)


def test_questions_in_articles(tmp_path):
    generator = np.random.default_rng(1)
    golds = [[f"the name of number {index}"] if index % 3 else [] for index in range(90)]
    guesses = [
        (texts[0] if texts else "") if generator.random() < 0.5 else "nobody" for texts in golds
    ]
    files = {
        "baseline-test": asked(golds, ["nobody"] * 90, articles=9),
        "test": asked(golds, guesses, articles=9),
    }
    metrics = {
        "baseline": {"test": measured_answers(files["baseline-test"])},
        "best": {"test": measured_answers(files["test"])},
    }
    run = write_run(tmp_path, metrics, files, task="question_answering", metric="f1")
    test = statistics(run)["test"]
    assert (test["clustered_by"], test["num_clusters"]) == ("group", 10)
    assert test["majority_is"] == "never answering"
    exact = test["metrics"]["exact"]
    assert exact["majority"]["value"] == pytest.approx(100 / 3)
    assert exact["best"]["method"] == "bootstrap"
    names = [(result["metric"], result["before"]) for result in test["tests"]]
    assert names == [
        ("exact_at_threshold", "majority"),
        ("f1", "baseline"),
        ("exact_at_threshold", "baseline"),
        ("f1_at_threshold", "baseline"),
        ("bleu", "baseline"),
    ]
    # BLEU's own test does not know articles.
    assert {result["method"] for result in test["tests"]} == {"paired bootstrap"}
    apart = [{**answer} for answer in files["test"]]
    for answer in apart:
        del answer["group"]
    before = [
        {k: v for k, v in answer.items() if k != "group"} for answer in files["baseline-test"]
    ]
    run = write_run(
        tmp_path / "apart",
        metrics,
        {"test": apart, "baseline-test": before},
        task="question_answering",
        metric="f1",
    )
    test = statistics(run)["test"]
    assert test["clustered_by"] is None
    assert test["tests"][-1]["method"] == "sacrebleu paired bootstrap"
    assert test["tests"][-1]["p"] < 0.05


def test_a_model_is_prompted_about_some_questions(tmp_path):
    golds = [[f"name {index}"] for index in range(40)]
    after = asked(golds, [texts[0] if n % 4 else "x" for n, texts in enumerate(golds)], articles=4)
    prompted = asked(golds, [texts[0] if n % 8 < 2 else "x" for n, texts in enumerate(golds)])[::4]
    prompted = [{**answer, "id": answer["row"]} for answer in prompted]
    zero_shot = measured_answers([{**answer, "id": str(answer["id"])} for answer in prompted])
    del zero_shot["null_threshold"]
    metrics = {"zero_shot": {"test": zero_shot}, "best": {"test": measured_answers(after)}}
    files = {"zero_shot_test": prompted, "test": after}
    run = write_run(tmp_path, metrics, files, task="question_answering", metric="exact")
    test = statistics(run)["test"]
    (exact, *_) = [result for result in test["tests"] if result["metric"] == "exact"]
    assert (exact["before"], exact["num_examples"]) == ("zero_shot", 10)
    # Of the questions 0, 4, 8, …, the trained model answers none, the prompted one every second.
    assert exact["difference"] == pytest.approx(-50.0)
    assert exact["p"] == pytest.approx(0.0625)  # five pairs differ


def test_generated_answers(tmp_path):
    generator = np.random.default_rng(2)
    references = [" ".join(generator.choice(list("abcdef"), 7)) for _ in range(30)]

    def answers(share: float) -> list[dict[str, Any]]:
        return [
            {
                "id": index,
                "prompt": "p",
                "prediction": text if generator.random() < share else text[:5],
                "reference": text,
            }
            for index, text in enumerate(references)
        ]

    files = {"baseline-validation": answers(0.1), "validation": answers(0.9)}
    metrics = {
        column: {
            "validation": {
                "perplexity": 2.0,
                **generation_scores(
                    [answer["prediction"] for answer in files[name]],
                    [[text] for text in references],
                ),
            }
        }
        for column, name in (("baseline", "baseline-validation"), ("best", "validation"))
    }
    run = write_run(tmp_path, metrics, files, task="causal_lm", metric="perplexity", mode="min")
    validation = statistics(run)["validation"]
    (bleu,) = validation["tests"]
    assert bleu["method"] == "sacrebleu paired bootstrap"
    assert bleu["p"] < 0.01
    assert validation["metrics"]["rougeL"]["best"]["method"] == "bootstrap"
    assert validation["metrics"]["perplexity"]["best"]["low"] is None
    assert validation["majority_is"] is None


def test_masked_language_models_have_the_share_of_pairs(tmp_path):
    measured = {
        "loss": 6.0,
        "masked_accuracy": 0.1,
        "next_sentence_accuracy": 0.75,
        "num_pairs": 40,
    }
    metrics = {"best": {"test": measured}}
    run = write_run(tmp_path, metrics, {}, task="masked_lm", metric="loss", mode="min")
    test = statistics(run)["test"]
    assert test["num_examples"] == 40
    assert test["metrics"]["next_sentence_accuracy"]["best"]["method"] == "Wilson"
    assert test["metrics"]["masked_accuracy"]["best"]["method"] is None


def test_a_hundred_thousand_answers_take_seconds(tmp_path):
    generator = np.random.default_rng(3)
    size = 100_000
    labels, before, after = ("".join(generator.choice(list("np"), size)) for _ in range(3))
    files = {"baseline-test": classified(labels, before), "test": classified(labels, after)}
    metrics = {
        "baseline": {"test": counted(files["baseline-test"])},
        "best": {"test": counted(files["test"])},
    }
    run = write_run(tmp_path, metrics, files, best_step=20)
    start = time.monotonic()
    test = statistics(run)["test"]
    assert time.monotonic() - start < 20  # about three, two of which read the files
    assert test["num_examples"] == size
    shutil.rmtree(tmp_path)


def test_nothing_was_measured(tmp_path: Path):
    assert statistics(write_run(tmp_path, {"best": {}}, {})) == {}


def test_two_runs_on_the_same_examples(tmp_path, run_files):
    metrics, answers = run_files
    first = write_run(tmp_path / "first", metrics, answers)
    swapped = {"best": metrics["baseline"], "baseline": metrics["baseline"]}
    second = write_run(tmp_path / "second", swapped, {"test": answers["baseline-test"]})
    tests = between(first, second)["test"]
    assert [result["metric"] for result in tests] == ["accuracy", "f1"]
    own = {result["metric"]: result for result in statistics(first)["test"]["tests"][1:3]}
    for result in tests:
        assert result["difference"] == pytest.approx(-own[result["metric"]]["difference"])
        assert result["p"] == pytest.approx(own[result["metric"]]["p"])
    assert (tests[0]["won"], tests[0]["lost"]) == (own["accuracy"]["lost"], own["accuracy"]["won"])
    assert tests[0]["p_adjusted"] <= 2 * tests[0]["p"]
    assert between(first, write_run(tmp_path / "third", metrics, {})) == {}
    second.recipe["task"]["name"] = "masked_lm"
    assert between(first, second) == {}
    second.recipe["task"]["name"] = "classification"
    assert between(first, second) != {}
    first.results["data"] = {"test": {"sha256": "a"}}
    second.results["data"] = {"test": {"sha256": "b"}}
    assert between(first, second) == {}


@pytest.mark.parametrize("name", ["classification", "question_answering", "causal_lm-instructions"])
def test_the_answers_of_a_real_run_give_its_metrics(tmp_path, name):
    recipe = {**CASES[name].recipe(), "schedule": {"steps": 2}, "evaluation": {"every": 1}}
    if name == "causal_lm-instructions":
        recipe["task"] = {**recipe["task"], "generation": {"num_examples": 5, "max_new_tokens": 4}}
    trainer.train(trainer.Recipe(**recipe), run_dir=tmp_path / "run", progress=None)
    run = read_run(tmp_path / "run")
    names = {
        "classification": {"accuracy", "f1_macro"},
        "question_answering": {"exact", "f1", "f1_at_threshold", "bleu", "rougeL", "meteor"},
        "causal_lm-instructions": {"bleu", "rouge1", "rouge2", "meteor", "exact_match"},
    }[name]
    task = task_named(recipe["task"]["name"])
    for split in ("validation", "test"):
        columns = columns_of(run, task, split)
        for title in {"baseline", "best", "final"} & columns.by_name.keys():
            column = columns.by_name[title]
            if title == "final" and split == "validation" and not column.answers:
                continue  # it was measured in training, and its answers were not kept
            assert column.scores is not None
            assert names <= column.scores.metrics.keys()  # equal to those in results.json
    tested = {result["before"] for result in statistics(run)["test"]["tests"]}
    assert "baseline" in tested


def test_four_examples_that_differ_prove_nothing(tmp_path):
    """Many differ in F1, and only four in exact match: its p-value is that of four."""
    golds = [["red apple"]] * 40
    before = asked(golds, ["apple pie"] * 40)
    after = asked(golds, ["red apple"] * 4 + ["red apple pie"] * 36)
    metrics = {
        "baseline": {"test": measured_answers(before)},
        "best": {"test": measured_answers(after)},
    }
    files = {"baseline-test": before, "test": after}
    run = write_run(tmp_path, metrics, files, task="question_answering", metric="exact")
    tests = {result["metric"]: result for result in statistics(run)["test"]["tests"]}
    assert tests["exact"]["p"] >= 2**-3
    assert tests["f1"]["p"] < 0.01
