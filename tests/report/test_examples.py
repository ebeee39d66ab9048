"""Examples: what is sampled of many answers, and the files of real runs."""

import html
import json
import shutil
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from support.task_cases import CASES

import trainer
from trainer.report.answers.examples import (
    MOST_BYTES,
    MOST_OF_A_KIND,
    fitting,
    sample_examples,
)
from trainer.report.answers.failures import failures
from trainer.report.recorded import read_run
from trainer.report.results_schema import Failures
from trainer.tasks import task_named
from trainer.tasks.judgement import Judgement

# Sampling


def judgement(right: bool, confidence: float | None = None, score: float | None = None):
    return Judgement(
        gold="g",
        predicted="p",
        right=right,
        score=float(right) if score is None else score,
        confidence=confidence,
        graded=score is not None,
    )


def test_of_each_kind_at_most_a_hundred_are_sampled():
    right = [index % 3 == 0 for index in range(4000)]
    after = [judgement(one, index / 4000) for index, one in enumerate(right)]
    before = [judgement(index % 2 == 0) for index in range(4000)]
    chosen = sample_examples(after, before)
    assert chosen == sample_examples(after, before)
    kinds = Counter(kind for kind, _ in chosen)
    assert kinds == dict.fromkeys(["broken", "fixed", "still wrong", "still right"], MOST_OF_A_KIND)
    assert list(kinds) == ["broken", "fixed", "still wrong", "still right"]
    for kind, position in chosen:
        assert (kind in ("fixed", "still right")) == right[position]
        assert (kind in ("broken", "still right")) == (position % 2 == 0)
    wrong = [position for kind, position in chosen if kind == "still wrong"]
    others = [position for position in range(1, 4000, 2) if not right[position]]
    half = MOST_OF_A_KIND // 2
    assert wrong[:half] == others[::-1][:half]  # the surest ones first
    assert wrong[half:] == sorted(wrong[half:])
    assert len(set(wrong)) == MOST_OF_A_KIND
    assert min(wrong[half:]) < 1000 < max(wrong[half:])  # from everywhere


def test_few_answers_are_all_shown():
    after = [judgement(False, 0.2), judgement(True, 0.5), judgement(False, 0.9)]
    before = [judgement(False), judgement(False), None]
    expected = [("fixed", 1), ("still wrong", 0), ("wrong", 2)]
    assert sample_examples(after, before) == expected
    assert sample_examples([], []) == []
    unsure = [judgement(False) for _ in range(300)]
    chosen = sample_examples(unsure, [None] * 300)
    assert len({position for _, position in chosen}) == MOST_OF_A_KIND


def test_graded_answers_are_the_closest_and_the_farthest():
    scores = [0.5, 0.0, 1.0, 0.25, 0.75]
    after = [judgement(score == 1, score=score) for score in scores]
    expected = [("farthest", 1), ("farthest", 3), *(("closest", index) for index in (2, 4, 0))]
    assert sample_examples(after, [None] * 5) == expected
    many = [judgement(False, score=index / 1000) for index in range(1000)]
    chosen = sample_examples(many, [None] * 1000)
    assert Counter(kind for kind, _ in chosen) == {
        "closest": MOST_OF_A_KIND,
        "farthest": MOST_OF_A_KIND,
    }
    assert chosen[0] == ("farthest", 0)
    assert chosen[MOST_OF_A_KIND] == ("closest", 999)


def test_long_texts_leave_room_for_each_kind():
    lines = [
        {"kind": kind, "id": index, "texts": {"text": '<"&>' * 120}}
        for kind, number in (("broken", 3), ("fixed", 100), ("still wrong", 100))
        for index in range(number)
    ]
    kept = fitting(lines)
    size = sum(len(html.escape(json.dumps(line)).encode()) for line in kept)
    assert 0.95 * MOST_BYTES < size <= MOST_BYTES
    kinds = Counter(line["kind"] for line in kept)
    assert kinds["broken"] == 3
    assert 0 <= kinds["fixed"] - kinds["still wrong"] <= 1
    assert kept == [line for line in lines if line in kept]  # in order
    assert fitting(lines[:50]) == lines[:50]


# Real runs


def lines_of(directory: Path, name: str) -> list[dict[str, Any]]:
    text = (directory / "predictions" / f"{name}.jsonl").read_text("utf-8")
    return [json.loads(line) for line in text.splitlines()]


def trained(
    directory: Path, case: str, *, resume: str | Path = "auto", **sections: Any
) -> trainer.Result:
    values = {**CASES[case].recipe(), "schedule": {"steps": 4}, "evaluation": {"every": 2}}
    return trainer.train(
        trainer.Recipe(**{**values, **sections}), run_dir=directory, resume=resume, progress=None
    )


@pytest.fixture(
    scope="module", params=["classification", "question_answering", "causal_lm-instructions"]
)
def run(request, tmp_path_factory) -> Path:
    """A run of each task that has answers."""
    directory = tmp_path_factory.mktemp("runs") / request.param
    sections: dict[str, Any] = {}
    if request.param == "causal_lm-instructions":
        task = CASES[request.param].task
        sections["task"] = {**task, "generation": {"num_examples": 5, "max_new_tokens": 4}}
    trained(directory, request.param, **sections)
    return directory


def test_a_run_keeps_the_answers_of_each_step_it_measured(run):
    results = json.loads((run / "results.json").read_text())
    names = {path.name for path in (run / "predictions").iterdir()}
    expected = {f"{prefix}{split}.jsonl" for prefix in ("", "baseline-", "examples-")
                for split in ("validation", "test")}  # fmt: skip
    if results["best"]["step"] != results["final"]["step"]:
        expected.add("final-test.jsonl")
    assert names == expected
    rows = {answer["row"] for answer in lines_of(run, "test")}
    assert rows == {answer["row"] for answer in lines_of(run, "baseline-test")}
    assert min(rows) >= 0


def test_the_baseline_s_answers_give_its_metrics(run):
    results = json.loads((run / "results.json").read_text())
    task = task_named(results["recipe"]["task"]["name"])
    columns = {"baseline-test": results["baseline"], "test": results["best"]["metrics"]}
    for name, by_split in columns.items():
        metrics = by_split["test"]
        answers = lines_of(run, name)
        judged = [task.judge(answer, metrics) for answer in answers]
        right = sum(one is not None and one.right for one in judged) / len(answers)
        share = metrics.get("accuracy")
        if share is None:
            share = metrics.get("exact_at_threshold", metrics.get("exact_match")) / 100
        assert right == pytest.approx(share)


def test_examples_show_the_texts_of_their_rows(run):
    recipe = trainer.Recipe(**json.loads((run / "results.json").read_text())["recipe"])
    from trainer.assembly.inputs import build_inputs

    rows = build_inputs(recipe, run).splits["test"].rows
    found = failures(read_run(run))["test"]
    assert Failures.model_validate(found).num_examples_shown
    examples = lines_of(run, "examples-test")
    assert len(examples) == found["num_examples_shown"] > 0
    answers = {answer["id"]: answer for answer in lines_of(run, "test")}
    kinds = Counter(example["kind"].replace(" ", "_") for example in examples)
    assert "wrong" not in kinds
    if "closest" not in kinds:
        assert kinds == {kind: min(n, 100) for kind, n in found["churn"].items() if n}
    for example in examples:
        answer, row = answers[example["id"]], rows[example["row"]]
        assert example["row"] == answer["row"]
        assert isinstance(example["before"], str)
        if "label" in answer:
            assert example["texts"] == {"text": row["text"]}
            assert (example["gold"], example["after"]) == (answer["label"], answer["prediction"])
            assert example["confidence"] == answer["probability"]
        elif "question" in answer:
            assert example["texts"]["question"] == row["question"]
            assert all(text in example["texts"]["context"] for text in answer["answers"])
            assert answer["group"] == min(
                index for index, title in enumerate(rows["title"]) if title == row["title"]
            )
        else:  # the tokenizer of this run has no capitals
            assert example["gold"].split()[:1] == row["output"].lower().split()[:1]
            first = row["instruction"].split()[0].lower()
            assert example["texts"]["prompt"].startswith(first)


def test_answers_that_lie_in_a_new_run_s_directory_are_removed(tmp_path):
    folder = tmp_path / "run" / "predictions"
    folder.mkdir(parents=True)
    for name in ("baseline-test", "final-test", "examples-test", "zero_shot_test"):
        (folder / f"{name}.jsonl").write_text("{}\n")
    evaluation = {"baseline": False, "every": 2}
    checkpoint = {"keep_best": False}
    trained(tmp_path / "run", "classification", evaluation=evaluation, checkpoint=checkpoint)
    expected = {"validation.jsonl", "test.jsonl", "examples-validation.jsonl",
                "examples-test.jsonl"}  # fmt: skip
    assert {path.name for path in folder.iterdir()} == expected
    examples = lines_of(tmp_path / "run", "examples-test")
    assert {example["kind"] for example in examples} <= {"right", "wrong"}
    assert {example["before"] for example in examples} == {None}
    assert failures(read_run(tmp_path / "run"))["test"]["churn"] is None


def test_only_a_run_that_continues_keeps_its_baseline_s_answers(tmp_path):
    directory, other = tmp_path / "run", tmp_path / "other"
    checkpoint = {"every_steps": 2, "keep_last": 2}
    trained(directory, "classification", checkpoint=checkpoint)
    baseline = (directory / "predictions" / "baseline-test.jsonl").read_bytes()
    first, *later = sorted((directory / "checkpoints").glob("step-*"))
    for step in later:
        shutil.rmtree(step)
    (directory / "status.json").unlink()
    (directory / "results.json").unlink()
    (directory / "predictions" / "test.jsonl").unlink()
    assert trained(directory, "classification", checkpoint=checkpoint).state == "done"
    assert (directory / "predictions" / "baseline-test.jsonl").read_bytes() == baseline
    assert lines_of(directory, "examples-test")[0]["before"] is not None

    # From another run's checkpoint: there is no baseline, and what lies there is not it.
    (other / "predictions").mkdir(parents=True)
    (other / "predictions" / "baseline-test.jsonl").write_bytes(baseline)
    trained(other, "classification", checkpoint=checkpoint, resume=first)
    assert not list((other / "predictions").glob("baseline-*"))
    assert lines_of(other, "examples-test")[0]["before"] is None


def test_the_last_step_s_answers_are_kept_unless_it_is_the_exported_one(tmp_path):
    frozen = {"learning_rate": 1e-12}  # the first evaluation remains the best
    schedule = {"name": "constant", "steps": 4}
    directory = tmp_path / "run"
    trained(directory, "classification", optimizer=frozen, schedule=schedule,
            evaluation={"every": 2, "metric": "accuracy"})  # fmt: skip
    results = json.loads((directory / "results.json").read_text())
    assert (results["best"]["step"], results["final"]["step"]) == (2, 4)
    answers = lines_of(directory, "final-test")
    right = [answer["label"] == answer["prediction"] for answer in answers]
    assert sum(right) / len(right) == results["final"]["metrics"]["test"]["accuracy"]


def test_a_language_model_without_answers_writes_no_file_of_them(tmp_path):
    trained(tmp_path / "run", "masked_lm")
    assert not (tmp_path / "run" / "predictions").exists()
    assert failures(read_run(tmp_path / "run")) == {}
