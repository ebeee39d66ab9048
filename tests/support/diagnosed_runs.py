"""What finished runs recorded, to change at will: each begins as a run without any finding."""

import copy
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from trainer.metrics.averages import macro_averages
from trainer.report.recorded import RecordedRun

Values = dict[str, Any]


def scores(right: float, loss: float, support: int = 400) -> Values:
    """Returns the metrics of a classifier of two classes with as many examples each."""
    hits = round(right * support)
    one = {"precision": right, "recall": right, "f1": right, "support": support}
    per_class = {label: {**one, "predicted": support} for label in ("negative", "positive")}
    return {
        "loss": loss,
        "accuracy": hits / support,
        "precision": right,
        "recall": right,
        "f1": right,
        **macro_averages(per_class),
        "per_class": per_class,
        "seconds": 1.0,
    }


def facts(rows: int, digest: str) -> Values:
    return {
        "rows": rows,
        "examples": rows,
        "tokens": 20 * rows,
        "num_truncated": 0,
        "longest": 40,
        "num_skipped": 0,
        "sha256": digest,
    }


UNSEEN = {"overlap_with_train": {"exact": 0, "normalised": 0}}
CLASSIFICATION: Values = {
    "version": 2,
    "recipe": {
        "seed": 1,
        "model": {"name_or_path": "bert-base-uncased", "initialization": "pretrained"},
        "tuning": {"mode": "full"},
        "task": {"name": "classification", "labels": ["negative", "positive"]},
        "data": {"split": {"validation": {"ratio": 0.1, "seed": 1}, "test": "test"}},
        "optimizer": {"learning_rate": 2e-5, "max_grad_norm": 1.0},
        "schedule": {"name": "linear", "epochs": 3, "steps": None, "warmup_ratio": 0.06},
        "evaluation": {"metric": "accuracy", "mode": "max"},
    },
    "parameters": {"total": 109_483_778, "trainable": 109_483_778, "stored": 109_483_778},
    "baseline": {"validation": scores(0.52, 0.71), "test": scores(0.51, 0.71)},
    "baseline_is": "untrained head",
    "best": {
        "step": 200,
        "epoch": 2,
        "metrics": {"validation": scores(0.9, 0.3), "test": scores(0.89, 0.31)},
    },
    "final": {
        "step": 300,
        "epoch": 3,
        "metrics": {"validation": scores(0.895, 0.32), "test": scores(0.88, 0.33)},
    },
    "model": "best",
    "skipped_steps": 0,
    "scales": dict.fromkeys(("accuracy", "precision", "recall", "f1"), "0-1"),
    "data": {
        "train": facts(1600, "a" * 64),
        "validation": {**facts(800, "b" * 64), **UNSEEN},
        "test": {**facts(800, "c" * 64), **UNSEEN},
    },
    "learned": {"without_gradient": [], "zero_adapters": []},
    "warnings": [],
}
COURSE = ((100, 0.85, 0.4), (200, 0.9, 0.3), (300, 0.895, 0.32))
"""Step, accuracy and loss of each evaluation."""

LANGUAGE_MODEL: Values = {
    **CLASSIFICATION,
    "recipe": {
        **CLASSIFICATION["recipe"],
        "model": {
            "architecture": {"model_type": "bert"},
            "initialization": "random",
            "tokenizer": {"train": "wordpiece", "vocab_size": 8000},
        },
        "task": {"name": "masked_lm", "next_sentence_prediction": False},
        "evaluation": {"metric": "perplexity", "mode": "min"},
    },
    "parameters": {"total": 6_000_000, "trainable": 6_000_000, "stored": 6_000_000},
    "baseline": {
        split: {"loss": 9.0, "perplexity": 8103.0839, "masked_accuracy": 0.0}
        for split in ("validation", "test")
    },
    "best": {
        "step": 200,
        "metrics": {
            split: {"loss": 4.0, "perplexity": 54.59815, "masked_accuracy": 0.3}
            for split in ("validation", "test")
        },
    },
    "final": {"step": 300, "metrics": {}},
    "scales": {"masked_accuracy": "0-1"},
}
ANSWERED = {
    "loss": 1.0,
    "exact": 40.0,
    "f1": 45.0,
    "best_exact": 65.0,
    "best_exact_thresh": 0.4,
    "exact_at_threshold": 64.0,
    "never_answer": 50.0,
    "HasAns_f1": 70.0,
    "NoAns_exact": 10.0,
    "length_ratio": 1.1,
    "total": 800,
}
ANSWERS: Values = {
    **CLASSIFICATION,
    "recipe": {
        **CLASSIFICATION["recipe"],
        "task": {"name": "question_answering"},
        "evaluation": {"metric": "f1", "mode": "max"},
    },
    "baseline": {split: {"exact": 0.5, "f1": 4.0} for split in ("validation", "test")},
    "best": {"step": 200, "metrics": dict.fromkeys(("validation", "test"), ANSWERED)},
    "final": {"step": 300, "metrics": dict.fromkeys(("validation", "test"), ANSWERED)},
    "scales": dict.fromkeys(("exact", "f1", "best_exact", "HasAns_f1", "NoAns_exact"), "0-100"),
}


def training(steps: Sequence[int] = (100, 200, 300), **changes: Any) -> list[Values]:
    """Returns lines of training steps."""
    line = {"split": "train", "loss": 0.4, "grad_norm": 0.8, "learning_rate": 1e-5, "epoch": 1}
    return [{**line, "step": step, "seconds": 1.0, **changes} for step in steps]


def course(evaluations: Sequence[tuple[int, float, float]] = COURSE) -> list[Values]:
    """Returns lines of training steps, and of evaluations of a classifier after them."""
    evaluated = [
        {"split": "validation", "step": step, "epoch": 1, **scores(accuracy, loss)}
        for step, accuracy, loss in evaluations
    ]
    return [*training([step for step, *_ in evaluations]), *evaluated]


def recorded(
    base: Values = CLASSIFICATION,
    changes: Mapping[str, Any] | None = None,
    lines: Sequence[Values] | None = None,
) -> RecordedRun:
    """Returns a run whose results have other values under some dotted keys.

    By default a classifier has lines of a sound course, and other tasks have lines of training.
    """
    results = copy.deepcopy(base)
    for key, value in (changes or {}).items():
        *sections, leaf = key.split(".")
        inside = results
        for section in sections:
            inside = inside.setdefault(section, {})
        inside[leaf] = value
    written = lines
    if written is None:
        written = course() if base is CLASSIFICATION else training()
    return RecordedRun(
        directory=Path("run"),
        results=results,
        recipe=results.get("recipe", {}),
        lines=list(written),
        environment={},
        status={},
    )
