"""A run seen from outside: its steps, its evaluations and its end, from the files it writes."""

import os
import re
import time
from collections import deque
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from trainer.errors import RunDirectoryError, TrainerError
from trainer.files.plain import open_plain, read_text, reason
from trainer.process.run_directory import is_held
from trainer.process.run_entries import FILES, FOLDERS
from trainer.process.status import read_status
from trainer.recipe.yaml12 import read_yaml
from trainer.tracking.metric_lines import metrics_at, parse_line
from trainer.tracking.progress import Progress, Update, evaluation_message

ENDS = ("done", "stopped", "failed")
SILENT_SECONDS = 30.0
"""Time without news after which the run's process is looked for: a killed one leaves the status
`running`."""
NUM_RECENT = 50
"""Number of last lines from which the pace of the next steps is estimated."""
_CONTROL = re.compile(r"[\x00-\x09\x0b-\x1f\x7f-\x9f]")


@dataclass
class _Lines:
    """What metrics.jsonl says so far. A resumed run replaces the file by a shorter one."""

    file: Path
    deciding_metric: str | None = None
    metric: tuple[str, float] | None = None
    """The deciding metric and its last value."""
    recent: deque[tuple[int, float]] = field(
        default_factory=lambda: deque[tuple[int, float]](maxlen=NUM_RECENT)
    )
    """Step and seconds of the last lines."""
    _inode: int = 0
    _offset: int = 0

    def read(self) -> list[dict[str, Any]]:
        """Returns the new records; of a file that was replaced, or is read for the first time, the
        last evaluation and the last step.

        A last line that is not complete is left for the next call.
        """
        try:
            with open_plain(self.file) as opened:
                facts = os.fstat(opened.fileno())
                again = facts.st_ino != self._inode or facts.st_size < self._offset
                if again:
                    self._inode, self._offset, self.metric = facts.st_ino, 0, None
                    self.recent.clear()
                opened.seek(self._offset)
                content = opened.read()
        except OSError:  # not written yet, or not visible on this machine yet
            return []
        content = content[: content.rfind(b"\n") + 1]
        self._offset += len(content)
        texts = content.decode("utf-8", "replace").split("\n")
        records = [record for text in texts if (record := parse_line(text)) is not None]
        for record in records:
            value = record.get(self.deciding_metric or "")
            if record["split"] == "validation" and isinstance(value, int | float):
                self.metric = (str(self.deciding_metric), value)
            if record["step"] > 0:
                self.recent.append((record["step"], record["seconds"]))
        if again:
            last = {record["split"]: record for record in records}
            records = [last[split] for split in ("validation", "train") if split in last]
        return records

    def seconds_before(self, step: int) -> float | None:
        """Returns how long the steps up to `step` took if they took as long as the recent ones."""
        if not self.recent or self.recent[0][0] == self.recent[-1][0]:
            return None
        (first, _), *later = self.recent
        return step * sum(seconds for _, seconds in later) / (self.recent[-1][0] - first)


def follow(directory: Path, show: Progress, interval: float) -> tuple[int, str]:
    """Returns exit code and message of a run once it has ended, after showing what it does.

    The files of the run directory are read every `interval` seconds, which works on any file
    system. If the directory or its run does not exist yet, waits for it. A run whose process is
    gone, but wrote no end, has the code 1. Raises RunDirectoryError if the directory holds
    something else.
    """
    lines = _Lines(directory / "metrics.jsonl")
    settings: tuple[str | None, int] | None = None
    before: dict[str, Any] | None = None
    news_at = time.monotonic()
    while True:
        status = read_status(directory)
        if not status and before is None:
            _check(directory)
            show(Update(message=f"waiting for a run to begin in {directory}; Ctrl-C ends the wait"))
        if settings is None:
            settings = _settings(directory)
            lines.deciding_metric = settings[0] if settings is not None else None
        records = lines.read()
        for record in records:
            _show(record, lines, _num_steps(status, settings), show)
        if status.get("state") in ENDS:
            show(Update(ended=True))
            return _end_of(status)
        if records or status != before:
            news_at = time.monotonic()
        elif status and time.monotonic() - news_at > SILENT_SECONDS and not is_held(directory):
            show(Update(ended=True))
            return 1, "failed: the process of the run is gone, and did not write why"
        before = status
        time.sleep(interval)


def _show(record: dict[str, Any], lines: _Lines, num_steps: int, show: Progress) -> None:
    split, step = record["split"], record["step"]
    if split != "train":
        metrics = metrics_at([record], step)[split]
        show(Update(message=_shown(evaluation_message(split, step, metrics))))
        return
    show(
        Update(
            step=step,
            num_steps=num_steps,
            record=record,
            metric=lines.metric,
            seconds_before=lines.seconds_before(step),
        )
    )


def _end_of(status: dict[str, Any]) -> tuple[int, str]:
    code, state, message = status.get("exit_code"), status["state"], status.get("message")
    known = code if type(code) is int and 0 <= code < 256 else int(state != "done")
    detail = "" if message in (None, state) else f": {message}"
    steps = f" after step {status['step']}" * (state == "done" and type(status.get("step")) is int)
    return known, _shown(f"{state}{steps}{detail}")


def _num_steps(status: dict[str, Any], settings: tuple[str | None, int] | None) -> int:
    """Returns the number of steps of the run; 0 if it is not known."""
    given = status.get("num_steps")
    if type(given) is int:
        return given
    return settings[1] if settings is not None else 0


def _settings(directory: Path) -> tuple[str | None, int] | None:
    """Returns the deciding metric and, if the recipe gives them, the steps; None before config.yaml
    is written."""
    file = directory / "config.yaml"
    try:
        recipe: Any = read_yaml(read_text(file), str(file))
    except (OSError, ValueError, TrainerError):
        return None
    if not isinstance(recipe, dict):  # still empty
        return None
    evaluation, schedule = recipe.get("evaluation"), recipe.get("schedule")
    metric = evaluation.get("metric") if isinstance(evaluation, dict) else None
    steps = schedule.get("steps") if isinstance(schedule, dict) else None
    return (metric if isinstance(metric, str) else None), (steps if type(steps) is int else 0)


def _check(directory: Path) -> None:
    """Raises RunDirectoryError if a directory is there, and no run can have begun in it."""
    try:
        names = set(os.listdir(directory))  # noqa: PTH208
    except FileNotFoundError:
        return
    except OSError as error:
        raise RunDirectoryError(
            f"{directory} cannot be read ({reason(error)})", key=str(directory)
        ) from error
    if names and not names & {*FILES, *FOLDERS, "logs"}:
        raise RunDirectoryError(
            f"{directory} holds no run", key=str(directory), hint="name the directory of a run"
        )


def _shown(text: str) -> str:
    """Returns a text without control characters, which a terminal would execute."""
    return _CONTROL.sub(" ", text)
