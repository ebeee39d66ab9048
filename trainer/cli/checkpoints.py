"""`trainer checkpoints`: lists, verifies and prunes the checkpoints of a run."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click

from trainer.cli.options import DEBUG, RUN_DIR
from trainer.errors import DONE, WRONG, CheckpointError

if TYPE_CHECKING:
    from trainer.checkpoints.store import CheckpointStore


@click.group("checkpoints")
def command() -> None:
    """List, verify or prune the checkpoints of a run."""


@command.command("ls")
@RUN_DIR
@click.option("--json", "as_json", is_flag=True, help="Print one JSON list.")
@DEBUG
def list_(run_dir: Path, as_json: bool) -> int:
    """List the checkpoints of RUN_DIR: size, metric, processes, and whether they are complete."""
    from trainer.checkpoints.listing import list_checkpoints
    from trainer.process.run_directory import read_recipe
    from trainer.report.markdown import table
    from trainer.tasks.recipe import Recipe
    from trainer.wording import format_bytes

    metric = read_recipe(run_dir, Recipe).evaluation.metric
    checkpoints = list_checkpoints(run_dir)
    if as_json:
        print(json.dumps([asdict(item) for item in checkpoints], ensure_ascii=False))
        return DONE
    rows = [
        [
            item.name + " (best)" * item.best,
            format_bytes(item.bytes),
            f"{value:.4f}" if isinstance(value := item.metrics.get(metric), float) else "",
            str(item.processes or ""),
            item.problem or ("complete" if item.resumable else "complete, weights only"),
        ]
        for item in checkpoints
    ]
    titles = ["checkpoint", "size", metric, "processes", ""]
    print("\n".join(table(titles, rows)) if rows else _none_in(run_dir))
    return DONE


@command.command()
@RUN_DIR
@DEBUG
def verify(run_dir: Path) -> int:
    """Compare all files of RUN_DIR's checkpoints with their checksums; code 2 if one differs."""
    from trainer.checkpoints.record import verify

    store, code = _store(run_dir), DONE
    for step in store.steps():
        try:
            verify(store.path(step))
        except CheckpointError as error:
            print(f"damaged  {error}")
            code = WRONG
        else:
            print(f"sound    {store.path(step)}")
    newest, _ = store.newest()
    if newest:
        print(f"the run resumes from {newest}")
    else:
        print("the run cannot resume from any of them" if store.steps() else _none_in(run_dir))
    return code


@command.command()
@RUN_DIR
@click.option("--keep-last", type=click.IntRange(min=1), help="Default: that of the recipe.")
@DEBUG
def prune(run_dir: Path, keep_last: int | None) -> int:
    """Remove checkpoints that RUN_DIR no longer keeps, damaged ones, and files of killed runs."""
    from trainer.checkpoints.disk_space import bytes_in
    from trainer.checkpoints.record import read_record
    from trainer.files.plain import remove
    from trainer.process.run_directory import claim, read_recipe
    from trainer.tasks.recipe import Recipe
    from trainer.wording import format_bytes

    store, settings = _store(run_dir), read_recipe(run_dir, Recipe).checkpoint
    if keep_last is not None:
        settings = settings.model_copy(update={"keep_last": keep_last})
    with claim(run_dir):
        before = bytes_in(store.folder)
        store.recover()
        newest, _ = store.newest()
        if newest is None:
            raise CheckpointError(
                f"{run_dir} has no sound checkpoint, so nothing was removed",
                key=str(run_dir),
                hint="see `trainer checkpoints verify`",
            )
        try:
            store.set_aside_after(newest)
            for damaged in store.folder.glob("damaged-*"):
                remove(damaged)
            store.prune(settings, read_record(newest)["state"]["best_step"])
        except OSError as error:
            raise CheckpointError(
                f"{error.filename} cannot be removed: {error.strerror}", key=str(error.filename)
            ) from error
        kept = ", ".join(map(str, store.steps()))
        print(f"kept: steps {kept}; {format_bytes(before - bytes_in(store.folder))} freed")
    return DONE


def _store(run_dir: Path) -> "CheckpointStore":
    """Returns the checkpoints of a run. Raises RunDirectoryError if the directory holds no run."""
    from trainer.checkpoints.store import CheckpointStore
    from trainer.process.run_directory import read_recipe
    from trainer.tasks.recipe import Recipe

    read_recipe(run_dir, Recipe)
    return CheckpointStore(run_dir / "checkpoints")


def _none_in(run_dir: Path) -> str:
    return f"{run_dir} has no checkpoint yet"
