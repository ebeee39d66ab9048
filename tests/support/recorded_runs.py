"""Directories of finished runs, written from answers whose metrics are measured as a run does."""

import json
from pathlib import Path
from typing import Any

import numpy as np

from trainer.metrics.answers import answer_metrics
from trainer.metrics.classification import from_counts
from trainer.report.recorded import RecordedRun, read_run

Answers = list[dict[str, Any]]
SCALES = {"accuracy": "0-1", "f1": "0-1", "f1_macro": "0-1"}


def classified(labels: str, predictions: str) -> Answers:
    """Returns a classifier's answers; each character of the texts is a label."""
    pairs = zip(labels, predictions, strict=True)
    return [
        {"id": index, "row": index, "label": label, "prediction": predicted, "probability": 0.7}
        for index, (label, predicted) in enumerate(pairs)
    ]


def counted(answers: Answers, labels: str = "np") -> dict[str, Any]:
    """Returns the metrics of a classifier's answers, with a loss and seconds."""
    gold = np.array([labels.index(answer["label"]) for answer in answers])
    predicted = np.array([labels.index(answer["prediction"]) for answer in answers])
    classes = (gold[gold == predicted], predicted, gold)
    counts = [np.bincount(part, minlength=len(labels)) for part in classes]
    return {"loss": 0.5, **from_counts(*counts, labels=list(labels)), "seconds": 0.1}


def asked(golds: list[list[str]], predictions: list[str], *, articles: int = 0) -> Answers:
    """Returns answers to questions, in articles of `articles` questions if it is not 0."""
    pairs = zip(golds, predictions, strict=True)
    return [
        {
            "id": f"q{index}",
            "row": index,
            **({"group": index // articles} if articles else {}),
            "question": "who?",
            "prediction": predicted,
            "no_answer_probability": 0.0,
            "answers": texts,
        }
        for index, (texts, predicted) in enumerate(pairs)
    ]


def measured_answers(answers: Answers) -> dict[str, Any]:
    return {"loss": 1.0, **answer_metrics(answers), "seconds": 0.1}


def write_run(
    directory: Path,
    metrics: dict[str, dict[str, dict[str, Any]]],
    files: dict[str, Answers],
    *,
    task: str = "classification",
    metric: str = "accuracy",
    mode: str = "max",
    initialization: str = "pretrained",
    scales: dict[str, str] | None = None,
    best_step: int = 10,
    model: str = "best",
) -> RecordedRun:
    """Writes a finished run of 20 steps, and returns what is read from it.

    `metrics` are those of the columns baseline, zero_shot, best and final by split, and `files` the
    answers by the name of their file in predictions/.
    """
    results = {
        "recipe": {
            "seed": 1,
            "model": {"name_or_path": "some/bert", "initialization": initialization},
            "tuning": {"mode": "full"},
            "optimizer": {"max_grad_norm": 1.0},
            "task": {"name": task},
            "evaluation": {"metric": metric, "mode": mode},
        },
        "baseline": metrics.get("baseline", {}),
        "baseline_is": "untrained head",
        **({"zero_shot": metrics["zero_shot"]} if "zero_shot" in metrics else {}),
        "best": {"step": best_step, "epoch": 1, "metrics": metrics["best"]},
        "final": {"step": 20, "epoch": 2, "metrics": metrics.get("final", metrics["best"])},
        "model": model,
        "parameters": {"total": 10, "trainable": 5, "stored": 10},
        "epochs": [],
        "seconds": {"total": 1.0},
        "peak_memory_bytes": 1,
        "processes": 1,
        "precision": "fp32",
        "skipped_steps": 0,
        "scales": SCALES if scales is None else scales,
        "warnings": [],
    }
    (directory / "predictions").mkdir(parents=True, exist_ok=True)
    (directory / "results.json").write_text(json.dumps(results), "utf-8")
    for name, answers in files.items():
        lines = (json.dumps(answer) + "\n" for answer in answers)
        (directory / "predictions" / f"{name}.jsonl").write_text("".join(lines), "utf-8")
    return read_run(directory)
