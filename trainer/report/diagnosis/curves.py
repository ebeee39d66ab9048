"""The course of the evaluations: flat, worse from the beginning, best at the end or long before."""

import math

from trainer.metrics.numbers import finite
from trainer.report.diagnosis.measured import Measured, deciding, evaluations, last_step, mapping
from trainer.report.recorded import RecordedRun
from trainer.tasks.classification.diagnosis import GUESSING
from trainer.tasks.finding import Finding

WORSE = 0.02
"""Share of the first loss by which a later one must be above it to be worse."""
STILL_RISING = 0.05
"""Share of the whole improvement that the last evaluation must add for a run to be unfinished."""
EARLY = 0.5
"""Share of the steps before which the best one is long before the last."""


def about_curves(run: RecordedRun) -> list[Finding]:
    """Returns what the evaluations of the validation split, one after the other, say of a run."""
    evaluated = evaluations(run)
    overfit = _overfit(evaluated)
    return [
        *_flat(run, [one for _, one in evaluated]),
        *overfit,
        *([] if overfit else _early_best(run)),
        *_unfinished(run, evaluated),
    ]


def _num_classes(run: RecordedRun, one: Measured) -> int | None:
    """Returns the number of classes of a classifier, None for other tasks."""
    labels = mapping(run.recipe, "task").get("labels")
    for classes in (one.metrics.get("per_class"), labels):
        if isinstance(classes, dict | list) and len(classes) > 1:
            return len(classes)
    return 2 if {"precision", "recall"} <= one.metrics.keys() else None


def _flat(run: RecordedRun, evaluated: list[Measured]) -> list[Finding]:
    losses = _losses(evaluated)
    classes = _num_classes(run, evaluated[0]) if len(losses) > 1 else None
    if classes is None or any(abs(loss - math.log(classes)) >= GUESSING for loss in losses):
        return []
    return [
        Finding(
            code="guessing-throughout",
            message=f"the loss stays at ln {classes} = {math.log(classes):.4f}, that of guessing, "
            f"in all {len(losses)} evaluations: nothing is learned",
            advice="check that texts and labels belong together, and try another learning rate",
            figures={"lowest": min(losses), "highest": max(losses), "classes": classes},
            split="validation",
        )
    ]


def _losses(evaluated: list[Measured]) -> list[float]:
    """Returns the loss of each evaluation; empty if any has none."""
    losses = [one.number("loss") for one in evaluated]
    known = [loss for loss in losses if loss is not None]
    return known if len(known) == len(losses) else []


def _overfit(evaluated: list[tuple[int, Measured]]) -> list[Finding]:
    losses = _losses([one for _, one in evaluated])
    if len(losses) < 2 or min(losses[1:]) <= losses[0]:
        return []
    if losses[-1] <= losses[0] + WORSE * abs(losses[0]):
        return []
    return [
        Finding(
            code="overfit-from-start",
            message=f"the loss is lowest at the first evaluation, {losses[0]:.4f} after step "
            f"{evaluated[0][0]:,}, and {losses[-1]:.4f} at the last: the model memorises its "
            f"training examples",
            advice="train fewer epochs, lower optimizer.learning_rate, or use more examples",
            figures={"first": losses[0], "last": losses[-1]},
            split="validation",
        )
    ]


def _early_best(run: RecordedRun) -> list[Finding]:
    best, last = finite(mapping(run.results, "best").get("step")), last_step(run)
    if best is None or not last or run.results.get("model") == "final" or best >= EARLY * last:
        return []
    return [
        Finding(
            code="early-best",
            message=f"the best step is {best:,.0f} of {last:,.0f}: the later ones made it no "
            f"better",
            advice="train fewer steps, so that the learning rate falls sooner, or set "
            "evaluation.patience",
            figures={"best": best, "last": last},
            severity="note",
        )
    ]


def _unfinished(run: RecordedRun, evaluated: list[tuple[int, Measured]]) -> list[Finding]:
    """Returns whether the deciding metric still improves at the last evaluation."""
    metric, more_is_better = deciding(run)
    values = [one.number(metric) for _, one in evaluated]
    known = [value for value in values if value is not None]
    if len(known) < 3 or len(known) < len(values):
        return []
    sign = 1 if more_is_better else -1
    gains = [sign * value for value in known]
    whole, last = gains[-1] - gains[0], gains[-1] - max(gains[:-1])
    if last <= 0 or last < STILL_RISING * whole:
        return []
    return [
        Finding(
            code="unfinished",
            message=f"{metric} is best at the last evaluation, {known[-1]:.4f}, and improved by "
            f"{last:.4f} in it: the run may not be finished",
            advice="raise schedule.epochs or schedule.steps",
            figures={"best": known[-1], "improvement": last},
            split="validation",
            severity="note",
        )
    ]
