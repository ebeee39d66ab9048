"""Opening a run directory: a new run, one that continues, or one that starts from another's
checkpoint."""

import shutil
import socket
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from accelerate import Accelerator
from accelerate.utils import gather_object

from trainer.assembly.deciding_metric import check_mode
from trainer.checkpoints.store import CheckpointStore
from trainer.distributed.collectives import on_main
from trainer.errors import CheckpointError, RunDirectoryError
from trainer.files.plain import remove
from trainer.process.continuation import LENGTH, PATIENCE, instead
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
from trainer.process.sessions import write_environment
from trainer.process.status import read_status
from trainer.recipe.schema import Recipe
from trainer.wording import excerpt


@dataclass(frozen=True, kw_only=True)
class Opened:
    """A claimed run directory, with a run to train."""

    recipe: Recipe
    """The recipe to train: the given one, with the run's earlier values for keys that it does not
    set."""
    changes: list[str]
    """A sentence for each key that changed since the run began."""
    earlier: Recipe | None = None
    """The recipe with which the steps so far were taken, if there are any."""
    longer: bool = False
    """Whether the run trains longer than planned. config.yaml is not changed until that is known to
    be possible."""


def open_directory(recipe: Recipe, directory: Path, resume: str, stack: ExitStack) -> Opened | None:
    """Claims the run directory until `stack` closes, and returns its run; None if it is finished.

    `resume` is `auto`, `never` or the folder of a checkpoint. Raises RunDirectoryError if the
    directory is in use or holds a run of another recipe, and CheckpointError if the run cannot
    resume because there is no checkpoint.
    """
    stack.enter_context(claim(directory))
    check_entries(directory)
    with writing_to(directory):
        store = CheckpointStore(directory / "checkpoints")
        # Created now: another machine that looks for it first would cache that it does not exist.
        store.folder.mkdir(exist_ok=True)
        store.recover()
        state, results = read_status(directory).get("state"), has_results(directory)
        if store.steps() or state == "done" or (results and state is None):
            finished = results and (state == "done" or not store.steps())
            opened = _continued(recipe, directory, resume, store, finished=finished)
        elif resume in ("auto", "never"):
            opened = _new(recipe, directory)
        else:
            opened = _branched(recipe, directory, Path(resume).absolute())
        if opened is not None and not opened.longer:
            write_settings(opened.recipe, directory)
    return opened


def write_settings(recipe: Recipe, directory: Path) -> None:
    """Writes config.yaml, the recipe of this command, and environment.json, which describes the
    machine."""
    with writing_to(directory):
        write_recipe(directory, recipe)
    write_environment(directory)


def check_shared(accelerator: Accelerator, directory: Path) -> None:
    """Raises RunDirectoryError, on every rank, unless all ranks see the same directory.

    Every rank writes its part of a checkpoint into it.
    """
    token = on_main(accelerator, lambda: leave_token(directory))
    hosts = [] if sees_token(directory, token) else [socket.gethostname()]
    if accelerator.num_processes > 1:
        hosts = sorted(set(gather_object(hosts)))
    if hosts:
        raise RunDirectoryError(
            f"the run directory {directory} is another folder on {', '.join(hosts)} than on the "
            f"main process's machine",
            key="--run-dir",
            value=str(directory),
            hint="choose a --run-dir that all machines share",
        )


def _continued(
    recipe: Recipe, directory: Path, resume: str, store: CheckpointStore, *, finished: bool
) -> Opened | None:
    """Returns the run that the directory holds; None if it is finished and stays so."""
    if resume == "never":
        raise RunDirectoryError(
            f"--resume never: {directory} holds a run",
            key="--resume",
            value=resume,
            hint=f"use --run-dir {free_name(directory)}",
        )
    opened = _opened(recipe, directory)
    if finished and not opened.longer:
        return None
    if not store.steps():
        lacks = "no checkpoint" if finished else "neither checkpoints nor sound results"
        raise CheckpointError(
            f"{directory} holds a run that has ended and {lacks}",
            key="--run-dir",
            value=str(directory),
            hint=instead(directory),
        )
    return opened


def _branched(recipe: Recipe, directory: Path, checkpoint: Path) -> Opened:
    """Returns a new run that starts from a checkpoint of another run, with its tokenizer."""
    if not (checkpoint / "state.json").is_file():
        raise CheckpointError(
            f"--resume {excerpt(checkpoint)}: this is not a checkpoint",
            key="--resume",
            value=str(checkpoint),
            hint="name a folder such as step-00000120",
        )
    source = checkpoint.parent.parent
    opened = _opened(recipe, source)
    if (source / "tokenizer").is_dir():
        shutil.copytree(source / "tokenizer", directory / "tokenizer", dirs_exist_ok=True)
    return opened


def _new(recipe: Recipe, directory: Path) -> Opened:
    check_mode(recipe)
    # A run that died before its first checkpoint may have trained a tokenizer on other rows.
    remove(directory / "tokenizer")
    return Opened(recipe=recipe, changes=[])


def _opened(recipe: Recipe, directory: Path) -> Opened:
    """Returns the run in `directory`, continued with `recipe`."""
    changes = check_recipe(directory, recipe)
    return Opened(
        recipe=continued(directory, recipe),
        changes=changes,
        earlier=read_recipe(directory, type(recipe)),
        longer=any(change.startswith((*LENGTH, PATIENCE)) for change in changes),
    )
