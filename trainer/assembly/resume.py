"""How a run begins: anew, from where it stopped, or from a checkpoint of another run."""

import math
import shutil
import socket
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from accelerate import Accelerator
from accelerate.utils import gather_object

from trainer.assembly.inputs import check_mode
from trainer.checkpoints.provenance import check_made_with
from trainer.checkpoints.record import read_record, verify
from trainer.checkpoints.store import CheckpointStore, check_order, load_checkpoint
from trainer.distributed.collectives import on_main
from trainer.errors import CheckpointError, RunDirectoryError
from trainer.files.durable import write_json
from trainer.files.plain import remove
from trainer.metrics.averages import with_macro_averages
from trainer.process.continuation import LENGTH, PATIENCE, check_length, instead
from trainer.process.environment import describe_environment
from trainer.process.finished_runs import has_results
from trainer.process.run_directory import (
    check_recipe,
    claim,
    continued,
    free_name,
    leave_token,
    read_recipe,
    sees_token,
    write_recipe,
)
from trainer.process.run_entries import check_entries, writing_to
from trainer.process.status import read_status
from trainer.recipe.schema import Recipe
from trainer.run import Run
from trainer.state import TrainState
from trainer.tracking.metric_lines import metrics_at, read_lines
from trainer.wording import excerpt


@dataclass(frozen=True, kw_only=True)
class Opened:
    """A run directory that this command has claimed, with a run that is not finished."""

    recipe: Recipe
    """The recipe to train, with the run's value of keys that it does not give."""
    changes: list[str]
    """Sentences on what changed in its recipe."""
    earlier: Recipe | None = None
    """The recipe with which the steps so far were taken, if there are any."""
    longer: bool = False
    """Whether it is to train longer than it was to: config.yaml stays until that is checked."""


def open_directory(recipe: Recipe, directory: Path, resume: str, stack: ExitStack) -> Opened | None:
    """Claims the run directory; returns how the run goes on there, None for a finished run."""
    stack.enter_context(claim(directory))
    check_entries(directory)
    with writing_to(directory):
        return _open(recipe, directory, resume)


def _open(recipe: Recipe, directory: Path, resume: str) -> Opened | None:
    store = CheckpointStore(directory / "checkpoints")
    store.folder.mkdir(exist_ok=True)  # before other machines look for it, and remember
    store.recover()
    steps, results = store.steps(), has_results(directory)
    state = read_status(directory).get("state")
    ended = state == "done" or (results and state is None)
    if steps or ended:
        if resume == "never":
            raise RunDirectoryError(
                f"--resume never: {directory} holds a run; use --run-dir {free_name(directory)}"
            )
        earlier = read_recipe(directory, type(recipe))
        changes = check_recipe(directory, recipe)
        if results and (state == "done" or not steps) and not _longer(changes):
            return None
        recipe = continued(directory, recipe)
        if not steps:
            lacks = "no checkpoint" if results else "neither checkpoints nor sound results"
            raise CheckpointError(
                f"{directory} holds a run that has ended and {lacks}; {instead(directory)}"
            )
        opened = Opened(recipe=recipe, changes=changes, earlier=earlier, longer=_longer(changes))
    elif resume not in ("auto", "never"):
        source = Path(resume).absolute()
        if not (source / "state.json").is_file():
            raise CheckpointError(
                f"--resume {excerpt(resume)}: no checkpoint there, such as step-00000120"
            )
        earlier = read_recipe(source.parent.parent, type(recipe))
        changes = check_recipe(source.parent.parent, recipe)
        recipe = continued(source.parent.parent, recipe)
        tokenizer = source.parent.parent / "tokenizer"
        if tokenizer.is_dir():
            shutil.copytree(tokenizer, directory / "tokenizer", dirs_exist_ok=True)
        opened = Opened(recipe=recipe, changes=changes, earlier=earlier, longer=_longer(changes))
    else:
        check_mode(recipe)
        # Without a checkpoint there is nothing to continue; a tokenizer left there may be another.
        remove(directory / "tokenizer")
        opened = Opened(recipe=recipe, changes=[])
    if not opened.longer:
        write_settings(recipe, directory)
    return opened


def write_settings(recipe: Recipe, directory: Path) -> None:
    """Writes the recipe of this command, and where it runs."""
    with writing_to(directory):
        write_recipe(directory, recipe)
        write_json(directory / "environment.json", describe_environment())


def _longer(changes: list[str]) -> bool:
    return any(change.startswith((*LENGTH, PATIENCE)) for change in changes)


def check_shared(accelerator: Accelerator, directory: Path) -> None:
    """Raises RunDirectoryError unless every rank sees the same directory: each writes into it."""
    token = on_main(accelerator, lambda: leave_token(directory))
    apart = [] if sees_token(directory, token) else [socket.gethostname()]
    if accelerator.num_processes > 1:
        apart = sorted(set(gather_object(apart)))
    if apart:
        raise RunDirectoryError(
            f"the run directory {directory} is another folder on {', '.join(apart)} than on the "
            f"main process's machine; choose a --run-dir that all machines share"
        )


def resume_run(
    run: Run, accelerator: Accelerator, resume: str, earlier: Recipe | None
) -> TrainState:
    """Returns the state to go on from, with the weights and moments that belong to it.

    `earlier` is the recipe with which the steps so far were taken.
    """

    def find() -> tuple[Path | None, list[str]]:
        if resume not in ("auto", "never") and not run.store.steps():
            verify(Path(resume), resumable=True)
            return Path(resume).absolute(), []
        found, passed_over = run.store.newest()
        if found is None and passed_over:
            older = f" (nor from {len(passed_over) - 1} older ones)" * (len(passed_over) > 1)
            raise CheckpointError(
                f"{excerpt(passed_over[0], 300)}; there is no other to go on from{older}: remove "
                f"{run.store.folder} to start anew"
            )
        with writing_to(run.directory):
            run.store.set_aside_after(found)
        return found, passed_over

    checkpoint, passed_over = on_main(accelerator, find)
    for reason in passed_over:
        run.tracker.say(f"passed over: {reason}")
    state, memory = TrainState(), dict[str, Any]()
    if checkpoint is not None:
        record = read_record(checkpoint)
        before = record["launch"]
        if checkpoint.parent == run.store.folder:  # else its lines are those of another run
            memory = record["metrics"]
        for name, value in run.launch.items():
            if before.get(name, value) != value:
                run.tracker.say(f"{name} was {excerpt(before[name], 40)} and is now {value}")
        if before.get("processes") != run.launch["processes"]:
            run.tracker.say("random numbers such as dropout follow from seed, step and rank anew")
        _check(run, checkpoint, record, earlier)
        state = load_checkpoint(
            checkpoint,
            objective=run.objective,
            optimizer=run.optimizer,
            parameters=run.parameters,
            scaler=accelerator.scaler,
            order_digest=run.order_digest,
        )
        run.tracker.say(f"resuming from {checkpoint}")
        lines = on_main(accelerator, lambda: read_lines(run.directory / "metrics.jsonl"))
        state = as_measured_today(state, lines, run.recipe.evaluation.metric)
        state = _with_best_at_hand(run, accelerator, state)

    def keep_lines() -> None:
        with writing_to(run.directory):
            run.tracker.start(state, memory)

    on_main(accelerator, keep_lines)
    if not accelerator.is_main_process:
        run.tracker.start(state)
    return state


def as_measured_today(state: TrainState, lines: list[dict[str, Any]], metric: str) -> TrainState:
    """Returns the state with the best value as it is measured now, so that later ones compare.

    Earlier versions counted classes that never occur in macro averages; `lines`, of metrics.jsonl,
    hold the figures of each class.
    """
    if state.best_step is None or not metric.endswith("_macro"):
        return state
    measured = metrics_at(lines, state.best_step).get("validation", {})
    value = with_macro_averages(measured).get(metric, state.best_value)
    return replace(state, best_value=value)


def _check(run: Run, checkpoint: Path, record: dict[str, Any], earlier: Recipe | None) -> None:
    """Raises TrainerError where a checkpoint is not one of this run, or not on its way."""
    state = TrainState.of(record["state"])
    check_order(checkpoint, record, run.order_digest)
    check_made_with(checkpoint, record, run.recipe, run.splits, run.splits)
    if earlier is not None:
        check_length(
            run.directory,
            earlier,
            run.recipe,
            state,
            num_steps=run.num_steps,
            steps_per_epoch=run.order.steps_per_epoch,
        )
    if state.samples != run.order.num_before(state.step):
        raise CheckpointError(
            f"{checkpoint} says that {state.samples} examples were learned in {state.step} steps, "
            f"and they hold {run.order.num_before(state.step)}; choose another --run-dir"
        )


def _with_best_at_hand(run: Run, accelerator: Accelerator, state: TrainState) -> TrainState:
    """Returns the state, without its best step where that has no sound checkpoint here."""
    best = state.best_step
    if best is None or not run.recipe.checkpoint.keep_best:
        return state

    def lost() -> str | None:
        try:
            verify(run.store.path(best))
        except CheckpointError as error:
            return str(error)
        return None

    reason = on_main(accelerator, lost)
    if reason is None and math.isnan(state.best_value or 0.0):
        reason = "its value is no number"
    if reason is None:
        return state
    run.tracker.say(f"the best step so far, {best}, is looked for anew: {reason}")
    return replace(state, best_step=None, best_value=None, num_evaluations_since_best=0)
