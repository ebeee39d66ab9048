"""What the commands do that list, verify and prune the checkpoints of a run."""

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from trainer.checkpoints.disk_space import bytes_in
from trainer.checkpoints.record import read_manifest, read_record, verify
from trainer.checkpoints.store import CheckpointStore
from trainer.errors import DONE, WRONG, CheckpointError
from trainer.files.plain import remove
from trainer.process.run_directory import claim, read_recipe
from trainer.report.document import table
from trainer.tasks.recipe import Recipe
from trainer.tracking.metric_lines import metrics_at, read_lines
from trainer.wording import format_bytes
from trainer.wording import listed as listed_names


@dataclass(frozen=True)
class Listed:
    """A checkpoint, or what a dead run has left of one."""

    name: str
    step: int | None
    bytes: int
    complete: bool
    resumable: bool
    """Whether it has the moments, too."""
    best: bool
    processes: int | None
    """World size of the run that wrote it."""
    metrics: dict[str, Any]
    """Of the validation split after its step."""
    problem: str | None


def list_checkpoints(directory: Path, as_json: bool) -> int:
    """Prints step, size, metrics, world size and completeness of what lies there, by sizes only."""
    found = listed(directory)
    if as_json:
        print(json.dumps([asdict(one) for one in found], ensure_ascii=False))
        return DONE
    metric = read_recipe(directory, Recipe).evaluation.metric
    rows = [
        [
            one.name + " (best)" * one.best,
            format_bytes(one.bytes),
            _number(one.metrics.get(metric)),
            str(one.processes or ""),
            one.problem or ("complete" if one.resumable else "complete, weights only"),
        ]
        for one in found
    ]
    titles = ["checkpoint", "size", metric, "processes", ""]
    print("\n".join(table(titles, rows)) if rows else f"{directory} has no checkpoint yet")
    return DONE


def verify_checkpoints(directory: Path) -> int:
    """Compares every file with its checksum; returns code 2 where one differs."""
    store, code = _store(directory), DONE
    for step in store.steps():
        try:
            verify(store.path(step))
        except CheckpointError as error:
            print(f"damaged  {error}")
            code = WRONG
        else:
            print(f"sound    {store.path(step)}")
    newest, _ = store.newest()
    print(f"the run resumes from {newest}" if newest else "the run has none to resume from")
    return code


def prune_checkpoints(directory: Path, keep_last: int | None) -> int:
    """Removes what a run keeps no longer, what is damaged, and what dead runs have left."""
    store, settings = _store(directory), read_recipe(directory, Recipe).checkpoint
    if keep_last is not None:
        settings = settings.model_copy(update={"keep_last": keep_last})
    with claim(directory):
        before = bytes_in(store.folder)
        store.recover()
        newest, _ = store.newest()
        if newest is None:
            raise CheckpointError(f"{directory} has no sound checkpoint; nothing was removed")
        try:
            store.set_aside_after(newest)
            for damaged in store.folder.glob("damaged-*"):
                remove(damaged)
            store.prune(settings, read_record(newest)["state"]["best_step"])
        except OSError as error:
            raise CheckpointError(
                f"{error.filename} cannot be removed: {error.strerror}"
            ) from error
        kept = ", ".join(map(str, store.steps()))
        print(f"kept are the steps {kept}; {format_bytes(before - bytes_in(store.folder))} freed")
    return DONE


def listed(directory: Path) -> list[Listed]:
    """Returns the checkpoints of a run, oldest first, and then what is staged or damaged."""
    store = _store(directory)
    lines = read_lines(directory / "metrics.jsonl")
    best, found = _best_step(store), list[Listed]()
    for step in store.steps():
        path = store.path(step)
        try:
            manifest, problem = read_manifest(path), None
            sizes = {name: file["bytes"] for name, file in manifest["files"].items()}
            wrong = [name for name, size in sizes.items() if _size(path / name) != size]
            if wrong:
                problem = f"damaged: {listed_names(wrong, 3)}"
            else:
                read_record(path)
        except CheckpointError:
            manifest, problem = {"resumable": False}, "incomplete"
        found.append(
            Listed(
                name=path.name,
                step=step,
                bytes=bytes_in(path),
                complete=problem is None,
                resumable=problem is None and manifest["resumable"],
                best=step == best,
                processes=_processes(path),
                metrics=metrics_at(lines, step).get("validation", {}),
                problem=problem,
            )
        )
    known = {store.path(step) for step in store.steps()}
    for path in sorted(set(store.folder.glob("*")) - known):
        problem = "damaged" if path.name.startswith("damaged-") else "being written, or left so"
        found.append(
            Listed(path.name, None, bytes_in(path), False, False, False, None, {}, problem)
        )
    return found


def _store(directory: Path) -> CheckpointStore:
    read_recipe(directory, Recipe)  # or refuses what is no run
    return CheckpointStore(directory / "checkpoints")


def _best_step(store: CheckpointStore) -> int | None:
    for step in reversed(store.steps()):
        try:
            return read_record(store.path(step))["state"]["best_step"]
        except CheckpointError:
            continue
    return None


def _processes(checkpoint: Path) -> int | None:
    try:
        processes = read_record(checkpoint)["launch"].get("processes")
    except CheckpointError:
        return None
    return processes if type(processes) is int else None


def _size(file: Path) -> int | None:
    try:
        return file.stat().st_size if file.is_file() else None
    except OSError:
        return None


def _number(value: Any) -> str:
    return f"{value:.4f}" if isinstance(value, float) else ""
