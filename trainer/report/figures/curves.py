"""Curves: what metrics.jsonl says by step, tokens and time, thinned for drawing."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from trainer.metrics.numbers import finite
from trainer.report.report import Report

MOST_POINTS = 500
"""Maximum points of a line that is drawn."""
MOST_MARKS = 200
"""Maximum checkpoints that are marked."""


@dataclass(frozen=True, kw_only=True)
class Curve:
    """Values with the three positions at which each was measured, in order."""

    steps: list[float]
    tokens: list[float]
    seconds: list[float]
    values: list[float]

    def on(self, axis: str) -> list[float]:
        """Returns the positions on an axis: "steps", "tokens" or "seconds"."""
        return {"steps": self.steps, "tokens": self.tokens, "seconds": self.seconds}[axis]


def curve(lines: Sequence[dict[str, Any]], split: str, name: str) -> Curve:
    """Returns the finite values of a name in the lines of a split, at most MOST_POINTS of them.

    Tokens are those that had been trained on, seconds those of training and evaluation so far.
    """
    points: list[tuple[float, float, float, float]] = []
    tokens, seconds = 0.0, 0.0
    for line in lines:
        seconds += line["seconds"]
        if line["split"] == "train":
            now = finite(line.get("tokens"))
            tokens = tokens if now is None else float(now)
        value = finite(line.get(name))
        if line["split"] == split and value is not None:
            points.append((float(line["step"]), tokens, seconds, float(value)))
    kept = [points[i] for i in thinned([point[3] for point in points])]
    steps, all_tokens, all_seconds, values = (
        (list(column) for column in zip(*kept, strict=True)) if kept else ([], [], [], [])
    )
    return Curve(steps=steps, tokens=all_tokens, seconds=all_seconds, values=values)


def thinned(values: Sequence[float]) -> list[int]:
    """Returns the positions of at most MOST_POINTS values: the first, the last, and the lowest and
    highest of each of equal parts, so that spikes stay."""
    if len(values) <= MOST_POINTS:
        return list(range(len(values)))
    num_parts = MOST_POINTS // 2 - 1
    kept = {0, len(values) - 1}
    for part in range(num_parts):
        inside = range(len(values) * part // num_parts, len(values) * (part + 1) // num_parts)
        kept |= {min(inside, key=values.__getitem__), max(inside, key=values.__getitem__)}
    return sorted(kept)


def loss_terms(lines: Sequence[dict[str, Any]]) -> list[str]:
    """Returns the names of the loss terms that training lines have beside the whole loss."""
    names = (name for line in lines if line["split"] == "train" for name in line)
    return [name for name in dict.fromkeys(names) if name.startswith("loss_")]


def share_clipped(report: Report) -> tuple[float, int] | None:
    """Returns the share of logged steps whose gradient norm was above the limit, and the number of
    logged steps; None without a limit or norms."""
    limit = report.results["recipe"]["optimizer"].get("max_grad_norm")
    norms = [
        norm
        for line in report.run.lines
        if line["split"] == "train" and (norm := finite(line.get("grad_norm"))) is not None
    ]
    if not limit or not norms:
        return None
    return sum(norm > limit for norm in norms) / len(norms), len(norms)


def checkpoint_steps(report: Report) -> list[int]:
    """Returns the steps after which the recipe saves regularly; empty if they are too many."""
    every = report.results["recipe"]["checkpoint"].get("every_steps")
    last = report.results["final"]["step"]
    if not every or last // every > MOST_MARKS:
        return []
    return list(range(every, last + 1, every))


def restart_steps(report: Report) -> list[int]:
    """Returns the steps at which the run was resumed."""
    sessions = report.results.get("environment", report.run.environment).get("sessions", [])
    steps = (session.get("step") for session in sessions[1:])
    return [step for step in steps if isinstance(step, int)]
