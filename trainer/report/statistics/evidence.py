"""Evidence: the intervals and tests of a run's metrics, recomputed from its kept answers."""

from collections.abc import Iterator, Mapping
from typing import Any

from trainer.errors import ConfigError
from trainer.metrics.numbers import finite
from trainer.report.recorded import SPLITS, RecordedRun, same_examples
from trainer.report.statistics.bootstrap import Resampled, percentiles
from trainer.report.statistics.closed_forms import detectable_from_share, holm, wilson
from trainer.report.statistics.columns import (
    Column,
    Columns,
    columns_of,
    exported_column,
)
from trainer.report.statistics.paired import (
    compare,
    detectable,
    detectable_from_values,
    paired_test,
    positions,
)
from trainer.tasks import task_named
from trainer.tasks.base import Task

TESTED = ("accuracy", "exact", "f1", "bleu")
"""Metrics that are tested besides the deciding one."""
AGAINST_MAJORITY = ("accuracy", "exact_at_threshold")
"""Metrics in which the exported model is tested against the best answer to give unread."""
AT_THRESHOLD = {"best_exact": "exact_at_threshold", "best_f1": "f1_at_threshold"}
"""What is tested instead of metrics that take their threshold from the answers they measure."""


def statistics(run: RecordedRun) -> dict[str, Any]:
    """Returns the intervals and tests of each measured split, validation and test, as plain JSON.

    Metrics are those in results.json, by name and column; an interval is computed if the answers
    were kept and give the measured value. Tests compare the exported model with the earlier columns
    on the same examples. `num_examples` counts the answers; it is None if the task neither keeps
    nor counts any. Raises RunDirectoryError if a file of answers cannot be read.
    """
    task = _task(run)
    deciding = _deciding(run)
    splits = {split: columns_of(run, task, split) for split in SPLITS}
    return {
        split: _evidence(columns, deciding) for split, columns in splits.items() if columns.by_name
    }


def between(first: RecordedRun, second: RecordedRun) -> dict[str, list[dict[str, Any]]]:
    """Returns, by split, the tests between the exported models of two runs, as plain JSON.

    `difference` is that of the second run's metric from the first one's. A split has no tests
    unless both runs have the same task and kept their answers to the same examples. Raises
    RunDirectoryError if a file of answers cannot be read.
    """
    by_split: dict[str, list[dict[str, Any]]] = {}
    for split in SPLITS:
        if not same_examples(first, second, split):
            continue
        models = [exported_column(run, _task(run), split) for run in (first, second)]
        resampled, before, after = _on_the_same(*models)
        if resampled is not None and models[1] is not None:
            tested = _tested(models[1].metrics, *(_deciding(run) for run in (first, second)))
            tests = [
                paired_test(resampled, before, after, metric)
                for metric in tested
                if resampled.have(metric, before, after)
            ]
            by_split[split] = _adjusted(tests)
    return by_split


def _deciding(run: RecordedRun) -> str:
    return run.recipe["evaluation"]["metric"]


def _tested(metrics: Mapping[str, Any], *deciding: str) -> list[str]:
    """Returns the measured metrics that are tested.

    If some questions have no answer, SQuAD's metrics are those at the threshold: the others count
    every question as answered.
    """
    names = [AT_THRESHOLD.get(name, name) for name in deciding]
    refuses = "NoAns_exact" in metrics
    names += [AT_THRESHOLD.get(f"best_{name}", name) if refuses else name for name in TESTED]
    return [name for name in dict.fromkeys(names) if finite(metrics.get(name)) is not None]


def _adjusted(tests: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Returns tests with the p-values that testing all of them leaves."""
    adjusted = holm([test["p"] for test in tests])
    return [{**test, "p_adjusted": p} for test, p in zip(tests, adjusted, strict=True)]


def _task(run: RecordedRun) -> type[Task] | None:
    """Returns the class of the run's task; None if it is of a package that is not installed."""
    try:
        return task_named(run.recipe["task"]["name"])
    except ConfigError:
        return None


def _evidence(columns: Columns, deciding: str) -> dict[str, Any]:
    after, by_name = columns.after, columns.by_name
    names = dict.fromkeys(
        name
        for column in [*([after] if after else []), *by_name.values()]
        for name, value in column.metrics.items()
        if name != "seconds" and isinstance(value, float) and finite(value) is not None
    )
    tested = _tested(after.metrics, deciding) if after else []
    scores = after.scores if after is not None else None
    clusters = scores.clusters if scores is not None else None
    return {
        "num_examples": (after or next(iter(by_name.values()))).num_examples,
        "clustered_by": None if clusters is None else "group",
        "num_clusters": None if clusters is None else int(clusters.max()) + 1,
        "majority_is": columns.majority_is,
        "metrics": {
            name: {
                title: _measured(column, name)
                for title, column in by_name.items()
                if finite(column.metrics.get(name)) is not None
            }
            for name in names
        },
        "tests": _adjusted(list(_tests(columns, tested))),
        "detectable": _detectable(columns, tested),
    }


def _measured(column: Column, metric: str) -> dict[str, Any]:
    """Returns the value of a metric and its interval."""
    value, scores = float(column.metrics[metric]), column.scores
    interval, method = None, "Wilson"
    if scores is not None and scores.right is not None and metric in scores.shares:
        interval = wilson(int(scores.right.sum()), scores.num_examples)
    elif column.resampled is not None and column.resampled.have(metric, column.system):
        values = column.resampled.values(column.system, metric)
        interval, method = percentiles(values), "bootstrap"
    elif column.judged.get(metric):
        num_examples = column.judged[metric]
        interval = wilson(value * num_examples, num_examples)
    low, high = interval or (None, None)
    return {"value": value, "low": low, "high": high, "method": method if interval else None}


def _tests(columns: Columns, tested: list[str]) -> Iterator[dict[str, Any]]:
    """Yields the test of each metric between an earlier column and the exported model."""
    for name in ("majority", "baseline", "zero_shot"):
        resampled, before, after = _on_the_same(columns.by_name.get(name), columns.after)
        for metric in tested:
            if name == "majority" and metric not in AGAINST_MAJORITY:
                continue
            if resampled is not None and resampled.have(metric, before, after):
                test = paired_test(resampled, before, after, metric)
                yield {"before": name, "after": columns.exported, **test}


def _on_the_same(before: Column | None, after: Column | None) -> tuple[Resampled | None, int, int]:
    """Returns two models on the same resamples of the examples that `before` answered, and their
    indices; None if `after` did not answer all of them, or if answers were not kept."""
    unknown = None, 0, 0
    if before is None or after is None or before.scores is None or after.scores is None:
        return unknown
    if before.resampled is not None and before.resampled is after.resampled:
        return before.resampled, before.system, after.system
    places = positions(before.answers, after.answers)
    if places is None:
        return unknown
    return compare(before.scores, after.scores.of(places)), 0, 1


def _detectable(columns: Columns, tested: list[str]) -> dict[str, float]:
    """Returns the smallest difference of each metric that the examples show: by the differences
    between baseline and exported model or, if they do not say it, by the latter alone."""
    after = columns.after
    if after is None:
        return {}
    resampled, first, second = _on_the_same(columns.by_name.get("baseline"), after)
    smallest: dict[str, float | None] = {}
    for metric in tested:
        if resampled is not None and resampled.have(metric, first, second):
            smallest[metric] = detectable(resampled, first, second, metric)
        if smallest.get(metric) is not None:
            continue
        if after.judged.get(metric):
            smallest[metric] = detectable_from_share(after.metrics[metric], after.judged[metric])
        elif after.resampled is not None and after.resampled.have(metric, after.system):
            smallest[metric] = detectable_from_values(after.resampled.values(after.system, metric))
    return {metric: value for metric, value in smallest.items() if value is not None}
