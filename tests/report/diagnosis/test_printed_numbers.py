"""Numbers that were printed and are wrong, typed into results: each is found."""

import math
from typing import Any

import pytest
from support.diagnosed_runs import ANSWERS, CLASSIFICATION, LANGUAGE_MODEL, course, recorded

from trainer.report.diagnosis import diagnose_run

BARE: dict[str, Any] = {"data": {}, "learned": {}, "baseline": {}, "final": {}, "statistics": {}}
"""What a hand-typed results.json does not have."""


def found(base: dict[str, Any], changes: dict[str, Any], lines: Any = ()) -> dict[str, str]:
    run = recorded(base, {**BARE, **changes}, list(lines))
    return {finding.code: finding.message for finding in diagnose_run(run)}


@pytest.mark.parametrize("share", [0.551, 0.509])
def test_recall_1_with_accuracy_as_precision(share):
    scores = {"accuracy": share, "precision": share, "recall": 1.0, "f1": 2 * share / (1 + share)}
    codes = found(CLASSIFICATION, {"best.metrics": {"test": scores}})
    assert codes.keys() == {"one-class"}
    assert f"{share:.4f}" in codes["one-class"]


def test_a_best_threshold_of_0_and_answers_of_another_length():
    scores = {
        "best_exact": 50.09,
        "best_exact_thresh": 0.0,
        "NoAns_exact": 0.0,
        "NoAns_f1": 0.0,
        "length_ratio": 5.6,
    }
    codes = found(ANSWERS, {"best.metrics": {"validation": scores}})
    assert codes.keys() == {"void-threshold", "answer-length"}
    assert "5.6 times the words" in codes["answer-length"]


def test_f1_of_75_before_and_2_7_after():
    before, after = {"f1": 75.0, "exact": 0.0}, {"f1": 2.748, "exact": 0.4}
    codes = found(ANSWERS, {"baseline": {"test": before}, "best.metrics": {"test": after}})
    assert codes.keys() == {"implausible-fall", "f1-without-exact"}
    assert "75.000 in the baseline and 2.748 after" in codes["implausible-fall"]


@pytest.mark.parametrize("scale", ["0-1", "0-100"])
def test_f1_of_two_scales(scale):
    codes = found(
        ANSWERS,
        {
            "scales": {"f1": scale},
            "baseline": {"test": {"f1": 0.75, "exact": 0.0}},
            "best.metrics": {"test": {"f1": 2.748, "exact": 0.4}},
        },
    )
    assert ("beyond-scale" in codes) == (scale == "0-1")


@pytest.mark.parametrize(
    "metrics",
    [
        {"log10_perplexity": 99.0},
        {"perplexity_log_base_10": 124.0},
        {"log_perplexity": 99.0},
        {"loss": math.log10(99.0), "perplexity": 99.0},
    ],
)
def test_a_perplexity_of_100_is_not_a_logarithm(metrics):
    assert found(LANGUAGE_MODEL, {"best.metrics": {"test": metrics}}).keys() == {"log-base"}


def test_a_perplexity_that_fits_its_name_is_not_suspected():
    metrics = {"log10_perplexity": 1.9956, "perplexity": 99.0, "loss": math.log(99.0)}
    assert found(LANGUAGE_MODEL, {"best.metrics": {"test": metrics}}) == {}


@pytest.mark.parametrize("stored", [{}, {"stored": 1_408_634_880}])
def test_a_total_that_counts_packed_weights(stored):
    counts = {"total": 1_408_634_880, "trainable": 18_357_760, **stored}
    codes = found(CLASSIFICATION, {"parameters": counts, "recipe.tuning.mode": "qlora"})
    assert codes.keys() == {"packed-total"}
    assert "1,408,634,880" in codes["packed-total"]
    counts |= {"total": 2_666_926_080, "stored": 1_408_634_880}
    codes = found(CLASSIFICATION, {"parameters": counts, "recipe.tuning.mode": "qlora"})
    assert codes.keys() == {"packed-storage"}


@pytest.mark.parametrize("losses", [[0.693] * 5, [0.6935, 0.6928, 0.6931, 0.6932, 0.6930]])
def test_a_validation_loss_at_ln_2_for_five_epochs(losses):
    lines = course([(step, 0.72, loss) for step, loss in enumerate(losses, start=1)])
    assert "guessing-throughout" in found(CLASSIFICATION, {}, lines)
    # The same, from the table of epochs of results without metrics.jsonl.
    epochs = [
        {"epoch": step, "step": step, "validation": {"loss": loss}}
        for step, loss in enumerate(losses, start=1)
    ]
    assert "guessing-throughout" in found(CLASSIFICATION, {"epochs": epochs})
