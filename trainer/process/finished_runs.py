"""Finished runs: found in directories, and read from results.json."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from trainer.errors import RunDirectoryError
from trainer.files.plain import is_changed, read_json, reason
from trainer.metrics.averages import with_macro_averages
from trainer.process.status import read_status
from trainer.recipe.keys import flatten
from trainer.recipe.tuning import without_adapter_keys
from trainer.wording import excerpt, listed

NEEDED = ("recipe", "baseline", "best", "seconds", "peak_memory_bytes", "scales")

MAX_PATH = 40
"""Maximum characters of a path in a list of runs."""


@dataclass(frozen=True, kw_only=True)
class FinishedRun:
    """The results of a finished run."""

    directory: Path
    results: dict[str, Any]
    recipe: dict[str, Any]
    """Values by dotted key."""


def find_runs(directories: tuple[Path, ...]) -> tuple[list[FinishedRun], list[str]]:
    """Returns the finished runs, each once, and a sentence for each unfinished one that is left
    out.

    A directory is that of a run, or holds several runs, such as that of a sweep. Raises
    RunDirectoryError if one of them has no finished run.
    """
    by_place: dict[Path, Path] = {}
    left_out: list[str] = []
    for directory in directories:
        children = [directory] if _is_finished(directory) else _children(directory)
        finished = [child for child in children if _is_finished(child)]
        states = [
            (run, excerpt(read_status(run).get("state", "not begun"), 20))
            for run in [directory, *children]
            if run not in finished
            and ((run / "config.yaml").is_file() or (run / "status.json").is_file())
        ]
        if not finished:
            names = (f"{_end_of(run)} ({state})" for run, state in states)
            unfinished = f", only {listed(names, 3)}" if states else ""
            raise RunDirectoryError(
                f"{directory} holds no finished run{unfinished}",
                key=str(directory),
                hint="name the directory of a run or a sweep",
            )
        for child in finished:
            by_place.setdefault(child.resolve(), child)
        left_out += [
            f"left out, because it has not finished: {run} ({state})" for run, state in states
        ]
    return [read_finished(directory) for directory in by_place.values()], left_out


def _end_of(directory: Path) -> str:
    """Returns the last MAX_PATH characters of a path, which tell runs apart."""
    text = str(directory)
    return text if len(text) <= MAX_PATH else f"…{text[1 - MAX_PATH :]}"


def has_results(directory: Path) -> bool:
    """Returns whether a run has left results that can be used."""
    try:
        read_finished(directory)
    except RunDirectoryError:
        return False
    return True


def _children(directory: Path) -> list[Path]:
    try:
        return sorted(directory.iterdir())
    except (FileNotFoundError, NotADirectoryError):
        return []
    except OSError as error:
        raise RunDirectoryError(
            f"{directory} holds no run that can be read: {reason(error)}", key=str(directory)
        ) from error


def _is_finished(directory: Path) -> bool:
    """Returns whether a run has left results and no later command has continued it."""
    if read_status(directory).get("state") in ("running", "stopped", "failed"):
        return False
    return (directory / "results.json").is_file()


def read_finished(directory: Path) -> FinishedRun:
    """Returns the results of the run in a directory.

    Raises RunDirectoryError if results.json is missing, changed, or not that of a run.
    """
    file = directory / "results.json"
    try:
        results = read_json(file)
    except (OSError, ValueError) as error:
        raise RunDirectoryError(
            f"{file} cannot be read ({excerpt(reason(error))})",
            key=str(file),
            hint="leave this run out",
        ) from error
    missing = [key for key in NEEDED if not isinstance(results, dict) or key not in results]
    if problem := f"has no {missing[0]}" if missing else _problem(results):
        raise RunDirectoryError(
            f"{file} {problem}",
            key=str(file),
            value=missing[0] if missing else None,
            hint="leave this run out, or train it again",
        )
    results = with_macro_averages(results)  # earlier versions averaged over absent classes as well
    recipe: dict[str, Any] = results["recipe"]
    if "tuning" in recipe:
        recipe = {**recipe, "tuning": without_adapter_keys(recipe["tuning"])}
    return FinishedRun(directory=directory, results=results, recipe=flatten(recipe))


def _problem(results: dict[str, Any]) -> str | None:
    """Returns why a run cannot have written these results; None if it can."""
    if is_changed(results):
        return "was changed after it was written"
    if not isinstance(results["recipe"], dict):
        return "has no recipe"
    recipe = flatten(results["recipe"])
    for key, kind in (("seed", int), ("evaluation.metric", str), ("evaluation.mode", str)):
        if not isinstance(recipe.get(key), kind):
            return f"has no {key} in its recipe"
    best, seconds = results["best"], results["seconds"]
    sound = (
        isinstance(best, dict)
        and type(best.get("step")) is int
        and _is_table(best.get("metrics"))
        and _is_table(results["baseline"])
        and _is_table(results.get("zero_shot") or {})
        and isinstance(seconds, dict)
        and type(seconds.get("total")) in (int, float)
        and type(results["peak_memory_bytes"]) is int
        and isinstance(results["scales"], dict)
        and all(isinstance(scale, str) for scale in results["scales"].values())
    )
    return None if sound else "has another format"


def _is_table(value: Any) -> bool:
    """Returns whether a value maps splits to their metrics."""
    return isinstance(value, dict) and all(isinstance(metrics, dict) for metrics in value.values())
