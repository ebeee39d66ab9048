"""RecordedRun: everything that the directory of a finished run says about it."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from trainer.errors import RunDirectoryError
from trainer.files.plain import parse_json, read_json, read_text, reason
from trainer.metrics.averages import with_macro_averages
from trainer.process.finished_runs import read_finished
from trainer.report.recorded_results import check_results
from trainer.tracking.metric_lines import read_lines
from trainer.wording import excerpt

SPLITS = ("validation", "test")
"""The splits that are measured."""
Answers = list[dict[str, Any]]
"""The lines of a file in predictions/."""
KINDS_IN_ENVIRONMENT: dict[str, type] = {
    "command": list,
    "packages": dict,
    "gpus": list,
    "sessions": list,
}


@dataclass(frozen=True, kw_only=True)
class RecordedRun:
    """Everything that the directory of a finished run says about it."""

    directory: Path
    results: dict[str, Any]
    """results.json; an old version lacks keys."""
    recipe: dict[str, Any]
    """The resolved recipe, nested."""
    lines: list[dict[str, Any]]
    """The lines of metrics.jsonl."""
    environment: dict[str, Any]
    """environment.json; empty if it is missing."""
    status: dict[str, Any]
    """status.json; empty if it is missing."""

    @property
    def name(self) -> str:
        return self.directory.name

    def answers(self, name: str) -> Answers:
        """Returns the lines of predictions/NAME.jsonl; empty if the run did not write it.

        Names are `validation` and `test`, for the exported step, and `baseline-SPLIT`,
        `final-SPLIT`, `zero_shot_SPLIT` and `examples-SPLIT`. Raises RunDirectoryError if the file
        cannot be read.
        """
        return read_answers(answers_file(self.directory, name))


def read_run(directory: Path) -> RecordedRun:
    """Returns what the directory of a finished run says, also of a run by an older version.

    Raises RunDirectoryError if the run has not finished, or if a file cannot be read.
    """
    results = read_finished(directory).results
    check_results(directory / "results.json", results)
    return _recorded(directory, results)


def record_of(directory: Path, results: dict[str, Any]) -> RecordedRun:
    """Returns what `read_run` will return as soon as the run has written these results."""
    values = with_macro_averages(parse_json(json.dumps(results)))
    return _recorded(directory, values)


def _recorded(directory: Path, results: dict[str, Any]) -> RecordedRun:
    return RecordedRun(
        directory=directory.absolute(),
        results=results,
        recipe=results["recipe"],
        lines=with_macro_averages(read_lines(directory / "metrics.jsonl")),
        environment=_environment(directory / "environment.json"),
        status=_optional(directory / "status.json"),
    )


def same_examples(first: RecordedRun, second: RecordedRun, split: str) -> bool:
    """Returns whether two runs have the same task, and can have answered the same rows of a split:
    older versions did not record their digest."""
    if first.recipe["task"]["name"] != second.recipe["task"]["name"]:
        return False
    data = (run.results.get("data", {}).get(split, {}) for run in (first, second))
    one, other = (facts.get("sha256") for facts in data)
    return one is None or other is None or one == other


def answers_file(directory: Path, name: str) -> Path:
    """Returns the file of a run that holds the answers `name`."""
    return directory / "predictions" / f"{name}.jsonl"


def read_answers(file: Path) -> Answers:
    """Returns the lines of a file in predictions/; empty if it does not exist.

    Raises RunDirectoryError if it cannot be read.
    """
    try:
        records = [parse_json(line) for line in read_text(file).split("\n") if line]
    except FileNotFoundError:
        return []
    except (OSError, ValueError) as error:
        raise _unreadable(file, error) from error
    if not all(isinstance(record, dict) for record in records):
        raise _unreadable(file, ValueError("a line is not a record"))
    return records


def _environment(file: Path) -> dict[str, Any]:
    """Returns environment.json without values of another kind than a run writes."""
    environment = {
        key: value
        for key, value in _optional(file).items()
        if isinstance(value, KINDS_IN_ENVIRONMENT.get(key, object))
    }
    if "sessions" in environment:
        sessions = [item for item in environment["sessions"] if isinstance(item, dict)]
        environment["sessions"] = sessions
    return environment


def _optional(file: Path) -> dict[str, Any]:
    try:
        value = read_json(file)
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise _unreadable(file, error) from error
    return value if isinstance(value, dict) else {}


def _unreadable(file: Path, error: OSError | ValueError) -> RunDirectoryError:
    return RunDirectoryError(
        f"{file} cannot be read ({excerpt(reason(error))})",
        key=str(file),
        hint="restore it, or remove it to report without it",
    )
