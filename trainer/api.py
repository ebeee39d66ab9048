"""The commands as functions, for notebooks and programs: each returns, or raises a TrainerError.

They never end the process, print (progress goes to a callable), install a signal handler, or leave
a global switch changed. The command line calls the same functions.
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
from trainer.result import Result, read_result
from trainer.tasks.recipe import Recipe, parse_recipe
from trainer.tracking.progress import Progress, Update, default_progress

if TYPE_CHECKING:
    from datasets import Dataset
    from transformers import PreTrainedModel

    from trainer.planning.plan import Plan


def load_recipe(name_or_path: str | Path, overrides: Mapping[str, Any] | None = None) -> Recipe:
    """Returns the recipe of a shipped name or a YAML file; `overrides` maps dotted keys to values.

    `load_recipe("demo", {"optimizer.learning_rate": 3e-4})` equals `demo --set
    optimizer.learning_rate=3e-4` on the command line. Raises ConfigError with every problem of the
    recipe.
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
    `run_dir` defaults to runs/NAME in the working directory; a Recipe has no name, so it needs one.
    `resume` is "auto" to continue the run in the directory, "never" to refuse a directory with a
    run in it, or the folder of a checkpoint from which a new directory starts. Before `time_limit`,
    in seconds or as text such as "2h", is over, the run saves a checkpoint and stops.

    `data` maps split names, which must include "train", to rows that replace `data.source`;
    `data.split` applies to them. `model` replaces the recipe's model: training starts from its
    weights, and the object itself is not changed. Both are copied to the cache under a hash of
    their content, so the run resumes only with equal data and an equal model.

    `progress` is called with an `Update` for each message and each step; "auto" shows a progress
    bar, None shows nothing.

    A KeyboardInterrupt saves a checkpoint at the end of the step and returns a result whose state
    is "stopped"; the same call resumes the run. If the run is already finished, its result is
    returned. Every rank of a launch, including one by `accelerate.notebook_launcher`, makes the
    same call and gets the same result. Raises TrainerError.
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
        except RunDirectoryError:  # interrupted before the directory held a run
            raise KeyboardInterrupt from None


def plan(
    recipe: str | Path | Recipe,
    overrides: Mapping[str, Any] | None = None,
    *,
    gpu: str | None = None,
    memory: int | str | None = None,
    processes: int | None = None,
    machines: int | None = None,
    config: str | Path | None = None,
) -> "Plan":
    """Returns what a recipe needs before it starts: memory, time and disk.

    `print(plan)` shows it as `trainer plan` does, and `plan.as_dict()` holds its JSON values.
    `recipe` and `overrides` are those of `train`. The plan is for the GPU of a name, such as
    "a100-80", or of `memory`, in bytes or as text such as "16GiB"; by default for this machine's,
    or for each of a list. `config` is a launch configuration of Accelerate, and `processes` and
    `machines` replace its numbers. Needs no weights, network or GPU. Raises TrainerError.
    """
    from trainer.planning.memory_size import in_bytes
    from trainer.planning.plan import plan as planned

    for name, number in (("processes", processes), ("machines", machines)):
        if number is not None and not 1 <= number <= 1_000_000:
            raise ConfigError(
                f"{name}: {number} is not a number from 1 to 1,000,000",
                key=name,
                value=number,
                hint="count one process for each GPU",
            )
    with quieted_libraries(), restored_switches():
        check_variables()
        return planned(
            _resolved(recipe, overrides, None, None),
            gpu=gpu,
            memory=None if memory is None else in_bytes(memory),
            processes=processes,
            machines=machines,
            config=None if config is None else Path(config),
        )


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
    overrides: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Returns the metrics of a run's checkpoint on one of its splits, with `step` and `split`.

    `checkpoint` is "best", "last" or a step. `data`, a file, a Dataset or a list of dicts, is
    evaluated in place of a split of the run; the split is then called "given", and `other_data`
    says where its rows come from, how many there are, their hash, and what is unusual about them,
    such as rows that the run was trained on. `overrides` maps keys under `data.columns` to the
    names of its columns, if they are not the run's. Metrics have the units of results.json.
    Nothing in the run directory changes. Raises TrainerError.
    """
    if overrides and data is None:
        raise ConfigError(
            "--set names the columns of other data",
            key="--set",
            value=overrides,
            hint="give --data FILE, too; the run's own columns cannot change",
        )
    directory = Path(run_dir).absolute()
    recipe = read_recipe(directory, Recipe)
    from trainer.assembly.build import build_run
    from trainer.assembly.memory_advice import recipe_memory
    from trainer.assembly.other_rows import GIVEN, described, other_rows
    from trainer.engines.accelerator import launched
    from trainer.evaluation.at_checkpoint import evaluate_checkpoint
    from trainer.planning.micro_batch import micro_batch_of_run
    from trainer.planning.target import gpu_of

    with ExitStack() as stack:
        stack.enter_context(quieted_libraries())
        stack.enter_context(restored_switches())
        check_variables()
        given = {} if data is None else {GIVEN: other_rows(data, recipe, overrides or {})}
        accelerator = stack.enter_context(launched(recipe, directory))
        with recipe_memory(recipe, "loading", "loading the model"):
            planned = micro_batch_of_run(
                recipe, accelerator, gpu_of(accelerator.device), directory, given
            )
            run = build_run(
                recipe,
                accelerator,
                directory,
                other_rows=given,
                inputs=planned and planned.inputs,
                micro_batch_size=planned and planned.chosen.size,
            )
        if data is None:
            return evaluate_checkpoint(run, accelerator, split, str(checkpoint))
        metrics = evaluate_checkpoint(run, accelerator, GIVEN, str(checkpoint))
        return {"other_data": described(run, data), **metrics}


def push(
    run_dir: str | Path,
    repo_id: str,
    *,
    private: bool | None = None,
    revision: str | None = None,
    merge: bool = False,
    force: bool = False,
    dry_run: bool = False,
    progress: Progress | Literal["auto"] | None = "auto",
) -> str:
    """Sends the model of a finished run to the repository OWNER/NAME on the hub, and returns the
    address of the commit, or that of the repository if it already holds the model.

    It sends the adapters if the run trained some, unless `merge`, with tokenizer, card, recipe and
    results, and first says which files. A repository that does not exist is created, private unless
    `private` is False; `revision` is a branch, main by default. `force` replaces the model of
    another recipe. A `dry_run` sends nothing, needs no token and returns the repository's address.
    The token is the one of huggingface_hub: HF_TOKEN or that of `hf auth login`.

    `progress` is called with an `Update` for each message; "auto" shows them, None shows nothing.
    Raises TrainerError; the same call then sends only what the hub does not have.
    """
    from trainer.publishing.push import push as push_run

    show = default_progress() if progress == "auto" else progress

    def say(message: str) -> None:
        if show is not None:
            show(Update(message=message))

    return push_run(
        Path(run_dir),
        repo_id,
        private=private,
        revision=revision,
        merge=merge,
        force=force,
        dry_run=dry_run,
        say=say,
    )


def write_report(
    run_dirs: str | Path | Sequence[str | Path],
    *,
    output: str | Path | None = None,
    formats: Sequence[str] = ("html", "md"),
    by: str | None = None,
) -> Path:
    """Writes the report of a finished run, or of several, and returns the first file.

    `run_dirs` is the directory of a run, the folder of a sweep, or several of either; several need
    an `output` folder. `formats` are of "html", "md", "pdf" and "latex" (tables and figures). `by`
    is the dotted recipe key by which several runs are grouped; by default, all but the seed. The
    same runs give the same bytes, except for a PDF. Raises TrainerError.
    """
    from trainer.report.documents import write_reports

    named = [run_dirs] if isinstance(run_dirs, str | Path) else list(run_dirs)
    place = None if output is None else Path(output)
    return write_reports([Path(directory) for directory in named], place, formats, by)[0]


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

    It stops early if `stop` requests it, and writes `status` last. Both `train` and the command
    line call it.
    """
    from trainer.assembly.build import build_run
    from trainer.assembly.memory_advice import recipe_memory, run_memory
    from trainer.assembly.open_directory import check_shared, open_directory, write_settings
    from trainer.assembly.resume import continued, resume_run
    from trainer.assembly.summary import disk_space, summary
    from trainer.distributed.collectives import on_main
    from trainer.distributed.timeouts import training_time
    from trainer.engines.accelerator import launched
    from trainer.evaluation.before_training import measure_before_training
    from trainer.loop import finished
    from trainer.loop import train as train_loop
    from trainer.planning.measured import planned_for_run
    from trainer.planning.micro_batch import micro_batch_of_run
    from trainer.planning.target import gpu_of
    from trainer.process.cpu_threads import chosen_threads, core_limit, fit_threads
    from trainer.process.sessions import begin_session, end_session
    from trainer.publishing.after_run import before_push, push_finished
    from trainer.recipe.keys import flatten
    from trainer.recipe.reading import dump_yaml
    from trainer.report.results import finish
    from trainer.tracking.trackers import check_installed, start_trackers

    check_installed(recipe.tracking.trackers)
    chosen = chosen_threads()  # later, Accelerate may have set the variable itself
    with launched(recipe, directory, stop) as accelerator, ExitStack() as claims:
        fit_threads(core_limit(), chosen)  # until `launched` restores them
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
            planned = micro_batch_of_run(
                recipe,
                accelerator,
                gpu_of(accelerator.device),
                directory,
                continues=continued(directory, resume),
            )
            run = build_run(
                recipe,
                accelerator,
                directory,
                stop,
                progress=progress,
                inputs=planned and planned.inputs,
                micro_batch_size=planned and planned.chosen.size,
            )
        for change in opened.changes:
            run.tracker.say(change)
        with run_memory(run, accelerator, "loading", "reading the checkpoint"):
            state = resume_run(run, accelerator, resume, opened.earlier)
        if opened.longer:  # until the checkpoint was read, the directory held a finished run
            status.begin()
            on_main(accelerator, lambda: write_settings(recipe, directory))
        energy = on_main(accelerator, lambda: begin_session(directory, state.step))
        run.tracker.say(summary(run, accelerator))
        if planned is not None:
            run.tracker.say(f"  {planned.chosen.reason}")
        for note in run.notes:
            run.tracker.say(f"  note: {note}")
        start_trackers(
            accelerator,
            directory,
            recipe.tracking.trackers,
            settings=flatten(recipe.model_dump(mode="json")),
            text=dump_yaml(recipe),
            step=state.step,
            say=run.tracker.say,
        )
        run.tracker.say(f"  {disk_space(run, accelerator)}")
        if recipe.push is not None and accelerator.is_main_process:
            for note in before_push(recipe.push, verifies=recipe.checkpoint.verify_export):
                run.tracker.say(f"  note: {note}")
        if accelerator.is_main_process:
            memories = planned and planned.chosen.memories
            run.tracker.expect(planned_for_run(run, accelerator, memories))
        status.begin_training(state.step, run.num_steps)
        if state.step == 0:
            measure_before_training(run, accelerator, state)
        with training_time(), stop.at_boundaries(), run.saver.closing():
            state = train_loop(run, accelerator, state)
            done = finished(run, state)
            if accelerator.is_main_process:
                end_session(directory, energy)
            if not done:
                message = (
                    f"stopped at step {state.step} of {run.num_steps}; the same command resumes"
                )
                run.tracker.say(message)
                status.write("stopped", stop.code, state.step, message)
                stop.begin_shutdown()  # a second signal must not overwrite this status
        run.tracker.close()
        if done:
            with run_memory(run, accelerator, "saving", "measuring and writing the model"):
                finish(run, accelerator, state)
            stop.begin_shutdown()
            status.write("done", DONE, state.step, "done")
            stop.code = DONE  # a signal from here on does not change it
        pushes = done and accelerator.is_main_process
        result = on_main(accelerator, lambda: read_result(directory))
    if recipe.push is not None and pushes:  # the other ranks have left: they wait for nobody
        push_finished(recipe.push, directory, progress)
    return result


def dry_run_recipe(recipe: schema.Recipe, directory: Path, *, progress: Progress | None) -> None:
    """Takes steps of a recipe on its longest examples, and reports the memory that they need.

    Everything is resolved and opened as for a run in the directory, under the engine and on the
    ranks of the launch. Nothing is written but what `trainer prepare` would write into the caches.
    Raises TrainerError as the run would, such as OutOfMemoryError.
    """
    from trainer.assembly.build import build_run
    from trainer.assembly.memory_advice import recipe_memory
    from trainer.assembly.summary import disk_space, summary
    from trainer.engines.accelerator import launched
    from trainer.loop import optimizer_step
    from trainer.planning.dry_run import dry_run
    from trainer.planning.measured import planned_for_dry_run
    from trainer.planning.micro_batch import micro_batch_of_run
    from trainer.planning.target import gpu_of
    from trainer.process.cpu_threads import chosen_threads, core_limit, fit_threads
    from trainer.process.out_of_memory import held_bytes
    from trainer.tracking.trackers import check_installed

    check_installed(recipe.tracking.trackers)
    chosen = chosen_threads()
    with launched(recipe, directory) as accelerator:
        fit_threads(core_limit(), chosen)
        before = held_bytes()
        with recipe_memory(recipe, "loading", "loading the model"):
            planned = micro_batch_of_run(recipe, accelerator, gpu_of(accelerator.device), None)
            run = build_run(
                recipe,
                accelerator,
                directory,
                progress=progress,
                keeps_tokenizer=False,
                inputs=planned and planned.inputs,
                micro_batch_size=planned and planned.chosen.size,
            )
        say = run.tracker.say
        say(summary(run, accelerator))
        if planned is not None:
            say(f"  {planned.chosen.reason}")
        for note in run.notes:
            say(f"  note: {note}")
        say(f"  {disk_space(run, accelerator)}")
        run.objective.train()
        taken = dry_run(
            run,
            accelerator,
            lambda batches: optimizer_step(run, accelerator, batches, step=1),
            resident_before=before,
        )
        # After the steps, because planning takes memory, too.
        memories = planned and planned.chosen.memories
        main = accelerator.is_main_process
        expected = planned_for_dry_run(run, accelerator, memories) if main else None
        say("\n".join(taken.lines(expected)))
        say("  nothing was written into the run directory")


def _directory(recipe: str | Path | Recipe, run_dir: str | Path | None) -> Path:
    if run_dir is not None:
        return Path(run_dir).absolute()
    if isinstance(recipe, Recipe):
        raise ConfigError("run_dir: a Recipe has no name", key="run_dir", hint="give a run_dir")
    return default_directory(str(recipe)).absolute()


def default_directory(recipe: str, suffix: str = "") -> Path:
    """Returns runs/NAME for the name or the file of a recipe."""
    # Not Path.stem: llama-3.2-1b has a dot and no file suffix.
    return Path("runs") / (re.sub(r"\.ya?ml$", "", Path(recipe).name) + suffix)


def _resolved(
    recipe: str | Path | Recipe,
    overrides: Mapping[str, Any] | None,
    data: "Mapping[str, Dataset | Sequence[Mapping[str, Any]]] | None",
    model: "PreTrainedModel | None",
) -> Recipe:
    """Returns the recipe with its overrides; it names `data` and `model` by where they are kept."""
    if isinstance(recipe, Recipe):
        values = recipe.model_dump(mode="json", exclude_unset=True)
        resolved = parse_recipe(_overridden(values, overrides), "the recipe")
    else:
        resolved = load_recipe(recipe, overrides)
    if data is None and model is None:
        return resolved
    from trainer.assembly.python_inputs import keep_data, keep_model

    values = resolved.model_dump(mode="json", exclude_unset=True)
    if data is not None:
        values["data"]["source"] = keep_data(data)
    if model is not None:
        values["model"] = keep_model(values, model)
    return parse_recipe(values, "the recipe")


def _overridden(values: dict[str, Any], overrides: Mapping[str, Any] | None) -> dict[str, Any]:
    """Returns the values of a recipe with the overrides, as plain YAML types."""
    for key, value in (overrides or {}).items():
        plain = json.loads(json.dumps(value, default=str))  # a path is a string, a tuple a list
        values = with_value(values, key, plain)
    return values
