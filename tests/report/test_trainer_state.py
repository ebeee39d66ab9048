"""trainer_state.json is what transformers' own class reads, with the values of the run."""

import dataclasses
import json
import math
from pathlib import Path
from typing import Any

import pytest
from support.command_line import run as run_command
from transformers.trainer_callback import TrainerState

from trainer.report.recorded import RecordedRun, read_run
from trainer.report.trainer_state import trainer_state, write_trainer_state


def train_line(step: int, epoch: int, **values: Any) -> dict[str, Any]:
    line = {"step": step, "epoch": epoch, "split": "train", "loss": 1 / step, "grad_norm": 2.0}
    line |= {"learning_rate": 1e-3, "samples": 8 * step, "tokens": 100 * step, "seconds": 1.0}
    return {**line, "tokens_per_second": 100.0, "peak_memory_bytes": 7, **values}


def evaluation_line(step: int, epoch: int, split: str = "validation") -> dict[str, Any]:
    line = {"step": step, "epoch": epoch, "split": split, "loss": 0.5, "accuracy": 0.75}
    line |= {"per_class": {"a": {"f1": 1.0}}, "seconds": 2.0}
    return {**line, "train_loss": None, "peak_memory_bytes": 7}


@pytest.fixture
def recorded(tmp_path: Path) -> RecordedRun:
    recipe = {
        "batch": {"global_batch_size": 8, "micro_batch_size": "auto"},
        "schedule": {"epochs": 2, "steps": None},
        "evaluation": {"every": "epoch", "metric": "accuracy"},
        "checkpoint": {"every_steps": 5, "verify_export": False},
        "tracking": {"log_every_steps": 3},
    }
    metrics = {"validation": {"loss": 0.5, "accuracy": 0.75}}
    results = {
        "recipe": recipe,
        "best": {"step": 10, "epoch": 1, "metrics": metrics},
        "final": {"step": 18, "epoch": 2, "metrics": metrics},
        "model": "best",
    }
    lines = [
        evaluation_line(0, 0),
        evaluation_line(0, 0, "test"),
        train_line(5, 1),
        train_line(10, 1, grad_norm=None),
        evaluation_line(10, 1),
        train_line(18, 2, loss_nsp=0.25),
    ]
    status = {"state": "done", "exit_code": 0, "step": 18, "num_steps": 20, "message": "done"}
    return RecordedRun(
        directory=tmp_path,
        results=results,
        recipe=recipe,
        lines=lines,
        environment={},
        status=status,
    )


def read(recorded: RecordedRun) -> TrainerState:
    write_trainer_state(recorded)
    return TrainerState.load_from_json(str(recorded.directory / "trainer_state.json"))


def test_transformers_reads_every_field(recorded):
    state = read(recorded)
    written = json.loads((recorded.directory / "trainer_state.json").read_text())
    assert written.keys() == {field.name for field in dataclasses.fields(TrainerState)}
    assert (state.global_step, state.max_steps, state.epoch) == (18, 20, 1.8)
    assert (state.logging_steps, state.eval_steps, state.save_steps) == (3, 10, 5)
    assert (state.num_train_epochs, state.num_input_tokens_seen) == (2, 1800)
    assert (state.best_metric, state.best_global_step) == (0.75, 10)
    assert state.best_model_checkpoint == "checkpoints/step-00000010"
    assert state.train_batch_size is None


def test_the_history_has_training_and_validation_as_the_trainer_names_them(recorded):
    baseline, first, second, evaluation, third = read(recorded).log_history
    assert baseline == {
        "eval_loss": 0.5,
        "eval_accuracy": 0.75,
        "eval_runtime": 2.0,
        "epoch": 0.0,
        "step": 0,
    }
    assert first == {"loss": 0.2, "grad_norm": 2.0, "learning_rate": 1e-3, "epoch": 0.5, "step": 5}
    assert "grad_norm" not in second
    assert (evaluation["step"], evaluation["epoch"]) == (10, 1.0)
    assert (third["loss_nsp"], third["epoch"]) == (0.25, 1.8)


def test_a_number_that_is_not_finite_is_left_out(recorded):
    recorded.lines[2]["loss"] = math.inf
    assert "loss" not in read(recorded).log_history[1]
    assert "Infinity" not in (recorded.directory / "trainer_state.json").read_text()


def test_the_length_of_an_epoch_follows_from_the_examples(recorded):
    recorded.recipe["schedule"] = {"epochs": None, "steps": 20}
    recorded.results["data"] = {"train": {"examples": 33}}  # four batches of 8, and one of 1
    state = read(recorded)
    assert (state.eval_steps, state.num_train_epochs, state.epoch) == (5, 4, 3.6)


def test_an_old_run_of_some_steps_has_whole_epochs(recorded):
    recorded.recipe["schedule"] = {"epochs": None, "steps": 20}
    del recorded.status["num_steps"]
    state = read(recorded)
    assert (state.max_steps, state.epoch, state.num_train_epochs) == (18, 2.0, 2)
    assert [record["epoch"] for record in state.log_history] == [0, 1, 1, 1, 2]


def test_a_run_that_keeps_no_best_step_names_none(recorded):
    recorded.results["model"] = "final"
    state = read(recorded)
    assert state.best_metric is state.best_model_checkpoint is state.best_global_step is None


def test_the_state_of_a_real_run_is_the_same_each_time(reviews_recipe, write_recipe, tmp_path):
    reviews_recipe["data"]["source"]["num_rows"] = 80
    directory = tmp_path / "run"
    run_command("train", write_recipe(reviews_recipe), "--run-dir", directory)
    recorded = read_run(directory)
    state = read(recorded)
    assert state.global_step == state.max_steps == 10
    assert state.epoch == 2.0
    assert [record["step"] for record in state.log_history if "loss" in record] == [5, 10]
    assert [record["step"] for record in state.log_history if "eval_loss" in record] == [0, 5, 10]
    assert trainer_state(read_run(directory)) == trainer_state(recorded)
