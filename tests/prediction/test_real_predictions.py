"""Predictions on real data, from the folder TRAINER_TEST_DATA: the metrics of the run."""

import json
import os
from pathlib import Path
from typing import Any

import pytest
from pyarrow import parquet
from support.command_line import run

from trainer.cli.train import train
from trainer.metrics.answers import answer_metrics

FOLDER = Path(os.environ.get("TRAINER_TEST_DATA", "/nonexistent"))
pytestmark = [
    pytest.mark.distributed,  # second tier: minutes of training on one process
    pytest.mark.skipif(
        not FOLDER.is_dir(), reason="TRAINER_TEST_DATA names no folder with real data"
    ),
]


def trained(values: dict[str, Any], write_recipe: Any, directory: Path) -> dict[str, Any]:
    values = {
        "model": {"name_or_path": str(FOLDER / "models/stories260K")},
        "optimizer": {"learning_rate": 1e-3},
        "tracking": {"trackers": []},
        "evaluation": {"baseline": False},
        "checkpoint": {"verify_export": False},
        **values,
    }
    assert train(str(write_recipe(values)), (), directory, "auto") == 0
    return json.loads((directory / "results.json").read_text())["best"]["metrics"]


def test_the_answers_to_sst2_dev_give_its_accuracy(write_recipe, tmp_path):
    files = {
        name: str(FOLDER / f"sst2/{file}.tsv")
        for name, file in (("train", "train"), ("test", "dev"))
    }
    measured = trained(
        {
            "task": {"name": "classification", "labels": ["negative", "positive"]},
            "data": {
                "source": {"files": files},
                "columns": {"text": "sentence", "label": "label"},
                "split": {"validation": {"ratio": 0.2, "seed": 1}},
                "max_rows": 1000,
            },
            "schedule": {"steps": 25},
        },
        write_recipe,
        tmp_path / "run",
    )
    output = tmp_path / "answers.parquet"
    run("predict", tmp_path / "run", files["test"], "--output", output)
    rows = parquet.read_table(output).to_pylist()
    assert len(rows) == 872
    right = sum(row["prediction"] == ["negative", "positive"][int(row["label"])] for row in rows)
    assert right / len(rows) == measured["test"]["accuracy"]


def test_the_answers_to_squad_give_its_scores(write_recipe, tmp_path):
    """The run measures the first 150 questions; every question of the file is answered."""
    files = {
        "train": str(FOLDER / "squad_v2/train.json"),
        "validation": str(FOLDER / "squad_v2/dev.json"),
    }
    measured = trained(
        {
            "task": {"name": "question_answering", "stride": 64},
            "data": {"source": {"files": files}, "max_rows": 150},
            "batch": {"global_batch_size": 16, "max_seq_length": 256},
            "schedule": {"steps": 10},
        },
        write_recipe,
        tmp_path / "run",
    )["validation"]
    output = tmp_path / "answers.jsonl"
    run("predict", tmp_path / "run", files["validation"], "--output", output)
    rows = [json.loads(line) for line in output.read_text().splitlines()]
    assert len(rows) > 1000
    answers = [
        {**row, "prediction": row["best_answer"], "answers": row["answers"]["text"]}
        for row in rows[:150]
    ]
    scores = answer_metrics(answers, measured["null_threshold"])
    for name in ("exact", "f1", "exact_at_threshold", "f1_at_threshold", "bleu", "meteor"):
        assert scores[name] == measured[name]
