"""Values outside their scale, and values of two scales or of two metrics side by side."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from trainer.report.diagnosis.measured import SPLITS, Measured, mapping, measured
from trainer.report.recorded import RecordedRun
from trainer.tasks.finding import Finding
from trainer.wording import excerpt

RANGES = {"0-1": (0.0, 1.0), "0-100": (0.0, 100.0)}
BOUNDED = ("accuracy", "precision", "recall", "f1", "exact", "exact_match", "bleu", "meteor")
"""Metrics that no scale lets go beyond 0 to 100."""
WHOLE = (
    "accuracy",
    "f1",
    "exact",
    "exact_match",
    "bleu",
    "meteor",
    "rouge1",
    "rougeL",
    "rougeLsum",
)
"""Metrics of all examples; those of one class or kind fall when the model prefers another."""
ROUNDING = 1e-6
FALL = 10
"""A metric that falls to less than one part in this many is likely not the same metric."""
EXACT = ("exact", "exact_match", "em", "EM")


def about_scales(run: RecordedRun) -> list[Finding]:
    """Returns which metrics of a run are outside their scale, or are hardly of one scale."""
    columns = measured(run.results)
    scales = mapping(run.results, "scales")
    return [
        *_beyond(columns, scales),
        *_falls(columns, scales),
        *(finding for one in columns for finding in _f1_without_exact(one, scales)),
    ]


def mixed_scales(scales: Sequence[Mapping[str, Any]]) -> list[Finding]:
    """Returns which metrics have different scales in several runs; `scales` are the runs' own."""
    by_metric: dict[str, set[str]] = {}
    for one in scales:
        for name, scale in one.items():
            by_metric.setdefault(str(name), set()).add(excerpt(scale, 20))
    return [
        Finding(
            code="mixed-scales",
            message=f"{excerpt(name, 40)} has the scales {' and '.join(sorted(ranges))}",
            advice="compare it only after bringing it to one scale",
            severity="wrong",
        )
        for name, ranges in by_metric.items()
        if len(ranges) > 1
    ]


def _range(name: str, scales: Mapping[str, Any]) -> tuple[float, float] | None:
    """Returns the least and the largest value of a metric, None if they are not known."""
    known = RANGES.get(str(scales.get(name)))
    return known or (RANGES["0-100"] if name in BOUNDED else None)


def _beyond(columns: list[Measured], scales: Mapping[str, Any]) -> Iterator[Finding]:
    seen = set[str]()
    for one in columns:
        for name, value in one.numbers().items():
            limits = _range(name, scales)
            if limits is None or name in seen:
                continue
            low, high = limits
            if not low - ROUNDING <= value <= high + ROUNDING:
                seen.add(name)
                yield Finding(
                    code="beyond-scale",
                    message=f"{name} {value:.4f} ({one.column}) is outside its scale "
                    f"{low:.0f}-{high:.0f}",
                    advice="find out which scale it was measured in before comparing it",
                    figures={name: value, "low": low, "high": high},
                    split=one.split,
                    severity="wrong",
                )


def _falls(columns: list[Measured], scales: Mapping[str, Any]) -> Iterator[Finding]:
    """Yields the metrics of which the exported model reaches less than a tenth of the baseline."""
    for split in SPLITS:
        by_column = {one.column: one.numbers() for one in columns if one.split == split}
        before = by_column.get("baseline", {})
        after = by_column.get("best") or by_column.get("final", {})
        for name in [name for name in WHOLE if name in before and name in after]:
            limits, first, second = _range(name, scales), before[name], after[name]
            of_one_class = name == "f1" and limits == RANGES["0-1"]
            if limits is None or of_one_class or first < limits[1] / FALL:
                continue
            if not 0 < second < first / FALL:
                continue
            yield Finding(
                code="implausible-fall",
                message=f"{name} is {first:.3f} in the baseline and {second:.3f} after training: "
                f"two scales or two metrics of one name stand side by side, or training ruined "
                f"the model",
                advice="measure both with the same function, on the same examples",
                figures={"before": first, "after": second},
                split=split,
            )


def _f1_without_exact(one: Measured, scales: Mapping[str, Any]) -> list[Finding]:
    f1, values = one.number("f1"), one.numbers()
    limits, exact = _range("f1", scales), next((x for x in EXACT if x in values), None)
    if f1 is None or exact is None or values[exact] != 0 or limits is None or f1 < limits[1] / 2:
        return []
    return [
        Finding(
            code="f1-without-exact",
            message=f"f1 is {f1:.2f} of {limits[1]:.0f} and {exact} is 0 ({one.column}): most of "
            f"the words are right, and not one answer",
            advice="measure both with the same function, on the same examples",
            figures={"f1": f1, exact: 0.0},
            split=one.split,
        )
    ]
