"""The loop: what is due after a step, and which examples a data-parallel rank learns from."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from accelerate import Accelerator

from trainer.assembly.build import build_run
from trainer.checkpoints.record import read_record
from trainer.engines.accelerator import build_accelerator
from trainer.engines.topology import Topology, topology_of
from trainer.errors import DivergedError
from trainer.evaluation.evaluate import rank_share
from trainer.loop import (
    checkpoint_due,
    evaluation_due,
    finished,
    log_due,
    micro_batches_of_step,
    train,
)
from trainer.process.stop_request import StopRequest
from trainer.run import Run
from trainer.state import TrainState
from trainer.tasks.recipe import parse_recipe
from trainer.tracking.metric_lines import read_lines


@pytest.fixture
def values(reviews_recipe: dict[str, Any]) -> dict[str, Any]:
    """Eight steps of 16 examples: every epoch has five, so that the last epoch is incomplete."""
    reviews_recipe["data"]["source"]["num_rows"] = 100
    reviews_recipe["schedule"] = {"name": "constant", "steps": 8}
    reviews_recipe["evaluation"] |= {"every": 4, "baseline": False}
    reviews_recipe["checkpoint"] |= {"every_steps": 3, "keep_last": 9, "keep_best": False}
    reviews_recipe["tracking"]["log_every_steps"] = 6
    return reviews_recipe


def built(values: dict[str, Any], folder: Path) -> tuple[Run, Accelerator]:
    folder.mkdir()
    recipe = parse_recipe(values, "the recipe")
    accelerator = build_accelerator(recipe, folder)
    return build_run(recipe, accelerator, folder), accelerator


def due(run: Run, step: int, **state: Any) -> tuple[bool, bool, bool]:
    """Returns whether logging, an evaluation and a checkpoint are due after a step."""
    now = TrainState(step=step, **state)
    return (
        log_due(run, now, stopping=False),
        evaluation_due(run, now),
        checkpoint_due(run, now, stopping=False),
    )


def test_what_is_due_follows_from_the_recipe_and_the_state(
    values: dict[str, Any], tmp_path: Path
) -> None:
    values["checkpoint"]["keep_best"] = True
    run, _ = built(values, tmp_path / "run")
    ends = run.order.steps_per_epoch
    assert ends not in (1, 3, 4, 6, 8)
    assert due(run, 1) == (False, False, False)
    assert due(run, 3) == (False, False, True)
    assert due(run, 4) == (True, True, False)
    assert due(run, 4, evaluated_step=4, best_step=4, best_value=1.0) == (False, False, True)
    assert due(run, 4, evaluated_step=4, best_step=2, best_value=1.0) == (False, False, False)
    assert due(run, ends) == (True, False, False)
    assert due(run, 6) == (True, False, True)
    assert due(run, 8) == (True, True, False)
    assert due(run, 8, evaluated_step=8) == (True, False, True)
    assert log_due(run, TrainState(step=1), stopping=True)
    assert checkpoint_due(run, TrainState(step=1), stopping=True)


def test_a_run_is_finished_once_its_last_step_is_evaluated_or_its_patience_is_over(
    values: dict[str, Any], tmp_path: Path
) -> None:
    values["evaluation"]["patience"] = 2
    run, _ = built(values, tmp_path / "run")
    assert not finished(run, TrainState(step=7))
    assert not finished(run, TrainState(step=8))
    assert finished(run, TrainState(step=8, evaluated_step=8))
    assert not finished(run, TrainState(step=4, evaluated_step=4, num_evaluations_since_best=1))
    assert finished(run, TrainState(step=4, evaluated_step=4, num_evaluations_since_best=2))


def test_a_resumed_run_first_takes_the_evaluation_that_it_owes(
    values: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, accelerator = built(values, tmp_path / "whole")
    expected = train(whole, accelerator, TrainState())

    run, accelerator = built(values, tmp_path / "run")
    collate = run.task.collate

    def stop_in_step_4(rows: Any, ids: np.ndarray, epoch: int) -> Any:
        if run.order.examples(3)[-1] in ids:
            run.stop.ask("the test")
        return collate(rows, ids, epoch)

    with monkeypatch.context() as patched, run.stop.at_boundaries():
        patched.setattr(run.task, "collate", stop_in_step_4)
        stopped = train(run, accelerator, TrainState())
    assert (stopped.step, stopped.evaluated_step) == (4, 0)
    assert run.store.steps() == [3, 4]

    resumed = replace(run, stop=StopRequest())
    state = train(resumed, accelerator, stopped)
    assert state == expected
    lines = [(x["step"], x["split"]) for x in read_lines(run.directory / "metrics.jsonl")]
    assert lines.index((4, "validation")) == lines.index((4, "train")) + 1
    assert read_record(run.store.path(8))["state"] == expected.as_dict()
    for step in (3, 6, 8):
        other = read_record(whole.store.path(step))
        assert read_record(run.store.path(step))["state"] == other["state"]


def test_a_loss_that_is_not_finite_ends_the_run_and_names_the_step_and_what_to_lower(
    values: dict[str, Any], tmp_path: Path
) -> None:
    values["optimizer"] |= {"learning_rate": 1e30, "max_grad_norm": None}
    run, accelerator = built(values, tmp_path / "run")
    with pytest.raises(DivergedError, match=r"of step 2 (is|are) not finite") as caught:
        train(run, accelerator, TrainState())
    assert (caught.value.key, caught.value.value) == ("optimizer.learning_rate", 1e30)
    assert "optimizer.max_grad_norm" in caught.value.hint


@pytest.mark.parametrize("num_ranks", [1, 2, 4])
def test_the_topology_alone_decides_what_a_rank_learns_from(
    num_ranks: int, values: dict[str, Any], tmp_path: Path
) -> None:
    """One process takes the place of each rank in turn."""
    values["batch"] |= {"global_batch_size": 16, "micro_batch_size": 2}
    run, accelerator = built(values, tmp_path / "run")
    train_rows = run.splits["train"]
    learned: list[int] = []
    windows: list[int] = []
    evaluated: list[int] = []
    for rank in range(num_ranks):
        place = Topology(dp_rank=rank, dp_size=num_ranks, loss_group=None, is_writer=rank == 0)
        of_rank = replace(run, topology=place)
        window = micro_batches_of_step(of_rank, accelerator, 1)
        windows.append(len(window))
        learned += [len(batch.inputs["input_ids"]) for batch in window if batch.counts.any()]
        evaluated += [int(i) for ids in rank_share(train_rows.lengths, 4, place) for i in ids]
    assert len(set(windows)) == 1
    assert sum(learned) == len(run.order.examples(1)) == 16
    assert sorted(evaluated) == list(range(len(train_rows)))


def test_every_process_is_a_data_parallel_rank(values: dict[str, Any], tmp_path: Path) -> None:
    run, accelerator = built(values, tmp_path / "run")
    assert run.topology == topology_of(accelerator)
    assert (run.topology.dp_rank, run.topology.dp_size) == (0, 1)
    assert run.topology.is_writer
