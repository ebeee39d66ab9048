"""What the commands do that train, evaluate and count."""

import json
import os
import re
import shlex
import sys
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

from trainer.assembly.memory_advice import recipe_memory, run_memory
from trainer.distributed.environment_variables import check_variables
from trainer.errors import DONE, CheckpointError, ConfigError
from trainer.process.environment import quiet_libraries
from trainer.process.run_directory import (
    read_recipe,
)
from trainer.process.status import Status
from trainer.process.stop_request import StopRequest, end_of_time, listen
from trainer.recipe import schema
from trainer.tasks.recipe import Recipe, load_recipe
from trainer.wording import excerpt, listed

if TYPE_CHECKING:
    from accelerate import Accelerator

    from trainer.run import Run
    from trainer.state import TrainState


def train(
    recipe_name: str,
    overrides: tuple[str, ...],
    directory: Path,
    resume: str,
    *,
    time_limit: str | None = None,
    in_miniature: bool = False,
) -> int:
    """Trains a recipe in its run directory and returns the exit code; status.json is written last.

    Raises TrainerError for what the user can mend, and Stopped where there is nothing to save.
    """
    quiet_libraries()
    with ExitStack() as stack:
        stop = StopRequest()
        status = Status(directory.absolute(), stop)
        stack.enter_context(listen(stop, status.give_up))
        stack.enter_context(status.reported())
        check_variables()
        stop.end = end_of_time(time_limit)
        recipe = load_recipe(recipe_name, overrides)
        if in_miniature:
            from trainer.assembly.miniature import smoke

            recipe = smoke(recipe)
        return _train(recipe, directory.absolute(), resume, status, stop, stack)


def evaluate(directory: Path, checkpoint: str, split: str, as_json: bool) -> int:
    """Prints the metrics of a checkpoint on one split."""
    check_variables()
    recipe = read_recipe(directory.absolute(), Recipe)
    quiet_libraries()
    from trainer.assembly.build import build_run
    from trainer.checkpoints.provenance import check_made_with
    from trainer.checkpoints.record import read_record, verify
    from trainer.checkpoints.store import check_order, load_weights
    from trainer.distributed.collectives import on_main
    from trainer.engines.accelerator import build_accelerator
    from trainer.evaluation.evaluate import evaluate
    from trainer.state import TrainState
    from trainer.tracking.metric_lines import known_lines, metrics_at

    directory = directory.absolute()
    accelerator = build_accelerator(recipe, directory)
    with recipe_memory(recipe, "loading", "loading the model"):
        run = build_run(recipe, accelerator, directory)
    if split not in run.splits:
        raise ConfigError(f"--split {excerpt(split)}: the run has {', '.join(run.splits)}")
    newest, passed_over = on_main(accelerator, lambda: run.store.newest(resumable=False))
    if newest is None:
        raise CheckpointError("; ".join(passed_over) or f"{directory} has no checkpoint yet")
    steps, recorded = on_main(accelerator, lambda: (run.store.steps(), read_record(newest)))
    state = TrainState.of(recorded["state"])
    if passed_over and checkpoint in ("best", "last"):
        raise CheckpointError(
            f"{excerpt(passed_over[0], 300)}; name another step with --checkpoint, of "
            f"{listed(steps, 8)}"
        )
    step = state.step
    if checkpoint == "best":
        best = state.best_step
        step = best if best is not None and recipe.checkpoint.keep_best else step
    elif checkpoint != "last":
        step = int(checkpoint) if re.fullmatch(r"[0-9]{1,8}", checkpoint) else -1
    if step not in steps:
        raise CheckpointError(
            f"--checkpoint {excerpt(checkpoint)}: kept are the steps {listed(steps, 20)}"
        )
    chosen = run.store.path(step)
    on_main(accelerator, lambda: verify(chosen))
    record = on_main(accelerator, lambda: read_record(chosen))
    check_order(chosen, record, run.order_digest)
    used = ("train", split, *(("validation",) if run.task.tunes_threshold else ()))
    check_made_with(chosen, record, recipe, run.splits, used)
    load_weights(chosen, run.objective, run.parameters)
    lines = on_main(
        accelerator, lambda: known_lines(directory / "metrics.jsonl", record["metrics"])
    )
    validation = metrics_at(lines, step).get("validation")
    elsewhere = split != "validation" and "validation" in run.splits
    if validation is None and elsewhere and run.task.tunes_threshold:
        validation = evaluate(run, accelerator, "validation")
    found = evaluate(run, accelerator, split, validation=validation)
    metrics = {"step": step, "split": split, **found}
    if accelerator.is_main_process:
        if as_json:
            print(json.dumps(metrics))
        else:
            for name, value in metrics.items():
                shown = f"{value:.4f}" if isinstance(value, float) else value
                print(f"{name:<16} {shown}")
    return _leave(accelerator, DONE)


def params(recipe_name: str, overrides: tuple[str, ...], *, full: bool, as_json: bool) -> int:
    """Prints the parameters of a recipe's model by module, without weights or network."""
    check_variables()
    recipe = load_recipe(recipe_name, overrides)
    quiet_libraries()
    from trainer.planning.parameters import as_json as values
    from trainer.planning.parameters import as_text, count

    found = count(recipe)
    print(json.dumps(values(found, full=full)) if as_json else as_text(found, full=full))
    return DONE


def prepare(recipe_name: str, overrides: tuple[str, ...]) -> int:
    """Fetches and tokenises what a recipe needs, and prints what it did, a line each."""
    check_variables()
    recipe = load_recipe(recipe_name, overrides)
    quiet_libraries()
    from trainer.assembly.offline import prepare

    for line in prepare(recipe):
        print(line, flush=True)
    settings = [part for override in overrides for part in ("--set", override)]
    print("offline     HF_HUB_OFFLINE=1", shlex.join(["trainer", "train", recipe_name, *settings]))
    return DONE


def _train(
    recipe: schema.Recipe,
    directory: Path,
    resume: str,
    status: Status,
    stop: StopRequest,
    stack: ExitStack,
) -> int:
    from trainer.assembly.build import build_run
    from trainer.assembly.resume import check_shared, open_directory, resume_run, write_settings
    from trainer.distributed.collectives import on_main
    from trainer.distributed.timeouts import training_time
    from trainer.engines.accelerator import build_accelerator
    from trainer.loop import finished, train
    from trainer.report.results import finish

    accelerator = build_accelerator(recipe, directory, stop)
    opened = on_main(accelerator, lambda: open_directory(recipe, directory, resume, stack))
    if opened is None:
        if accelerator.is_main_process:
            print(f"This run is finished: {directory / 'report.md'}; --run-dir DIR trains anew.")
        stop.settle()
        return _leave(accelerator, DONE)
    if not opened.longer:
        status.begin()
    recipe = opened.recipe
    check_shared(accelerator, directory)
    with recipe_memory(recipe, "loading", "loading the model"):
        run = build_run(recipe, accelerator, directory, stop)
    for change in opened.changes:
        run.tracker.say(change)
    with run_memory(run, accelerator, "loading", "reading the checkpoint"):
        state = resume_run(run, accelerator, resume, opened.earlier)
    if opened.longer:  # a finished run stays one until it is sure that it goes on
        status.begin()
        on_main(accelerator, lambda: write_settings(recipe, directory))
    _describe(run, accelerator)
    run.tracker.say(f"  {on_main(accelerator, lambda: _disk_space(run))}")
    if state.step == 0:
        with run_memory(run, accelerator, "loading", "answering without training (zero-shot)"):
            _zero_shot(run, accelerator, state)
    if state.step == 0 and recipe.evaluation.baseline:
        _baseline(run, accelerator, state)
    with training_time(), stop.at_boundaries(), run.saver.closing():
        state = train(run, accelerator, state)
        if not finished(run, state):
            message = f"stopped at step {state.step} of {run.num_steps}; the same command resumes"
            run.tracker.say(message)
            status.write("stopped", stop.code, state.step, message)
            stop.settle()  # now also whoever insists finds it said
    run.tracker.close()
    if not finished(run, state):
        return _leave(accelerator, stop.code)
    with run_memory(run, accelerator, "saving", "measuring and writing the model"):
        finish(run, accelerator, state)
    stop.settle()
    status.write("done", DONE, state.step, "done")
    stop.code = DONE  # also of who insists now
    return _leave(accelerator, DONE)


def _disk_space(run: "Run") -> str:
    from trainer.checkpoints.disk_space import check_disk_space
    from trainer.engines.precision import COMPUTE_DTYPES

    learns_all = run.recipe.tuning.mode == "full"
    itemsize = 4 if learns_all else COMPUTE_DTYPES[run.precision].itemsize
    return check_disk_space(
        run.directory,
        run.checkpoint_size,
        run.recipe.checkpoint,
        num_epochs=-(-run.num_steps // run.order.steps_per_epoch),
        model_bytes=itemsize * run.counts.total,
    )


def _baseline(run: "Run", accelerator: "Accelerator", state: "TrainState") -> None:
    from trainer.evaluation.evaluate import evaluate

    validation = None
    for split in ("validation", "test"):
        if split in run.splits:
            metrics = evaluate(run, accelerator, split, validation=validation)
            run.tracker.evaluation(state, 0, metrics, split=split)
            validation = metrics if split == "validation" else validation


def _zero_shot(run: "Run", accelerator: "Accelerator", state: "TrainState") -> None:
    from trainer.evaluation.zero_shot import measure_zero_shot

    for split, metrics in measure_zero_shot(run, accelerator).items():
        run.tracker.evaluation(state, 0, metrics, split=f"zero_shot_{split}")


def _describe(run: "Run", accelerator: "Accelerator") -> None:
    """Says what is about to run, and starts the trackers."""
    from trainer.engines.micro_batch import accumulation

    steps = accumulation(run.recipe, run.micro_batch_size, accelerator.num_processes)
    rows = ", ".join(f"{len(split):,} {name}" for name, split in run.splits.items())
    counts = run.counts
    run.tracker.say(
        f"{run.directory}\n"
        f"  {counts.total:,} parameters, {counts.trainable:,} trainable, "
        f"tuning {run.recipe.tuning.mode}\n"
        f"  {rows} examples\n"
        f"  {run.num_steps} steps of {run.recipe.batch.global_batch_size} = "
        f"{accelerator.num_processes} process(es) x {run.micro_batch_size} x {steps}, "
        f"{run.precision} on {accelerator.device.type}"
    )
    for note in run.notes:
        run.tracker.say(f"  note: {note}")
    accelerator.init_trackers(run.directory.name)


def _leave(accelerator: "Accelerator", code: int) -> int:
    """Ends trackers and the process group, and returns the code; a rank of several ends with it.

    A rank that left early would make the others abort. One that went on to free its model could
    hang: gloo's destructor, under Python's lock, waits for a thread that needs the lock.
    """
    several = accelerator.num_processes > 1
    accelerator.wait_for_everyone()
    accelerator.end_training()
    if several:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    return code
