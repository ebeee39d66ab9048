"""How a run begins: anew, from where it stopped, or from a checkpoint of another run."""

import shutil
import socket
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

from accelerate import Accelerator
from accelerate.utils import gather_object

from trainer.checkpoint import CheckpointStore, load_checkpoint, read_record, verify
from trainer.config import Recipe
from trainer.environment import describe_environment
from trainer.errors import CheckpointError, RunDirectoryError
from trainer.inputs import check_mode
from trainer.metrics.averages import with_macro_averages
from trainer.ranks import on_main
from trainer.run import Run
from trainer.run_directory import (
    check_recipe,
    claim,
    continued,
    free_name,
    leave_token,
    sees_token,
    write_json,
    write_recipe,
)
from trainer.state import TrainState
from trainer.status import read_status
from trainer.tracking import metrics_at, read_lines


def open_directory(
    recipe: Recipe, directory: Path, resume: str, stack: ExitStack
) -> tuple[Recipe, list[str]] | None:
    """Claims the run directory; returns the recipe to train, and what changed in it.

    Returns None for a finished run.
    """
    stack.enter_context(claim(directory))
    store = CheckpointStore(directory / "checkpoints")
    store.folder.mkdir(exist_ok=True)  # before other machines look for it, and remember
    store.recover()
    changes: list[str] = []
    done = read_status(directory).get("state") == "done"
    if (directory / "config.yaml").is_file() and (done or store.steps()):
        if resume == "never":
            raise RunDirectoryError(
                f"--resume never: {directory} holds a run; use --run-dir {free_name(directory)}"
            )
        changes = check_recipe(directory, recipe)
        if done:
            return None
        recipe = continued(directory, recipe)
    elif resume not in ("auto", "never"):
        source = Path(resume).absolute()
        if not (source / "state.json").is_file():
            raise CheckpointError(f"--resume {resume}: no checkpoint there, such as step-00000120")
        changes = check_recipe(source.parent.parent, recipe)
        recipe = continued(source.parent.parent, recipe)
        tokenizer = source.parent.parent / "tokenizer"
        if tokenizer.is_dir():
            shutil.copytree(tokenizer, directory / "tokenizer", dirs_exist_ok=True)
    else:
        check_mode(recipe)
        # Without a checkpoint there is nothing to continue; a tokenizer left there may be another.
        shutil.rmtree(directory / "tokenizer", ignore_errors=True)
    write_recipe(directory, recipe)
    write_json(directory / "environment.json", describe_environment())
    return recipe, changes


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


def resume_run(run: Run, accelerator: Accelerator, resume: str) -> TrainState:
    """Returns the state to go on from, with the weights and moments that belong to it."""

    def find() -> tuple[Path | None, list[str]]:
        if resume not in ("auto", "never") and not run.store.steps():
            verify(Path(resume), resumable=True)
            return Path(resume).absolute(), []
        found, passed_over = run.store.newest()
        if found is None and passed_over:
            raise CheckpointError(
                f"{'; '.join(passed_over)}; there is no other to go on from: remove "
                f"{run.store.folder} to start anew"
            )
        run.store.set_aside_after(found)
        return found, passed_over

    checkpoint, passed_over = on_main(accelerator, find)
    for reason in passed_over:
        run.tracker.say(f"passed over: {reason}")
    state = TrainState()
    if checkpoint is not None:
        before = read_record(checkpoint)["launch"]
        for name, value in before.items():
            if value != run.launch[name]:
                run.tracker.say(f"{name} was {value} and is now {run.launch[name]}")
        if before["processes"] != run.launch["processes"]:
            run.tracker.say("random numbers such as dropout follow from seed, step and rank anew")
        state = load_checkpoint(
            checkpoint,
            objective=run.objective,
            optimizer=run.optimizer,
            parameters=run.parameters,
            scaler=run.scaler,
            order_digest=run.order_digest,
        )
        run.tracker.say(f"resuming from {checkpoint}")
        lines = on_main(accelerator, lambda: read_lines(run.directory / "metrics.jsonl"))
        state = as_measured_today(state, lines, run.recipe.evaluation.metric)
        state = _with_best_at_hand(run, accelerator, state)
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
    if reason is None:
        return state
    run.tracker.say(f"the best step so far, {best}, is looked for anew: {reason}")
    return replace(state, best_step=None, best_value=None, num_evaluations_since_best=0)
