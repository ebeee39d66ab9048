"""Each finding has a run that deserves it and one, close to it, that does not."""

import math
from typing import Any

import pytest
from support.diagnosed_runs import (
    ANSWERED,
    ANSWERS,
    CLASSIFICATION,
    LANGUAGE_MODEL,
    course,
    recorded,
    scores,
    training,
)

from trainer.report.diagnosis import SEVERITIES, diagnose_run
from trainer.report.diagnosis.scales import mixed_scales
from trainer.report.diagnosis.significance import seeds_disagree

Values = dict[str, Any]


def codes(base: Values, changes: Values, lines: list[Values] | None = None) -> set[str]:
    return {finding.code for finding in diagnose_run(recorded(base, changes, lines))}


@pytest.mark.parametrize("base", [CLASSIFICATION, LANGUAGE_MODEL, ANSWERS])
def test_a_run_that_learned_is_not_suspected(base):
    assert diagnose_run(recorded(base)) == []


def perplexity_of(value: float, **other: float) -> Values:
    """Changes the language model's perplexity on the test split."""
    metrics = {"loss": 4.0, "perplexity": 54.59815, "masked_accuracy": 0.3}
    return {"best.metrics.test": {**metrics, "perplexity": value, **other}}


def change_of_accuracy(difference: float, p: float, **changes: Any) -> Values:
    test = {"metric": "accuracy", "before": "baseline", "after": "best", "difference": difference}
    tests = [{**test, "p": p, "p_adjusted": p, **changes}]
    return {"statistics": {"test": {"num_examples": 800, "tests": tests}}}


SCALES = {
    "beyond-scale": (
        CLASSIFICATION,
        {"best.metrics.test.f1": 2.748},
        {"best.metrics.test.f1": 1.0},
    ),
    "implausible-fall": (
        ANSWERS,
        {"baseline.test": {"f1": 75.0, "exact": 60.0}, "best.metrics.test": {"f1": 2.748}},
        {"baseline.test": {"f1": 75.0, "exact": 60.0}, "best.metrics.test": {"f1": 20.0}},
    ),
    "f1-without-exact": (
        ANSWERS,
        {"best.metrics.test": {"f1": 75.0, "exact": 0.0}},
        {"best.metrics.test": {"f1": 40.0, "exact": 0.0}},
    ),
}
PERPLEXITIES = {
    "perplexity-below-1": (
        LANGUAGE_MODEL,
        perplexity_of(0.9, loss=math.log(0.9)),
        perplexity_of(1.0, loss=0.0),
    ),
    "perplexity-above-vocabulary": (
        LANGUAGE_MODEL,
        perplexity_of(8103.0839, loss=9.0),
        perplexity_of(7999.0, loss=math.log(7999)),
    ),
    "log-base": (LANGUAGE_MODEL, perplexity_of(10**2.5, loss=2.5), perplexity_of(12.18, loss=2.5)),
    "perplexity-and-loss": (
        LANGUAGE_MODEL,
        perplexity_of(99.0, loss=4.0),
        perplexity_of(55.0, loss=4.0),  # rounded
    ),
}
COUNTS = {
    "packed-total": (
        CLASSIFICATION,
        {"recipe.tuning.mode": "qlora"},
        {"recipe.tuning.mode": "int8_lora"},
    ),
    "packed-storage": (
        CLASSIFICATION,
        {"recipe.tuning.mode": "qlora", "parameters.stored": 60_000_000},
        {"recipe.tuning.mode": "lora", "parameters.stored": 109_483_778},
    ),
}
DATA = {
    "trained-on": (
        CLASSIFICATION,
        {"data.test.sha256": "a" * 64},
        {"data.test.sha256": "d" * 64},
    ),
    "seen-in-training": (
        CLASSIFICATION,
        {"data.test.overlap_with_train": {"exact": 0, "normalised": 9}},
        {"data.test.overlap_with_train": {"exact": 0, "normalised": 0}},
    ),
    "chosen-on-test": (
        CLASSIFICATION,
        {"data.test.sha256": "b" * 64},
        {"data.test.sha256": "b" * 64, "model": "final"},
    ),
    "cut-evaluation": (
        CLASSIFICATION,
        {"data.test.rows": 872},
        {"recipe.data.max_rows": 2000},
    ),
    "truncated": (
        CLASSIFICATION,
        {"data.test.num_truncated": 80},
        {"data.test.num_truncated": 79},
    ),
    "skipped-examples": (
        CLASSIFICATION,
        {"data.train.num_skipped": 20},
        {"data.train.num_skipped": 1},
    ),
    "sampled-answers": (
        ANSWERS,
        {"zero_shot": {"test": {"f1": 20.0, "exact": 9.0, "total": 200}}},
        {"zero_shot": {"test": {"f1": 20.0, "exact": 9.0, "total": 800}}},
    ),
}
TRAINING = {
    "skipped-steps": (CLASSIFICATION, {"skipped_steps": 1}, {"skipped_steps": 0}),
    "zero-learning-rate": (
        CLASSIFICATION,
        {"recipe.optimizer.learning_rate": 0.0},
        {"recipe.optimizer.learning_rate": 1e-9},
    ),
    "endless-warm-up": (
        CLASSIFICATION,
        {"recipe.schedule.warmup_ratio": None, "recipe.schedule.warmup_steps": 300},
        {"recipe.schedule.warmup_ratio": None, "recipe.schedule.warmup_steps": 299},
    ),
    "no-gradient": (
        CLASSIFICATION,
        {"learned": {"without_gradient": ["bert.pooler.dense.weight"]}},
        {"learned": {}},
    ),
    "zero-adapters": (
        CLASSIFICATION,
        {"learned.zero_adapters": ["bert.encoder.layer.*.attention.self.query"]},
        {"learned.zero_adapters": []},
    ),
}
LUCK = {
    "could-be-luck": (
        CLASSIFICATION,
        change_of_accuracy(0.01, 0.2),
        change_of_accuracy(0.01, 0.04),
    ),
    "worse-than-before": (
        CLASSIFICATION,
        change_of_accuracy(-0.1, 0.001),
        change_of_accuracy(0.1, 0.001),
    ),
}
CHANGES = {**SCALES, **PERPLEXITIES, **COUNTS, **DATA, **TRAINING, **LUCK}


@pytest.mark.parametrize("code", CHANGES)
def test_a_run_that_deserves_it_and_one_that_does_not(code):
    base, deserving, sound = CHANGES[code]
    assert code in codes(base, deserving)
    assert code not in codes(base, sound)


@pytest.mark.parametrize(
    ("code", "deserving", "sound"),
    [
        (
            "guessing-throughout",
            [(step, 0.5, loss) for step, loss in enumerate((0.6931, 0.6950, 0.6929), start=1)],
            [(1, 0.5, 0.6931), (2, 0.6, 0.65)],
        ),
        (
            "overfit-from-start",
            [(100, 0.9, 0.3), (200, 0.89, 0.35), (300, 0.89, 0.45)],
            [(100, 0.9, 0.3), (200, 0.89, 0.29), (300, 0.89, 0.45)],
        ),
        (
            "unfinished",
            [(100, 0.7, 0.5), (200, 0.8, 0.4), (300, 0.85, 0.3)],
            [(100, 0.7, 0.5), (200, 0.85, 0.4), (300, 0.855, 0.3)],
        ),
    ],
)
def test_a_course_that_deserves_it_and_one_that_does_not(code, deserving, sound):
    assert code in codes(CLASSIFICATION, {}, course(deserving))
    assert code not in codes(CLASSIFICATION, {}, course(sound))


@pytest.mark.parametrize(("best", "suspected"), [(149, True), (150, False)])
def test_a_best_step_long_before_the_last_is_named(best, suspected):
    assert ("early-best" in codes(CLASSIFICATION, {"best.step": best})) == suspected
    assert "early-best" not in codes(CLASSIFICATION, {"best.step": best, "model": "final"})


@pytest.mark.parametrize("value", [None, math.nan, math.inf])
def test_steps_whose_loss_is_not_finite_are_named(value):
    assert "not-finite" in codes(CLASSIFICATION, {}, [*course(), *training([301], loss=value)])
    # fp16 skips such a step, and says so
    lines = [*course(), *training([301], grad_norm=value)]
    assert "not-finite" in codes(CLASSIFICATION, {}, lines)
    assert codes(CLASSIFICATION, {"skipped_steps": 1}, lines) == {"skipped-steps"}


def test_metrics_that_are_not_finite_are_named():
    (found,) = diagnose_run(recorded(LANGUAGE_MODEL, {"best.metrics.test.loss": math.nan}))
    assert (found.code, found.severity) == ("not-finite", "wrong")
    assert "test loss (best)" in found.message


def test_a_learning_rate_of_0_shows_in_the_steps_alone():
    lines = [*course(), *training([301], learning_rate=0.0)]
    assert codes(CLASSIFICATION, {}, lines) == set()  # a schedule may end at 0
    for line in lines:
        line.update({"learning_rate": 0.0} if line["split"] == "train" else {})
    assert codes(CLASSIFICATION, {}, lines) == {"zero-learning-rate"}


@pytest.mark.parametrize(
    ("schedule", "suspected"),
    [
        ({"warmup_ratio": 1.0, "epochs": 3}, True),
        ({"warmup_ratio": 0.5, "steps": 800}, True),  # patience ended it after 300
        ({"warmup_ratio": 0.5, "steps": 400}, False),
        ({"epochs": 3}, False),
    ],
)
def test_a_warm_up_is_compared_with_the_steps_taken(schedule, suspected):
    found = codes(CLASSIFICATION, {"recipe.schedule": schedule})
    assert ("endless-warm-up" in found) == suspected


@pytest.mark.parametrize(
    "change",
    [
        {"data.test.sha256": "a" * 64},
        {"data.test.overlap_with_train": {"exact": 800, "normalised": 800}},
        {"recipe.data.split.test": "train"},
        {"warnings": ["all 800 test rows also occur in train"], "data": {}},
    ],
)
def test_a_test_on_the_training_rows_is_wrong(change):
    (found,) = diagnose_run(recorded(CLASSIFICATION, change))
    assert (found.code, found.severity, found.split) == ("trained-on", "wrong", "test")


def test_rows_seen_in_training_are_counted_also_in_old_results():
    overlap = {"data.test.overlap_with_train": {"exact": 8, "normalised": 16}}
    (found,) = diagnose_run(recorded(CLASSIFICATION, overlap))
    assert found.sentence() == (
        "test: 8 of 800 rows occur in training, 16 if only letters and digits count (2.0%)"
    )
    assert (found.severity, found.figures["exact"]) == ("doubtful", 8)
    old = {"warnings": ["1,200 of 30,000 test rows also occur in train"], "data": {}}
    (found,) = diagnose_run(recorded(CLASSIFICATION, old))
    assert found.figures == {"exact": 1200, "normalised": 1200, "rows": 30000}
    few = {"data.test.overlap_with_train": {"exact": 1, "normalised": 2}}
    assert diagnose_run(recorded(CLASSIFICATION, few))[0].severity == "note"


def test_the_same_split_named_twice_chose_the_step_by_the_test():
    split = {"validation": "validation", "test": "validation"}
    named = {"recipe.data.split": split}
    assert codes(CLASSIFICATION, named) == {"chosen-on-test"}
    both = {"recipe.data.split": {"validation": "auto", "test": "auto"}}
    assert codes(CLASSIFICATION, both) == set()


def test_a_limit_of_rows_shows_in_what_was_measured():
    limited = {"recipe.data.max_rows": 800, "data": {}}
    found = diagnose_run(recorded(CLASSIFICATION, limited))
    assert {(one.code, one.split) for one in found} == {
        ("cut-evaluation", "validation"),
        ("cut-evaluation", "test"),
    }
    assert "only the first 800 rows are measured" in found[0].message


def test_generated_text_of_a_sample_is_said():
    task = {"name": "causal_lm", "generation": {"num_examples": 100}}
    metrics = {"bleu": 20.0, "generated_words": 900}
    changes = {"recipe.task": task, "best.metrics.test": metrics}
    assert "sampled-answers" in codes(LANGUAGE_MODEL, changes)
    task["generation"] = {"num_examples": 800}
    assert codes(LANGUAGE_MODEL, changes) == set()


def test_the_test_counts_before_validation_and_other_metrics_do_not():
    luck = change_of_accuracy(0.01, 0.2)["statistics"]["test"]
    certain = change_of_accuracy(0.1, 0.001)["statistics"]["test"]
    both = {"statistics": {"test": certain, "validation": luck}}
    assert codes(CLASSIFICATION, both) == set()
    alone = diagnose_run(recorded(CLASSIFICATION, {"statistics": {"validation": luck}}))
    assert [one.sentence() for one in alone] == [
        "validation: the change of accuracy from baseline to best, +0.0100, could be luck "
        "(p = 0.20) on 800 examples"
    ]
    assert codes(CLASSIFICATION, change_of_accuracy(0.01, 0.2, metric="f1_macro")) == set()
    (same,) = diagnose_run(recorded(CLASSIFICATION, change_of_accuracy(0.0, 1.0)))
    assert same.message == "no change of accuracy from baseline to best on 800 examples"
    less_is_better = {**change_of_accuracy(-0.5, 0.001, metric="perplexity")}
    assert codes(LANGUAGE_MODEL, less_is_better) == set()


def test_too_few_articles_are_named():
    for number, expected in ((3, {"few-articles"}), (10, set()), (None, set())):
        changes = change_of_accuracy(0.1, 0.001)
        changes["statistics"]["test"]["num_clusters"] = number
        assert codes(CLASSIFICATION, changes) == expected


def test_what_a_task_finds_is_there_for_every_split_and_zero_shot():
    one_class = scores(0.5, 0.8)
    one_class["per_class"] = {
        "negative": {"support": 400, "predicted": 800},
        "positive": {"support": 400, "predicted": 0},
    }
    changes = {"zero_shot": {"test": one_class}, "best.metrics.test": one_class}
    found = diagnose_run(recorded(CLASSIFICATION, changes))
    assert {one.split for one in found if one.code == "one-class"} == {"test", "zero-shot test"}
    assert any(
        one.sentence().startswith("zero-shot test: every example is predicted as") for one in found
    )


def test_a_task_of_another_package_is_passed_over():
    changes = {"recipe.task.name": "of-nobody", "best.metrics.test": {"accuracy": 1.5}}
    assert codes(CLASSIFICATION, changes) == {"beyond-scale"}


def test_the_worst_comes_first():
    changes = {
        "skipped_steps": 1,
        "data.test.num_truncated": 700,
        "best.metrics.validation.f1": 7.0,
    }
    found = [one.severity for one in diagnose_run(recorded(CLASSIFICATION, changes))]
    assert found == ["wrong", "doubtful", "note"] == list(SEVERITIES)


def test_scales_that_differ_between_runs_are_named():
    (found,) = mixed_scales([{"f1": "0-1", "bleu": "0-100"}, {"f1": "0-100", "bleu": "0-100"}])
    assert (found.code, found.message) == ("mixed-scales", "f1 has the scales 0-1 and 0-100")
    assert mixed_scales([{"f1": "0-1"}, {"f1": "0-1"}, {}]) == []


@pytest.mark.parametrize(
    ("values", "difference", "suspected"),
    [
        ((0.80, 0.90), 0.05, True),  # a standard deviation of 0.0707
        ((0.80, 0.90), -0.05, True),
        ((0.80, 0.90), 0.08, False),
        ((0.80, 0.80, 0.80), 0.0, False),  # they agree
        ((0.80,), 0.01, False),
        ((0.80, math.nan), 0.01, False),
    ],
)
def test_seeds_that_differ_more_than_the_effect_are_named(values, difference, suspected):
    found = seeds_disagree("accuracy", values, difference)
    assert (found is not None) == suspected
    assert found is None or found.code == "seeds-disagree"


def test_the_scores_of_one_class_may_fall():
    changes = {"best.metrics.test.f1": 0.01, "best.metrics.test.recall": 0.01}
    assert codes(CLASSIFICATION, changes) == set()
    assert codes(CLASSIFICATION, {"best.metrics.test.accuracy": 0.04}) >= {"implausible-fall"}
    kinds = {"baseline.test": {"NoAns_exact": 90.0}, "best.metrics.test.NoAns_exact": 2.0}
    assert codes(ANSWERS, kinds) == set()


def test_answers_keep_their_findings():
    metrics = {**ANSWERED, "best_exact": 50.0, "exact_at_threshold": 40.0}
    found = codes(ANSWERS, {"best.metrics.test": metrics})
    assert found == {"at-never-answering", "below-never-answering"}
