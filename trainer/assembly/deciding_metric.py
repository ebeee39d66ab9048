"""The metric that decides which step is best, checked against task, rows and recipe."""

from typing import TYPE_CHECKING

from trainer.errors import ConfigError
from trainer.recipe.schema import Recipe
from trainer.tasks.base import Task

if TYPE_CHECKING:
    from datasets import Dataset


def check_mode(recipe: Recipe) -> None:
    """Raises ConfigError if a new run would keep its worst step."""
    problem = keeps_worst(recipe)
    if problem is not None:
        raise ConfigError(
            f"evaluation.mode: {problem}", key="evaluation.mode", value="min", hint="set mode: max"
        )


def keeps_worst(recipe: Recipe) -> str | None:
    """Returns a clause if `mode: min` takes the smallest value of a metric that should be large."""
    metric, mode = recipe.evaluation.metric, recipe.evaluation.mode
    if mode == "max" or recipe.task.best_is_smallest(metric):
        return None
    return f"min takes the step with the smallest {metric}, which is the worst, as the best"


def check_metric(recipe: Recipe, task: Task, rows: "dict[str, Dataset]") -> None:
    """Raises ConfigError if the task does not offer the metric, if it cannot be measured on the
    validation rows, or if `evaluation.mode` would take its worst value."""
    settings = recipe.evaluation
    metric = settings.metric
    if metric not in task.metrics_offered:
        raise ConfigError(
            f"evaluation.metric: {metric!r} is not one of {', '.join(task.metrics_offered)}",
            key="evaluation.metric",
            value=metric,
        )
    if recipe.task.best_is_smallest(metric) and settings.mode == "max":
        raise ConfigError(
            f"evaluation.mode: the best {metric} is the smallest",
            key="evaluation.mode",
            value=settings.mode,
            hint="set mode: min",
        )
    reason = task.why_not_measurable(metric, rows["validation"]) if "validation" in rows else None
    if reason is not None:
        raise ConfigError(
            f"evaluation.metric: {metric} cannot be measured on the validation split: {reason}",
            key="evaluation.metric",
            value=metric,
            hint="choose another, or another data.split.validation",
        )
    if settings.patience is not None and "validation" not in rows:
        raise ConfigError(
            "evaluation.patience needs a validation split",
            key="evaluation.patience",
            value=settings.patience,
            hint="set data.split.validation",
        )
