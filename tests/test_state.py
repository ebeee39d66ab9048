"""The state of a run: what a step and an evaluation change in it."""

import dataclasses
import json

import pytest
from accelerate import Accelerator

from trainer.state import TrainState
from trainer.tracking.metric_lines import read_lines
from trainer.tracking.tracker import Tracker


def step(state: TrainState, *, loss: float = 1.0, skipped: bool = False) -> TrainState:
    return state.after(samples=4, tokens=10, loss=loss, skipped=skipped)


def evaluated(values: list[float], mode: str) -> TrainState:
    state = TrainState()
    for value in values:
        state = step(state).evaluated(value, mode=mode)
    return state


def test_a_step_adds_up():
    state = step(step(TrainState(), loss=2.0), loss=0.5, skipped=True)
    assert (state.step, state.samples, state.tokens) == (2, 8, 20)
    assert (state.loss_sum, state.loss_steps, state.skipped_steps) == (2.5, 2, 1)


def test_resetting_the_mean_loss_changes_nothing_else():
    state = step(TrainState(), loss=2.0)
    fresh = state.with_loss_reset()
    assert fresh == dataclasses.replace(state, loss_sum=0.0, loss_steps=0)


@pytest.mark.parametrize(
    ("values", "mode", "best_step", "best", "since"),
    [
        ([0.5], "max", 1, 0.5, 0),
        ([0.5, 0.6, 0.4], "max", 2, 0.6, 1),
        ([0.5, 0.6, 0.4], "min", 3, 0.4, 0),
        ([0.5, 0.6, 0.7], "min", 1, 0.5, 2),
        ([0.6, 0.5, 0.4, 0.7], "max", 4, 0.7, 0),
        ([0.5, 0.5, 0.5], "max", 1, 0.5, 2),  # as good is not better
        ([0.5, 0.5], "min", 1, 0.5, 1),
        ([0.0, -1.0], "max", 1, 0.0, 1),  # 0 is a value
    ],
)
def test_the_best_step_and_the_evaluations_since_it(values, mode, best_step, best, since):
    state = evaluated(values, mode)
    assert (state.best_step, state.best_value) == (best_step, best)
    assert state.num_evaluations_since_best == since


def test_it_survives_json():
    state = evaluated([0.1, 0.7, 0.3], "max")
    assert TrainState(**json.loads(json.dumps(state.as_dict()))) == state


def test_it_is_frozen():
    with pytest.raises(dataclasses.FrozenInstanceError):
        TrainState().step = 3  # type: ignore[misc]


def test_an_evaluation_that_no_checkpoint_holds_is_recorded_once(tmp_path):
    """The run was resumed, evaluated, and killed before it saved again."""
    file = tmp_path / "metrics.jsonl"
    found = [("validation", 0), ("train", 4), ("validation", 4), ("train", 8), ("validation", 8)]
    numbers = {"epoch": 0, "seconds": 0.1, "tokens_per_second": 1.0, "peak_memory_bytes": 1}
    lines = [{"split": s, "step": n, "train_loss": None, **numbers} for s, n in found]
    file.write_text("".join(json.dumps(line) + "\n" for line in lines))
    tracker = Tracker(Accelerator(cpu=True), file, num_steps=9)
    tracker.start(TrainState(step=8, evaluated_step=4))
    assert [(line["split"], line["step"]) for line in read_lines(file)] == found[:4]
    tracker.start(TrainState(step=8, evaluated_step=8))
    assert len(read_lines(file)) == 4
