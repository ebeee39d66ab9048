"""Progress: a callable receives the updates of a run.

Any callable will do. Two are provided: `TerminalProgress` prints updates, with a bar on a terminal,
and `NotebookProgress` shows them below the cell.
"""

import math
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from tqdm import tqdm

from trainer.wording import format_bytes


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
    metric: tuple[str, float] | None = None
    """The metric that decides which step is best, and its last value, once it was measured."""
    seconds_before: float | None = None
    """Seconds that the steps before the first update took; None if the run continues from there."""
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
        before = update.seconds_before
        began = (update.step, now) if before is None else (0, now - before)
        first_step, start = self._first = self._first or began
        if update.record is None:
            return
        taken = update.step - first_step
        pace = (now - start) / taken if taken else math.nan
        parts = [
            f"step {update.step}/{update.num_steps or '?'}",
            *measured(update),
            f"{_clock(pace * (update.num_steps - update.step))} left" if update.num_steps else "",
        ]
        print("  ".join(filter(None, parts)), flush=True)


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


def measured(update: Update) -> list[str]:
    """Returns what an update's record says: loss, deciding metric, tokens per second, memory."""
    record = update.record or {}
    metric = []
    if update.metric is not None:
        name, value = update.metric
        metric = [f"{'validation ' * ('loss' in name)}{name} {value:.4f}"]
    shown = {
        "loss": "loss {:.4f}".format,
        "tokens_per_second": "{:,.0f} tokens/s".format,
        "peak_memory_bytes": format_bytes,
    }
    loss, speed, memory = (
        [show(record[key])] if isinstance(record.get(key), int | float) else []
        for key, show in shown.items()
    )
    return [*loss, *metric, *speed, *memory]


def evaluation_message(split: str, step: int, metrics: Mapping[str, Any]) -> str:
    """Returns the message about an evaluation: the metrics that are numbers, without macro
    averages."""
    numbers = "  ".join(
        f"{name} {value:.4f}"
        for name, value in metrics.items()
        if isinstance(value, float) and name != "seconds" and not name.endswith("_macro")
    )
    return f"{split} after step {step}: {numbers}"


def _in_notebook() -> bool:
    """Returns whether this process is a notebook's kernel that can show widgets."""
    from importlib.util import find_spec

    shell: Any = sys.modules.get("IPython")
    shell = shell and shell.get_ipython()
    is_kernel = shell is not None and "IPKernelApp" in shell.config
    return is_kernel and find_spec("ipywidgets") is not None


def _bar(kind: "type[tqdm[Any]]", update: Update) -> "tqdm[Any]":
    before = update.seconds_before
    first = update.step if before is None else 0
    bar = kind(total=update.num_steps or None, initial=first, unit="step", leave=True)
    if before is not None:  # the bar's own clock began when it was made
        bar.start_t -= before
        bar.last_print_t -= before
    return bar


def _moved(bar: "tqdm[Any]", update: Update) -> "tqdm[Any]":
    """Returns the bar after moving it to the step of an update."""
    bar.update(update.step - bar.n)
    if update.record is not None:
        bar.set_postfix_str(", ".join(measured(update)))
    return bar


def _clock(seconds: float) -> str:
    if math.isnan(seconds):
        return "?"
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{seconds:02d}" if hours else f"{minutes}:{seconds:02d}"
