"""Failures: which answers of a finished run are right and wrong, counted whole."""

import math
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from trainer.errors import ConfigError
from trainer.metrics.threshold_curve import threshold_curve
from trainer.report.answers.calibration import reliability
from trainer.report.answers.judged import CHURN, judged
from trainer.report.recorded import (
    SPLITS,
    Answers,
    RecordedRun,
    answers_file,
    read_answers,
    same_examples,
)
from trainer.tasks import task_named
from trainer.tasks.judgement import Judgement

MOST_VALUES = 50
"""Labels of a confusion matrix and values of a facet that are counted by themselves."""
OTHER = "(other)"


def failures(run: RecordedRun) -> dict[str, Any]:
    """Returns what the exported step of a run answers right and wrong, by split.

    Every answer is counted. A split has `churn` (None without the baseline's answers), `confusion`
    (None without classes), `reliability` (None without probabilities), `facets`, `thresholds` (None
    without a threshold for "no answer") and `num_examples_shown`. Splits without answers are left
    out. Raises RunDirectoryError if a file of answers cannot be read, and ConfigError if the task
    belongs to a package that is not installed.
    """
    task = task_named(run.recipe["task"]["name"])
    measured: Mapping[str, Any] = run.results["best"]["metrics"]
    by_split: dict[str, Any] = {}
    for split in SPLITS:
        before = _right_by_id(run, f"baseline-{split}", run.results["baseline"].get(split, {}))
        answers, metrics = run.answers(split), measured.get(split, {})
        judgements = judged(task, answers, metrics, answers_file(run.directory, split))
        if judgements:
            by_split[split] = {
                "churn": _churn(answers, judgements, before),
                "confusion": confusion(judgements, list(metrics.get("per_class", ()))),
                "reliability": _reliability(judgements),
                "facets": facets(judgements),
                "thresholds": threshold_curve(answers, metrics),
                "num_examples_shown": len(run.answers(f"examples-{split}")),
            }
    return by_split


def churn_between(first: RecordedRun, second: RecordedRun) -> dict[str, dict[str, int]]:
    """Returns, by split, how many answers of one run another run of the same task fixed and broke.

    A split is left out unless both kept answers to the same examples; empty if their tasks differ,
    or belong to a package that is not installed. Raises RunDirectoryError as `failures` does.
    """
    by_split: dict[str, dict[str, int]] = {}
    try:
        task_named(first.recipe["task"]["name"])
    except ConfigError:
        return by_split
    for split in SPLITS:
        if not same_examples(first, second, split):
            continue
        sides = [
            _right_by_id(run, split, run.results["best"]["metrics"].get(split, {}))
            for run in (first, second)
        ]
        if sides[0] and sides[0].keys() == sides[1].keys():
            counts = Counter(CHURN[right, sides[1][example]] for example, right in sides[0].items())
            by_split[split] = {name.replace(" ", "_"): counts[name] for name in CHURN.values()}
    return by_split


def confusion(judgements: Sequence[Judgement], labels: Sequence[str]) -> dict[str, Any] | None:
    """Returns how often each label (rows) was answered as each label (columns); None without
    labels.

    Of more than MOST_VALUES labels the rarest, counted as gold and as predicted, are gathered in
    "(other)", which then comes last.
    """
    if not labels:
        return None
    pairs = Counter((judgement.gold, judgement.predicted) for judgement in judgements)
    occurrences = Counter[str]()
    for (gold, predicted), count in pairs.items():
        occurrences[gold] += count
        occurrences[predicted] += count
    kept = set(sorted(labels, key=lambda label: -occurrences[label])[:MOST_VALUES])
    shown = [label for label in labels if label in kept]
    places = {label: place for place, label in enumerate(shown)}
    rest = len(shown)
    if any(label not in places for label in [*labels, *occurrences]):
        shown.append(OTHER)
    counts = [[0] * len(shown) for _ in shown]
    for (gold, predicted), count in pairs.items():
        counts[places.get(gold, rest)][places.get(predicted, rest)] += count
    return {"labels": shown, "counts": counts}


def facets(judgements: Sequence[Judgement]) -> dict[str, list[dict[str, Any]]]:
    """Returns, by facet, each value with the count of its answers, how many of them are right, and
    their mean score.

    Values that begin with a number are in its order, others in that of their counts. Of more than
    MOST_VALUES values the rarest are gathered in "(other)", which then comes last.
    """
    sums: dict[str, dict[str, list[float]]] = {}
    for judgement in judgements:
        for facet, value in judgement.facets.items():
            totals = sums.setdefault(facet, {}).setdefault(value, [0, 0, 0.0])
            totals[0] += 1
            totals[1] += judgement.right
            totals[2] += judgement.score
    return {facet: _rows(values) for facet, values in sums.items()}


def _rows(values: Mapping[str, list[float]]) -> list[dict[str, Any]]:
    ranked = sorted(values, key=lambda value: (-values[value][0], value))
    kept, rest = ranked[:MOST_VALUES], ranked[MOST_VALUES:]
    numbers = {value: re.match(r"[0-9]{1,9}", value) for value in kept}
    if all(numbers.values()):
        kept.sort(key=lambda value: int((numbers[value] or [0])[0]))
    counted = [(value, values[value]) for value in kept]
    if rest:
        counted.append((OTHER, [sum(values[value][i] for value in rest) for i in range(3)]))
    return [
        {"value": value, "count": int(count), "right": int(right), "score": score / count}
        for value, (count, right, score) in counted
    ]


def _right_by_id(run: RecordedRun, name: str, metrics: Mapping[str, Any]) -> dict[Any, bool]:
    """Returns whether each answer in predictions/NAME.jsonl is right, by the id of its example."""
    task, file = task_named(run.recipe["task"]["name"]), answers_file(run.directory, name)
    answers = read_answers(file)
    judgements = judged(task, answers, metrics, file)
    pairs = zip(answers, judgements, strict=False)  # of a task without right answers, none
    return {answer["id"]: judgement.right for answer, judgement in pairs}


def _churn(
    answers: Answers, judgements: Sequence[Judgement], before: Mapping[Any, bool]
) -> dict[str, int] | None:
    """Returns how many answers training fixed and broke, of those that the baseline also has."""
    counts = dict.fromkeys(CHURN.values(), 0)
    for answer, judgement in zip(answers, judgements, strict=True):
        if answer["id"] in before:
            counts[CHURN[before[answer["id"]], judgement.right]] += 1
    if not any(counts.values()):
        return None
    return {name.replace(" ", "_"): count for name, count in counts.items()}


def _reliability(judgements: Sequence[Judgement]) -> dict[str, Any] | None:
    sure = [
        (judgement.confidence, judgement.right)
        for judgement in judgements
        if judgement.confidence is not None and math.isfinite(judgement.confidence)
    ]
    return reliability([confidence for confidence, _ in sure], [right for _, right in sure])
