"""Whether the model of a run may be sent: the run is done, and the files are those it verified."""

from pathlib import Path
from typing import Any

from trainer.errors import RunDirectoryError
from trainer.exports.fingerprints import changed_files, fingerprints
from trainer.process.run_entries import writing_to
from trainer.process.status import read_status
from trainer.report.markup import plain
from trainer.report.recorded import RecordedRun
from trainer.wording import excerpt, listed


def is_verified(results: dict[str, Any]) -> bool | None:
    """Returns whether a run has verified its model; None for a run by an older version."""
    export = results.get("export")
    return export.get("verified") is True if isinstance(export, dict) else None


def why_not_verified(results: dict[str, Any]) -> str:
    """Returns, as a clause, why a run has not verified its model."""
    reason = results["export"].get("why_not")
    return excerpt(reason, 200) if isinstance(reason, str) else "it does not say why"


def check_done(directory: Path) -> None:
    """Raises RunDirectoryError unless the last command in a run's directory finished the run."""
    state = read_status(directory).get("state", "done")
    if state != "done":
        raise RunDirectoryError(
            f"{directory} has no finished model: the run is {excerpt(state, 20)}",
            key=str(directory),
            value=state,
            hint="train it to its end",
        )


def check_not_refuted(run: RecordedRun) -> None:
    """Raises RunDirectoryError if the run found that it did not export the model it measured."""
    export = run.results.get("export")
    if isinstance(export, dict) and export.get("failed"):
        raise RunDirectoryError(
            f"what {run.directory} exported is not what it measured: "
            f"{plain(why_not_verified(run.results))}",
            key=str(run.directory),
            hint="train it to its end again",
        )


def verified_files(run: RecordedRun, part: str) -> dict[str, dict[str, Any]]:
    """Returns the fingerprints of `model/` or `adapter/`.

    Raises RunDirectoryError if a file is missing, or is not the one that the run verified.
    """
    folder = run.directory / part
    if not folder.is_dir():
        raise RunDirectoryError(
            f"{run.directory} has no {part}/",
            key=str(folder),
            hint="restore it, or train the run again",
        )
    export = run.results.get("export")
    recorded = export.get(part) if isinstance(export, dict) else None
    files = recorded.get("files") if isinstance(recorded, dict) else None
    with writing_to(run.directory):
        if not isinstance(files, dict):
            return fingerprints(folder)
        changed = changed_files(folder, files)
    if changed:
        raise RunDirectoryError(
            f"{folder} is not as the run verified it: {listed(changed, 3)} changed since",
            key=str(folder),
            value=changed[0],
            hint="restore it, or train the run again",
        )
    return files
