"""Resuming: the state, weights and moments of the checkpoint that a run continues from."""

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

from accelerate import Accelerator

from trainer.checkpoints.load import check_order, load_checkpoint
from trainer.checkpoints.provenance import check_provenance
from trainer.checkpoints.record import read_record, verify
from trainer.checkpoints.store import CheckpointStore
from trainer.distributed.collectives import on_main
from trainer.errors import CheckpointError
from trainer.files.plain import remove
from trainer.metrics.averages import with_macro_averages
from trainer.process.continuation import check_length
from trainer.process.run_entries import writing_to
from trainer.recipe.schema import Recipe
from trainer.run import Run
from trainer.state import TrainState
from trainer.tracking.metric_lines import metrics_at, read_lines
from trainer.wording import excerpt


def resume_run(
    run: Run, accelerator: Accelerator, resume: str, earlier: Recipe | None
) -> TrainState:
    """Returns the state from which the run continues, with its weights and moments loaded.

    Without a checkpoint it is the state of step 0. `resume` is `auto`, `never` or the folder of a
    checkpoint; `earlier` is the recipe with which the steps so far were taken. Lines of
    metrics.jsonl after the state are removed, and predictions unless it has a checkpoint of its
    own. Raises TrainerError if the checkpoint does not belong to this run.
    """
    checkpoint, passed_over = on_main(accelerator, lambda: _find(run, resume))
    for reason in passed_over:
        run.tracker.say(f"passed over: {reason}")
    if checkpoint is None:
        state, memory = TrainState(), dict[str, Any]()
    else:
        record = read_record(checkpoint)
        _say_changes(run, record["launch"])
        _check(run, checkpoint, record, earlier)
        state = load_checkpoint(
            checkpoint,
            objective=run.objective,
            optimizer=run.optimizer,
            settings=run.recipe.optimizer,
            parameters=run.parameters,
            scaler=accelerator.scaler,
            order_digest=run.order_digest,
        )
        run.tracker.say(f"resuming from {checkpoint}")
        lines = on_main(accelerator, lambda: read_lines(run.directory / "metrics.jsonl"))
        state = as_measured_today(state, lines, run.recipe.evaluation.metric)
        state = _without_lost_best(run, accelerator, state)
        # What a checkpoint of another run remembers are the lines of that run.
        memory = record["metrics"] if checkpoint.parent == run.store.folder else {}
    continues = checkpoint is not None and checkpoint.parent == run.store.folder

    def keep_what_led_here() -> None:
        with writing_to(run.directory):
            run.tracker.start(state, memory)
            if not continues:  # answers that lie there are those of another run
                remove(run.directory / "predictions")

    on_main(accelerator, keep_what_led_here)
    if not run.topology.is_writer:
        run.tracker.start(state)
    return state


def continued(directory: Path, resume: str) -> Path | None:
    """Returns the checkpoint that a run will continue from unless it is damaged; None without one.

    `resume` is `auto`, `never` or the folder of a checkpoint.
    """
    store = CheckpointStore(directory / "checkpoints")
    steps = store.steps()
    if steps:
        return store.path(max(steps))
    return None if resume in ("auto", "never") else Path(resume)


def as_measured_today(state: TrainState, lines: list[dict[str, Any]], metric: str) -> TrainState:
    """Returns the state with its best value as this version measures it, for later comparisons.

    Earlier versions also averaged macro metrics over classes that never occur. They are computed
    again from the metrics of each class in `lines` of metrics.jsonl.
    """
    if state.best_step is None or not metric.endswith("_macro"):
        return state
    measured = metrics_at(lines, state.best_step).get("validation", {})
    value = with_macro_averages(measured).get(metric, state.best_value)
    return replace(state, best_value=value)


def _find(run: Run, resume: str) -> tuple[Path | None, list[str]]:
    """Returns the checkpoint to resume from, if any, and why each newer one was passed over."""
    if resume not in ("auto", "never") and not run.store.steps():
        verify(Path(resume), resumable=True)
        return Path(resume).absolute(), []
    newest, passed_over = run.store.newest()
    if newest is None and passed_over:
        older = f" (nor from {len(passed_over) - 1} older ones)" * (len(passed_over) > 1)
        raise CheckpointError(
            f"{excerpt(passed_over[0], 300)}; there is no other to resume from{older}",
            key=str(run.store.folder),
            hint=f"remove {run.store.folder} to start from scratch",
        )
    with writing_to(run.directory):
        run.store.set_aside_after(newest)
    return newest, passed_over


def _say_changes(run: Run, before: dict[str, Any]) -> None:
    """Reports how this launch differs from that of the checkpoint."""
    for name, value in run.launch_facts.items():
        if before.get(name, value) != value:
            run.tracker.say(f"{name} was {excerpt(before[name], 40)} and is now {value}")
    if before.get("processes") != run.launch_facts["processes"]:
        run.tracker.say(
            "dropout masks differ from those of the earlier launch, because they depend on seed, "
            "step and rank"
        )


def _check(run: Run, checkpoint: Path, record: dict[str, Any], earlier: Recipe | None) -> None:
    """Raises TrainerError unless this run, trained from its start, would pass through the
    checkpoint."""
    state = TrainState.of(record["state"])
    check_order(checkpoint, record, run.order_digest)
    check_provenance(checkpoint, record, run.recipe, run.splits, run.splits)
    if earlier is not None:
        check_length(
            run.directory,
            earlier,
            run.recipe,
            state,
            num_steps=run.num_steps,
            steps_per_epoch=run.order.steps_per_epoch,
        )
    expected = run.order.num_before(state.step)
    if state.samples != expected:
        raise CheckpointError(
            f"{checkpoint} counts {state.samples} examples in {state.step} steps, but these steps "
            f"have {expected}",
            key=str(checkpoint),
            value=state.samples,
            hint="choose another --run-dir",
        )


def _without_lost_best(run: Run, accelerator: Accelerator, state: TrainState) -> TrainState:
    """Returns the state, without its best step if this run has no sound checkpoint of it."""
    best = state.best_step
    if best is None or not run.recipe.checkpoint.keep_best:
        return state

    def problem() -> str | None:
        try:
            verify(run.store.path(best))
        except CheckpointError as error:
            return str(error)
        return None

    reason = on_main(accelerator, problem)
    if reason is None and math.isnan(state.best_value or 0.0):
        reason = "its value is not a number"
    if reason is None:
        return state
    run.tracker.say(f"forgetting the best step so far, {best}: {reason}")
    return replace(state, best_step=None, best_value=None, num_evaluations_since_best=0)
