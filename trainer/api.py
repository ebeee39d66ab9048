"""The commands as functions, for notebooks and programs: each returns or raises a TrainerError.

None ends the process, prints (progress goes to a callable), installs a signal handler or leaves a
global switch changed. The command line calls the same functions.
"""

import json
import re
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from trainer.distributed.environment_variables import check_variables
from trainer.errors import DONE, ConfigError, RunDirectoryError, Stopped
from trainer.process.environment import quieted_libraries
from trainer.process.run_directory import read_recipe
from trainer.process.status import Status
from trainer.process.stop_request import StopRequest, end_of_time
from trainer.process.switches import restored_switches
from trainer.recipe import schema
from trainer.recipe.reading import recipe_values, with_value
from trainer.report.result import Result, read_result
from trainer.tasks.recipe import Recipe, parse_recipe
from trainer.tracking.progress import Progress, Update, default_progress

if TYPE_CHECKING:
    from accelerate import Accelerator
    from datasets import Dataset
    from transformers import PreTrainedModel

    from trainer.run import Run
    from trainer.state import TrainState


def load_recipe(name_or_path: str | Path, overrides: Mapping[str, Any] | None = None) -> Recipe:
    """Returns the recipe of a shipped name or a YAML file, with values for dotted keys.

    `load_recipe("demo", {"optimizer.learning_rate": 3e-4})` is what the command line writes as
    `demo --set optimizer.learning_rate=3e-4`. Raises ConfigError with every problem of the recipe.
    """
    values = _overridden(recipe_values(str(name_or_path)), overrides)
    return parse_recipe(values, str(name_or_path))


def train(
    recipe: str | Path | Recipe,
    overrides: Mapping[str, Any] | None = None,
    *,
    run_dir: str | Path | None = None,
    resume: str | Path = "auto",
    time_limit: str | float | None = None,
    data: "Mapping[str, Dataset | Sequence[Mapping[str, Any]]] | None" = None,
    model: "PreTrainedModel | None" = None,
    progress: Progress | Literal["auto"] | None = "auto",
) -> Result:
    """Trains a recipe in its run directory, or resumes it there, and returns the result.

    `recipe` is a shipped name, a YAML file or a Recipe; `overrides` maps dotted keys to values.
    `run_dir` is by default runs/NAME in the working directory, and required for a Recipe, which has
    no name. `resume` is "auto" to continue the directory, "never" to refuse one with checkpoints,
    or a checkpoint to start a new directory from. After `time_limit`, in seconds or such as "2h",
    the run saves and stops.

    `data` maps split names, "train" among them, to rows that replace `data.source`; `data.split`
    applies to them. `model` replaces the recipe's model: training starts from its weights, and the
    object itself stays as it is. Both are kept in the cache under their content, so that the run
    resumes with the same ones only.

    `progress` is called with an `Update` for each message and each step; "auto" shows a bar, and
    None nothing.

    A KeyboardInterrupt saves a checkpoint at the end of the step and returns a result whose state
    is "stopped"; the same call resumes it. A finished run is returned as it is. Every rank of a
    launch, also one by `accelerate.notebook_launcher`, makes the same call and gets the same
    result. Raises TrainerError.
    """
    from trainer.process.interrupts import interruptible

    directory = _directory(recipe, run_dir)
    stop = StopRequest()
    status = Status(directory, stop)
    show = default_progress() if progress == "auto" else progress

    def work() -> Result:
        with status.reported(), quieted_libraries(), restored_switches():
            check_variables()
            limit = f"{time_limit:.3f}s" if isinstance(time_limit, int | float) else time_limit
            stop.end = end_of_time(limit)
            resolved = _resolved(recipe, overrides, data, model)
            return train_recipe(
                resolved, directory, str(resume), status=status, stop=stop, progress=show
            )

    try:
        return interruptible(work, stop)
    except Stopped:
        try:
            return read_result(directory)
        except RunDirectoryError:  # interrupted before there was a run
            raise KeyboardInterrupt from None


def load(run_dir: str | Path) -> Result:
    """Returns the result of an earlier run, finished or stopped.

    Raises RunDirectoryError if the directory holds no run, or if its files cannot be read.
    """
    return read_result(Path(run_dir))


def evaluate(
    run_dir: str | Path,
    *,
    split: str = "validation",
    checkpoint: str | int = "best",
    data: "str | Path | Dataset | Sequence[Mapping[str, Any]] | None" = None,
) -> dict[str, Any]:
    """Returns step, split and the metrics of a run's checkpoint on one of its splits.

    `checkpoint` is "best", "last" or a step. With `data`, a file, a Dataset or a list of dicts,
    those rows are evaluated instead, and the split is called "given". Metrics are in the units of
    results.json; nothing in the run directory changes. Raises TrainerError.
    """
    directory = Path(run_dir).absolute()
    recipe = read_recipe(directory, Recipe)
    from trainer.assembly.build import build_run
    from trainer.assembly.given import GIVEN, rows_of
    from trainer.assembly.memory_advice import recipe_memory
    from trainer.engines.accelerator import launched
    from trainer.evaluation.at_checkpoint import evaluate_checkpoint

    with ExitStack() as stack:
        stack.enter_context(quieted_libraries())
        stack.enter_context(restored_switches())
        check_variables()
        other = {} if data is None else {GIVEN: rows_of(data)}
        accelerator = stack.enter_context(launched(recipe, directory))
        with recipe_memory(recipe, "loading", "loading the model"):
            run = build_run(recipe, accelerator, directory, other_rows=other)
        return evaluate_checkpoint(
            run, accelerator, split if data is None else GIVEN, str(checkpoint)
        )


def train_recipe(
    recipe: schema.Recipe,
    directory: Path,
    resume: str,
    *,
    status: Status,
    stop: StopRequest,
    progress: Progress | None,
) -> Result:
    """Trains or resumes a recipe in its run directory, and returns the result on every rank.

    Ends early when `stop` asks it to; `status` is written last. This is what the command line and
    `train` have in common.
    """
    from trainer.assembly.build import build_run
    from trainer.assembly.memory_advice import recipe_memory, run_memory
    from trainer.assembly.open_directory import check_shared, open_directory, write_settings
    from trainer.assembly.resume import resume_run
    from trainer.distributed.collectives import on_main
    from trainer.distributed.timeouts import training_time
    from trainer.engines.accelerator import launched
    from trainer.loop import finished
    from trainer.loop import train as train_loop
    from trainer.report.results import finish

    with launched(recipe, directory, stop) as accelerator, ExitStack() as claims:
        opened = on_main(accelerator, lambda: open_directory(recipe, directory, resume, claims))
        if opened is None:
            if progress is not None and accelerator.is_main_process:
                progress(Update(message=f"This run is finished: {directory / 'report.md'}"))
            stop.begin_shutdown()
            return on_main(accelerator, lambda: read_result(directory))
        if not opened.longer:
            status.begin()
        recipe = opened.recipe
        check_shared(accelerator, directory)
        with recipe_memory(recipe, "loading", "loading the model"):
            run = build_run(recipe, accelerator, directory, stop, progress=progress)
        for change in opened.changes:
            run.tracker.say(change)
        with run_memory(run, accelerator, "loading", "reading the checkpoint"):
            state = resume_run(run, accelerator, resume, opened.earlier)
        if opened.longer:  # until here it remains a finished run
            status.begin()
            on_main(accelerator, lambda: write_settings(recipe, directory))
        _describe(run, accelerator)
        if state.step == 0:
            _measure_before(run, accelerator, state)
        with training_time(), stop.at_boundaries(), run.saver.closing():
            state = train_loop(run, accelerator, state)
            done = finished(run, state)
            if not done:
                message = (
                    f"stopped at step {state.step} of {run.num_steps}; the same command resumes"
                )
                run.tracker.say(message)
                status.write("stopped", stop.code, state.step, message)
                stop.begin_shutdown()  # a second signal finds the end written
        run.tracker.close()
        if done:
            with run_memory(run, accelerator, "saving", "measuring and writing the model"):
                finish(run, accelerator, state)
            stop.begin_shutdown()
            status.write("done", DONE, state.step, "done")
            stop.code = DONE  # also for a signal that comes now
        return on_main(accelerator, lambda: read_result(directory))


def _directory(recipe: str | Path | Recipe, run_dir: str | Path | None) -> Path:
    if run_dir is not None:
        return Path(run_dir).absolute()
    if isinstance(recipe, Recipe):
        raise ConfigError("run_dir: a Recipe has no name", key="run_dir", hint="give a run_dir")
    return default_directory(str(recipe)).absolute()


def default_directory(recipe: str, suffix: str = "") -> Path:
    """Returns runs/NAME for a recipe's name or file; llama-3.2-1b has a dot and no suffix."""
    return Path("runs") / (re.sub(r"\.ya?ml$", "", Path(recipe).name) + suffix)


def _resolved(
    recipe: str | Path | Recipe,
    overrides: Mapping[str, Any] | None,
    data: "Mapping[str, Dataset | Sequence[Mapping[str, Any]]] | None",
    model: "PreTrainedModel | None",
) -> Recipe:
    """Returns the recipe with its overrides, and the names of what is given as objects."""
    if isinstance(recipe, Recipe):
        values = recipe.model_dump(mode="json", exclude_unset=True)
        resolved = parse_recipe(_overridden(values, overrides), "the recipe")
    else:
        resolved = load_recipe(recipe, overrides)
    if data is None and model is None:
        return resolved
    from trainer.assembly.given import keep_data, keep_model

    values = resolved.model_dump(mode="json", exclude_unset=True)
    if data is not None:
        values["data"]["source"] = keep_data(data)
    if model is not None:
        values["model"] = keep_model(values, model)
    return parse_recipe(values, "the recipe")


def _overridden(values: dict[str, Any], overrides: Mapping[str, Any] | None) -> dict[str, Any]:
    """Returns the values of a recipe with those of dotted keys, as YAML would give them."""
    for key, value in (overrides or {}).items():
        plain = json.loads(json.dumps(value, default=str))  # a path is a string, a tuple a list
        values = with_value(values, key, plain)
    return values


def _describe(run: "Run", accelerator: "Accelerator") -> None:
    """Reports what is about to run and the room on its disk, and starts the trackers."""
    from trainer.checkpoints.disk_space import check_disk_space
    from trainer.distributed.collectives import on_main
    from trainer.engines.micro_batch import accumulation
    from trainer.engines.precision import COMPUTE_DTYPES

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
    full = run.recipe.tuning.mode == "full"
    itemsize = 4 if full else COMPUTE_DTYPES[run.precision].itemsize
    space = on_main(
        accelerator,
        lambda: check_disk_space(
            run.directory,
            run.checkpoint_size,
            run.recipe.checkpoint,
            num_epochs=-(-run.num_steps // run.order.steps_per_epoch),
            model_bytes=itemsize * run.counts.total,
        ),
    )
    run.tracker.say(f"  {space}")


def _measure_before(run: "Run", accelerator: "Accelerator", state: "TrainState") -> None:
    """Records what the model answers without training, and its metrics before the first step."""
    from trainer.assembly.memory_advice import run_memory
    from trainer.evaluation.evaluate import evaluate
    from trainer.evaluation.zero_shot import measure_zero_shot

    with run_memory(run, accelerator, "loading", "answering without training (zero-shot)"):
        for split, metrics in measure_zero_shot(run, accelerator).items():
            run.tracker.evaluation(state, 0, metrics, split=f"zero_shot_{split}")
    validation = None
    measured = ("validation", "test") if run.recipe.evaluation.baseline else ()
    for split in measured:
        if split in run.splits:
            metrics = evaluate(run, accelerator, split, validation=validation)
            run.tracker.evaluation(state, 0, metrics, split=split)
            validation = metrics if split == "validation" else validation
