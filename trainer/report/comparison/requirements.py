"""Requirements on finished runs, such as `test.f1>=0.85`, by which a script accepts a model."""

import difflib
import math
import operator
import re
from dataclasses import dataclass
from typing import Any

from trainer.errors import ConfigError
from trainer.process.finished_runs import FinishedRun
from trainer.report.markup import plain
from trainer.wording import excerpt, listed

_COMPARISONS = {
    ">=": operator.ge,
    "<=": operator.le,
    "==": operator.eq,
    ">": operator.gt,
    "<": operator.lt,
}
_FORM = re.compile(r"\s*([^.<>=\s]+)\.([^<>=]*?)\s*(>=|<=|==|>|<)\s*(\S+)\s*")


@dataclass(frozen=True, kw_only=True)
class Requirement:
    """A bound on a metric at the best step of each run."""

    text: str
    """As the user wrote it."""
    split: str
    metric: str
    """Name of a metric, or a dotted path such as `per_class.positive.recall`."""
    comparison: str
    """One of >=, <=, ==, > and <."""
    bound: float

    def holds(self, value: float) -> bool:
        """Returns whether a value fulfils it; NaN never does."""
        return bool(_COMPARISONS[self.comparison](value, self.bound))


def parse_requirement(text: str) -> Requirement:
    """Returns the requirement that `SPLIT.METRIC>=NUMBER` states.

    Raises ConfigError if the text has another form.
    """
    match = _FORM.fullmatch(text)
    bound = _number(match[4]) if match else None
    if match is None or bound is None or not match[2]:
        raise ConfigError(
            f"--require {excerpt(text)}: this is not SPLIT.METRIC>=NUMBER",
            key="--require",
            value=text,
            hint="write for example 'test.f1>=0.85', with >=, <=, ==, > or <, in quotes",
        )
    return Requirement(text=text, split=match[1], metric=match[2], comparison=match[3], bound=bound)


def check(requirement: Requirement, runs: list[FinishedRun]) -> dict[str, Any]:
    """Returns the requirement, its value in each run, and whether every run fulfils it.

    Metrics are those at the best validation step. Raises ConfigError if a run has not measured the
    metric.
    """
    values = {str(run.directory): _value(requirement, run) for run in runs}
    return {
        "requirement": requirement.text,
        "holds": all(requirement.holds(value) for value in values.values()),
        "values": values,
    }


def outcome(checked: dict[str, Any]) -> str:
    """Returns, as a line of text, whether a checked requirement holds, with its extreme values."""
    lowest, highest = min(checked["values"].values()), max(checked["values"].values())
    values = f"{lowest:.4f}" + (f" to {highest:.4f}" if highest > lowest else "")
    verb = "holds" if checked["holds"] else "does not hold"
    return f"{plain(checked['requirement'])} {verb}: {values}"


def _number(text: str) -> float | None:
    try:
        number = float(text)
    except ValueError:
        return None
    return number if math.isfinite(number) else None


def _value(requirement: Requirement, run: FinishedRun) -> float:
    splits: dict[str, Any] = run.results["best"]["metrics"]
    if requirement.split not in splits:
        raise _unmeasured(requirement, run, "splits", requirement.split, list(splits))
    metrics: dict[str, Any] = splits[requirement.split]
    value = metrics.get(requirement.metric)
    if value is None:
        value = _nested(metrics, requirement.metric)
    if isinstance(value, bool) or not isinstance(value, int | float):
        names = [name for name, number in metrics.items() if isinstance(number, float)]
        raise _unmeasured(requirement, run, "metrics", requirement.metric, names)
    return float(value)


def _nested(values: Any, path: str) -> Any:
    """Returns the value at a dotted path; a key may itself have dots, as a label may."""
    if not isinstance(values, dict):
        return None
    for key, value in values.items():
        if key == path:
            return value
        if path.startswith(f"{key}."):
            inside = _nested(value, path[len(key) + 1 :])
            if inside is not None:
                return inside
    return None


def _unmeasured(
    requirement: Requirement, run: FinishedRun, kind: str, name: str, known: list[str]
) -> ConfigError:
    near = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    return ConfigError(
        f"--require {excerpt(requirement.text)}: {run.directory} has no {excerpt(name)}",
        key="--require",
        value=requirement.text,
        hint=f"did you mean {near[0]}?" if near else f"its {kind} are {listed(known)}",
    )
