"""The columns of a report: what was measured of each model on a split, and its kept answers."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from trainer.metrics.numbers import finite
from trainer.metrics.scores import Scores
from trainer.report.recorded import Answers, RecordedRun
from trainer.report.statistics.bootstrap import Resampled, resample
from trainer.report.statistics.paired import positions
from trainer.tasks.base import Task

TOLERANCE = 1e-6
"""Relative difference up to which recomputed metrics are the measured ones."""


@dataclass(frozen=True, kw_only=True)
class Column:
    """What was measured of one model, and what its kept answers say."""

    metrics: Mapping[str, Any]
    answers: Answers
    scores: Scores | None
    """With the metrics that the answers give as they were measured; None if answers were not kept,
    or do not say what they add to the metrics."""
    judged: Mapping[str, int]
    """The number of examples of each metric that is a share."""
    resampled: Resampled | None = None
    system: int = 0
    """The index of this model in `resampled`."""

    @property
    def num_examples(self) -> int | None:
        """The number of examples that were answered; None if nothing says it."""
        counts = self.judged.values()
        return self.scores.num_examples if self.scores else max(counts, default=None)


@dataclass(frozen=True, kw_only=True)
class Columns:
    """The columns of a split, in their order."""

    by_name: dict[str, Column]
    """Those that exist of "majority", "baseline", "zero_shot", "best" and "final"."""
    exported: str
    """The name of the column of the exported model, "best" or "final"; it need not exist."""
    majority_is: str | None
    """The answer of "majority", in words."""

    @property
    def after(self) -> Column | None:
        """The column of the exported model."""
        return self.by_name.get(self.exported)


def columns_of(run: RecordedRun, task: type[Task] | None, split: str) -> Columns:
    """Returns the columns of a split; `task` is None if it cannot be loaded.

    "majority" is the best answer to give unread. There is no "best" if the run did not keep the
    best step. Raises RunDirectoryError if a file of answers cannot be read.
    """
    results = run.results
    exported, best = results.get("model", "best"), results["best"]
    final = results.get("final") or best
    same_step = final["step"] == best["step"]
    measured = {
        "baseline": (results["baseline"], f"baseline-{split}"),
        "zero_shot": (results.get("zero_shot") or {}, f"zero_shot_{split}"),
        "best": (best["metrics"], split),
        "final": (final["metrics"], split if exported == "final" else f"final-{split}"),
    }
    if exported == "final":
        del measured["best"]
    elif same_step:
        del measured["final"]
    columns = {
        name: _column(task, metrics[split], run.answers(file))
        for name, (metrics, file) in measured.items()
        if metrics.get(split)
    }
    if exported == "best" and same_step and "best" in columns:
        columns["final"] = columns["best"]
    majority_is, majority = _majority(task, columns.get(exported))
    by_name = {**({"majority": majority} if majority else {}), **columns}
    return Columns(
        by_name=_resampled(by_name, exported), exported=exported, majority_is=majority_is
    )


def exported_column(run: RecordedRun, task: type[Task] | None, split: str) -> Column | None:
    """Returns the column of the exported model alone, without resamples; None if the split was not
    measured.

    Raises RunDirectoryError if its file of answers cannot be read.
    """
    results = run.results
    exported = results["best"] if results.get("model", "best") == "best" else results["final"]
    metrics = exported["metrics"].get(split)
    return _column(task, metrics, run.answers(split)) if metrics else None


def _column(task: type[Task] | None, metrics: Mapping[str, Any], answers: Answers) -> Column:
    judged = {} if task is None else task.num_judged(metrics)
    # A share beyond its scale, which the diagnosis names, has no interval.
    judged = {name: count for name, count in judged.items() if _is_share(metrics.get(name))}
    scores = None if task is None or not answers else task.scores(answers, metrics)
    if scores is not None:
        again = scores.values()
        kept = {
            name: metric
            for name, metric in scores.metrics.items()
            if finite(metrics.get(name)) is not None
            and math.isclose(again[name], metrics[name], rel_tol=TOLERANCE, abs_tol=TOLERANCE)
        }
        shares = tuple(name for name in scores.shares if name in kept)
        scores = replace(scores, metrics=kept, shares=shares)
    return Column(metrics=metrics, answers=answers, scores=scores, judged=judged)


def _majority(task: type[Task] | None, after: Column | None) -> tuple[str | None, Column | None]:
    """Returns the best answer to give unread, in words, and its column."""
    if task is None or after is None:
        return None, None
    unread = task.scores_without_reading(after.answers, after.metrics)
    if unread is None:
        return None, None
    words, scores = unread
    answers = after.answers if scores.num_examples == len(after.answers) else []
    return words, Column(metrics=scores.values(), answers=answers, scores=scores, judged={})


def _resampled(columns: dict[str, Column], exported: str) -> dict[str, Column]:
    """Returns the columns with resamples: those that answered all examples of the exported model
    share theirs, so that they can be compared."""
    together: dict[str, Scores] = {}
    after = columns.get(exported)
    if after is not None and after.scores is not None:
        together[exported] = after.scores
        for name, column in columns.items():
            if column.scores is not None and len(column.answers) == len(after.answers):
                places = positions(column.answers, after.answers)
                if places is not None:
                    together.setdefault(name, column.scores.of(np.argsort(places)))
    joint = resample(list(together.values())) if together else None
    systems = {name: number for number, name in enumerate(together)}
    result: dict[str, Column] = {}
    for name, column in columns.items():
        if name in systems:
            result[name] = replace(column, resampled=joint, system=systems[name])
        else:
            alone = resample([column.scores]) if column.scores is not None else None
            result[name] = replace(column, resampled=alone)
    return result


def _is_share(value: Any) -> bool:
    number = finite(value)
    return number is not None and 0 <= number <= 1
