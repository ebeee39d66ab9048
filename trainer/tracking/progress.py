"""Progress: a callable receives the updates of a run.

Any callable will do. Two are provided: `TerminalProgress` prints updates, with a bar on a terminal,
and `NotebookProgress` shows them below the cell.
"""

import math
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from tqdm import tqdm


@dataclass(frozen=True, kw_only=True)
class Update:
    """An update from a run: a message, or a step that it has taken."""

    message: str | None = None
    """One or several lines to show; None if the update is about a step."""
    step: int = 0
    """Optimizer steps taken so far."""
    num_steps: int = 0
    """Optimizer steps of the whole run."""
    record: dict[str, Any] | None = None
    """The line of metrics.jsonl of this step, if one was written."""
    ended: bool = False
    """Whether this is the last update about steps."""


Progress = Callable[[Update], None]


class TerminalProgress:
    """Prints messages, and shows steps as a bar on a terminal or as a line for each record."""

    def __init__(self) -> None:
        self._bar: tqdm[Any] | None = None
        self._first: tuple[int, float] | None = None

    def __call__(self, update: Update) -> None:
        if update.message is not None:
            tqdm.write(update.message, file=sys.stdout)  # without breaking the bar
            sys.stdout.flush()
        elif update.ended:
            if self._bar is not None:
                self._bar.close()
        elif sys.stderr.isatty():
            self._bar = _moved(self._bar or _bar(tqdm, update), update)
        else:
            self._line(update)

    def _line(self, update: Update) -> None:
        now = time.monotonic()
        first_step, start = self._first = self._first or (update.step, now)
        if update.record is None:
            return
        taken = update.step - first_step
        pace = (now - start) / taken if taken else math.nan
        print(
            f"step {update.step}/{update.num_steps}  loss {update.record['loss']:.4f}  "
            f"{update.record['tokens_per_second']:,.0f} tokens/s  "
            f"{_clock(pace * (update.num_steps - update.step))} left",
            flush=True,
        )


class NotebookProgress:
    """Prints messages, and shows steps as a bar of widgets below the cell."""

    def __init__(self) -> None:
        self._bar: tqdm[Any] | None = None

    def __call__(self, update: Update) -> None:
        from tqdm.notebook import tqdm as notebook_bar

        if update.message is not None:
            print(update.message)
        elif not update.ended:
            self._bar = _moved(self._bar or _bar(notebook_bar, update), update)
        elif self._bar is not None:
            self._bar.close()


def default_progress() -> Progress:
    """Returns progress for where it runs: widgets in a notebook that has them, otherwise text."""
    return NotebookProgress() if _in_notebook() else TerminalProgress()


def _in_notebook() -> bool:
    """Returns whether this process is a notebook's kernel that can show widgets."""
    from importlib.util import find_spec

    shell: Any = sys.modules.get("IPython")
    shell = shell and shell.get_ipython()
    is_kernel = shell is not None and "IPKernelApp" in shell.config
    return is_kernel and find_spec("ipywidgets") is not None


def _bar(kind: "type[tqdm[Any]]", update: Update) -> "tqdm[Any]":
    return kind(total=update.num_steps, initial=update.step, unit="step", leave=True)


def _moved(bar: "tqdm[Any]", update: Update) -> "tqdm[Any]":
    """Returns the bar after moving it to the step of an update."""
    bar.update(update.step - bar.n)
    if update.record is not None:
        speed = update.record["tokens_per_second"]
        bar.set_postfix_str(f"loss {update.record['loss']:.4f}, {speed:,.0f} tokens/s")
    return bar


def _clock(seconds: float) -> str:
    if math.isnan(seconds):
        return "?"
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{seconds:02d}" if hours else f"{minutes}:{seconds:02d}"
