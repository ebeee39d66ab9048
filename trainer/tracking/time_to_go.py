"""The time that a run still trains, measured on its first steps and beside its plan."""

import time
from dataclasses import dataclass

from trainer.wording import format_seconds, format_span

MEASURED_STEPS = 20
"""Steps that are measured, after the first of a session, which also warms up."""


@dataclass(frozen=True, kw_only=True)
class Planned:
    """What the plan of a run says, to be held against what is measured."""

    memory_bytes: int | None = None
    """Peak of the memory that a process allocates on its GPU."""
    seconds_per_step: tuple[float, float] | None = None
    """Least and most seconds of an optimizer step, without evaluation."""


class TimeToGo:
    """Measures the first steps of a session, and says once how long the others will take."""

    def __init__(self, num_steps: int) -> None:
        self.planned: Planned | None = None
        self._num_steps = num_steps
        self._first: tuple[int, float] | None = None
        self._over = False

    def pause(self, seconds: float) -> None:
        """Leaves out time that was not spent on training."""
        if self._first is not None:
            step, began = self._first
            self._first = step, began + seconds

    def after(self, step: int) -> str | None:
        """Returns a sentence once MEASURED_STEPS steps are measured; None before and afterwards.

        `step` is the number of optimizer steps that the run has taken.
        """
        if self._over:
            return None
        now = time.monotonic()
        if self._first is None:
            self._first = step, now
        first, began = self._first
        if step < first + MEASURED_STEPS:
            return None
        self._over = True
        left = self._num_steps - step
        if left <= 0:
            return None
        took = now - began
        to_go = format_seconds(took / (step - first) * left)
        plan = "" if self.planned is None else _planned(self.planned, left)
        return f"{step - first} steps took {format_seconds(took)}: about {to_go} to go{plan}"


def _planned(planned: Planned, steps: int) -> str:
    """Returns, in parentheses, what the plan says about some steps; empty if it says nothing."""
    if planned.seconds_per_step is None:
        return ""
    low, high = planned.seconds_per_step
    return f" (the plan said {format_span(low * steps, high * steps)})"
