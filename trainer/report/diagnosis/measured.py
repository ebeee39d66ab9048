"""Metrics as results.json holds them, read without trust: keys may be missing, and values odd."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, cast

from trainer.metrics.numbers import finite
from trainer.report.recorded import SPLITS, RecordedRun


@dataclass(frozen=True)
class Measured:
    """The metrics of a split at one moment of a run."""

    column: str
    """`baseline`, `zero-shot`, `best` or `final`."""
    split: str
    metrics: Mapping[str, Any]

    def number(self, name: str) -> float | None:
        """Returns a metric; None if it is missing or not a finite number."""
        return finite(self.metrics.get(name))

    def numbers(self) -> dict[str, float]:
        """Returns the metrics that are finite numbers, without the seconds that they took."""
        values = {str(name): finite(value) for name, value in self.metrics.items()}
        return {
            name: value for name, value in values.items() if value is not None and name != "seconds"
        }


def mapping(value: Any, *keys: str) -> Mapping[str, Any]:
    """Returns the mapping under nested keys; an empty one if there is none."""
    for key in keys:
        value = cast(Mapping[str, Any], value).get(key) if isinstance(value, Mapping) else None
    return cast(Mapping[str, Any], value) if isinstance(value, Mapping) else {}


def measured(results: Mapping[str, Any]) -> list[Measured]:
    """Returns what was measured of each split, from before training to the last step."""
    columns = {
        "baseline": mapping(results, "baseline"),
        "zero-shot": mapping(results, "zero_shot"),
        "best": mapping(results, "best", "metrics"),
        "final": mapping(results, "final", "metrics"),
    }
    return [
        Measured(column, split, mapping(metrics, split))
        for split in SPLITS
        for column, metrics in columns.items()
        if mapping(metrics, split)
    ]


def reported(results: Mapping[str, Any]) -> list[Measured]:
    """Returns what was measured of each split at the exported step."""
    columns = measured(results)
    return [one for one in columns if one.column == "best"] or [
        one for one in columns if one.column == "final"
    ]


def evaluations(run: RecordedRun) -> list[tuple[int, Measured]]:
    """Returns the step and the metrics of each evaluation of the validation split after step 0."""
    lines: list[Any] = list(run.lines)
    found = [
        (line.get("step"), cast(Mapping[str, Any], line))
        for line in lines
        if isinstance(line, Mapping) and line.get("split") == "validation"
    ]
    if not found:
        epochs = run.results.get("epochs")
        found = [
            (mapping(epoch).get("step"), mapping(epoch, "validation"))
            for epoch in (cast(list[Any], epochs) if isinstance(epochs, list) else [])
        ]
    steps = [(finite(step), metrics) for step, metrics in found]
    return [
        (int(step), Measured("validation", "validation", metrics))
        for step, metrics in steps
        if step is not None and step > 0
    ]


def training_lines(run: RecordedRun) -> Iterator[Mapping[str, Any]]:
    """Yields the lines of metrics.jsonl about training steps."""
    lines: list[Any] = list(run.lines)
    for line in lines:
        if isinstance(line, Mapping) and cast(Mapping[str, Any], line).get("split") == "train":
            yield cast(Mapping[str, Any], line)


def deciding(run: RecordedRun) -> tuple[str, bool]:
    """Returns the metric that decides which step is best, and whether more is better."""
    settings = mapping(run.recipe, "evaluation")
    return str(settings.get("metric", "loss")), settings.get("mode", "min") == "max"


def last_step(run: RecordedRun) -> float | None:
    """Returns the number of optimizer steps of the run, None if the results do not say."""
    return finite(mapping(run.results, "final").get("step"))
