"""Finished runs of tiny models, trained once for all tests of predictions."""

import copy
import json
from pathlib import Path
from typing import Any

import pytest
from support.reviews_recipe import reviews_recipe
from support.task_cases import CASES

import trainer
from trainer.data.columns import ROW
from trainer.data.sources import load_splits
from trainer.process.run_directory import read_recipe
from trainer.tasks.recipe import Recipe


def trained(values: dict[str, Any], directory: Path) -> Path:
    short = {"schedule": {"steps": 4}, "evaluation": {"baseline": False, "every": 4}}
    recipe = trainer.Recipe(**copy.deepcopy({**values, **short}))
    trainer.train(recipe, run_dir=directory, progress=None)
    return directory


@pytest.fixture(scope="session")
def reviews_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return trained(reviews_recipe(), tmp_path_factory.mktemp("runs") / "reviews")


@pytest.fixture(scope="session")
def run_of(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Returns the finished run of a case by its name: (name)."""
    runs: dict[str, Path] = {}

    def run(name: str) -> Path:
        if name not in runs:
            values = CASES[name].recipe()
            if name == "causal_lm-instructions":
                values["task"] = {
                    **values["task"],
                    "generation": {"num_examples": 6, "max_new_tokens": 5},
                }
            runs[name] = trained(values, tmp_path_factory.mktemp("runs") / name)
        return runs[name]

    return run


@pytest.fixture(scope="session")
def rows_of_run() -> Any:
    """Returns the rows of a split of a run, as its data set holds them: (run_dir, split)."""

    def rows(directory: Path, split: str = "test") -> list[dict[str, Any]]:
        splits, _ = load_splits(read_recipe(directory, Recipe).data)
        return [{name: v for name, v in row.items() if name != ROW} for row in splits[split]]

    return rows


@pytest.fixture(scope="session")
def measured() -> Any:
    """Returns what a run recorded of a split: its metrics and the answers: (run_dir, split)."""

    def of(directory: Path, split: str = "test") -> tuple[dict[str, Any], list[dict[str, Any]]]:
        results = json.loads((directory / "results.json").read_text())
        lines = (directory / "predictions" / f"{split}.jsonl").read_text().splitlines()
        return results["best"]["metrics"], [json.loads(line) for line in lines]

    return of
