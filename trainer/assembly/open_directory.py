"""A run directory, claimed: it holds a new run, continues its own, or branches off another's."""

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
from trainer.files.durable import write_json
from trainer.files.plain import remove
from trainer.process.continuation import LENGTH, PATIENCE, instead
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
from trainer.wording import excerpt


@dataclass(frozen=True, kw_only=True)
class Opened:
    """A run directory that this command has claimed, with a run that is not finished."""

    recipe: Recipe
    """The recipe to train: the given one, with the run's values of keys that it leaves open."""
    changes: list[str]
    """A sentence for each key that changed since the run began."""
    earlier: Recipe | None = None
    """The recipe with which the steps so far were taken, if any were."""
    longer: bool = False
    """Whether it trains longer than it was meant to. Until that is known to be possible,
    config.yaml stays as it is."""


def open_directory(recipe: Recipe, directory: Path, resume: str, stack: ExitStack) -> Opened | None:
    """Claims the run directory until `stack` closes; returns the run in it, None if it is finished.

    `resume` is `auto`, `never` or the folder of a checkpoint. Raises RunDirectoryError if the
    directory is in use or holds a run of another recipe, and CheckpointError if there is nothing
    to resume from.
    """
    stack.enter_context(claim(directory))
    check_entries(directory)
    with writing_to(directory):
        store = CheckpointStore(directory / "checkpoints")
        # Made at once: other machines might look for it, and cache that it does not exist.
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
    """Writes config.yaml, the recipe of this command, and environment.json, where it runs."""
    with writing_to(directory):
        write_recipe(directory, recipe)
        write_json(directory / "environment.json", describe_environment())


def check_shared(accelerator: Accelerator, directory: Path) -> None:
    """Raises RunDirectoryError unless every rank sees the same directory: each writes into it."""
    token = on_main(accelerator, lambda: leave_token(directory))
    apart = [] if sees_token(directory, token) else [socket.gethostname()]
    if accelerator.num_processes > 1:
        apart = sorted(set(gather_object(apart)))
    if apart:
        raise RunDirectoryError(
            f"the run directory {directory} is another folder on {', '.join(apart)} than on the "
            f"main process's machine",
            key="--run-dir",
            value=str(directory),
            hint="choose a --run-dir that all machines share",
        )


def _continued(
    recipe: Recipe, directory: Path, resume: str, store: CheckpointStore, *, finished: bool
) -> Opened | None:
    """Returns the run that the directory holds, None if it is finished and not to train longer."""
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
    """Returns a run that begins with a checkpoint of another one, and with its tokenizer."""
    if not (checkpoint / "state.json").is_file():
        raise CheckpointError(
            f"--resume {excerpt(checkpoint)}: there is no checkpoint",
            key="--resume",
            value=str(checkpoint),
            hint="name a folder such as step-00000120",
        )
    other = checkpoint.parent.parent
    opened = _opened(recipe, other)
    if (other / "tokenizer").is_dir():
        shutil.copytree(other / "tokenizer", directory / "tokenizer", dirs_exist_ok=True)
    return opened


def _new(recipe: Recipe, directory: Path) -> Opened:
    check_mode(recipe)
    # A tokenizer that a run left before its first checkpoint may be of other rows.
    remove(directory / "tokenizer")
    return Opened(recipe=recipe, changes=[])


def _opened(recipe: Recipe, directory: Path) -> Opened:
    """Returns what `recipe` makes of the run in `directory`, whose checkpoints it resumes from."""
    changes = check_recipe(directory, recipe)
    return Opened(
        recipe=continued(directory, recipe),
        changes=changes,
        earlier=read_recipe(directory, type(recipe)),
        longer=any(change.startswith((*LENGTH, PATIENCE)) for change in changes),
    )
