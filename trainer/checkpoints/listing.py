"""A list of a run's checkpoints and of what killed runs left, checked by file sizes alone."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from trainer.checkpoints.disk_space import bytes_in
from trainer.checkpoints.record import read_manifest, read_record
from trainer.checkpoints.store import CheckpointStore
from trainer.errors import CheckpointError
from trainer.tracking.metric_lines import metrics_at, read_lines
from trainer.wording import listed


@dataclass(frozen=True, kw_only=True)
class Listed:
    """A checkpoint, or the remains of one."""

    name: str
    step: int | None
    bytes: int
    complete: bool
    resumable: bool
    """Whether it also holds the optimizer's moments."""
    best: bool
    processes: int | None
    """World size of the run that wrote it."""
    metrics: dict[str, Any]
    """The validation metrics after its step."""
    problem: str | None


def list_checkpoints(directory: Path) -> list[Listed]:
    """Returns the checkpoints of a run, oldest first, and then staged and damaged ones."""
    store = CheckpointStore(directory / "checkpoints")
    lines, best = read_lines(directory / "metrics.jsonl"), _best_step(store)
    checkpoints = [
        _describe(
            store.path(step),
            step,
            best=step == best,
            metrics=metrics_at(lines, step).get("validation", {}),
        )
        for step in store.steps()
    ]
    known = {store.path(step) for step in store.steps()}
    return checkpoints + [_left_over(path) for path in sorted({*store.folder.glob("*")} - known)]


def _describe(path: Path, step: int, *, best: bool, metrics: dict[str, Any]) -> Listed:
    problem, resumable = None, False
    try:
        manifest = read_manifest(path)
        files = manifest["files"].items()
        wrong = [name for name, file in files if _size(path / name) != file["bytes"]]
        if wrong:
            problem = f"damaged: {listed(wrong, 3)}"
        else:
            read_record(path)
            resumable = manifest["resumable"]
    except CheckpointError:
        problem = "incomplete"
    return Listed(
        name=path.name,
        step=step,
        bytes=bytes_in(path),
        complete=problem is None,
        resumable=resumable,
        best=best,
        processes=_processes(path),
        metrics=metrics,
        problem=problem,
    )


def _left_over(path: Path) -> Listed:
    damaged = path.name.startswith("damaged-")
    return Listed(
        name=path.name,
        step=None,
        bytes=bytes_in(path),
        complete=False,
        resumable=False,
        best=False,
        processes=None,
        metrics={},
        problem="damaged" if damaged else "unfinished",
    )


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
