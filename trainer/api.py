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
from trainer.errors import ConfigError, RunDirectoryError, Stopped
from trainer.process.environment import quieted_libraries
from trainer.process.run_directory import read_recipe
from trainer.process.status import Status
from trainer.process.stop_request import StopRequest, end_of_time
from trainer.process.switches import restored_switches
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
            from trainer.running.train import train_recipe

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
    nodes: int | None = None,
    config: str | Path | None = None,
) -> "Plan":
    """Returns what a recipe needs before it starts: memory, time and disk.

    `print(plan)` shows it as `trainer plan` does, and `plan.as_dict()` holds its JSON values.
    `recipe` and `overrides` are those of `train`. The plan is for the GPU of a name, such as
    "a100-80", or of `memory`, in bytes or as text such as "16GiB"; by default for this machine's,
    or for each of a list. `config` is a launch configuration of Accelerate, and `processes` and
    `nodes` replace its numbers. Needs no weights, network or GPU. Raises TrainerError.
    """
    from trainer.planning.memory_size import in_bytes
    from trainer.planning.plan import plan as planned

    for name, number in (("processes", processes), ("nodes", nodes)):
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
            nodes=nodes,
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
    from trainer.assembly.other_rows import GIVEN, described, other_rows
    from trainer.engines.accelerator import launched
    from trainer.evaluation.at_checkpoint import evaluate_checkpoint
    from trainer.planning.planned_run import build_planned_run

    with ExitStack() as stack:
        stack.enter_context(quieted_libraries())
        stack.enter_context(restored_switches())
        check_variables()
        given = {} if data is None else {GIVEN: other_rows(data, recipe, overrides or {})}
        accelerator = stack.enter_context(launched(recipe, directory))
        run = build_planned_run(recipe, accelerator, directory, other_rows=given).run
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
