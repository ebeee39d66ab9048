"""Steps that were left out or taught nothing: skipped, not finite, or without a learning rate."""

import math
from collections.abc import Mapping
from typing import Any, cast

from trainer.metrics.numbers import finite
from trainer.report.diagnosis.measured import last_step, mapping, measured, training_lines
from trainer.report.recorded import RecordedRun
from trainer.tasks.finding import Finding
from trainer.wording import listed

MANY_SKIPPED = 0.05
"""Share of skipped steps from which a run is doubtful; a few are how fp16 finds its loss scale."""


def about_training(run: RecordedRun) -> list[Finding]:
    """Returns what kept steps of a run from being learned from."""
    return [
        *_not_finite(run),
        *_learning_rate(run),
        *_warm_up(run),
        *_without_gradient(run),
        *_zero_adapters(run),
        *_skipped(run),
    ]


def _not_finite(run: RecordedRun) -> list[Finding]:
    """Returns the numbers that are infinite or not a number: in steps, as JSON's null, and in
    metrics."""
    lines = list(training_lines(run))
    skips = bool(finite(run.results.get("skipped_steps")))
    names = ("loss",) if skips else ("loss", "grad_norm")
    steps = [line for line in lines if any(n in line and finite(line[n]) is None for n in names)]
    metrics = [
        f"{one.split} {name} ({one.column})"
        for one in measured(run.results)
        for name, value in one.metrics.items()
        if isinstance(value, float) and not math.isfinite(value)
    ]
    if not steps and not metrics:
        return []
    where = [f"{len(steps):,} of {len(lines):,} logged steps"] * bool(steps) + metrics
    return [
        Finding(
            code="not-finite",
            message=f"a loss, gradient or metric is infinite or not a number: {listed(where, 4)}",
            advice="lower optimizer.learning_rate or optimizer.max_grad_norm, or use bf16 or fp32",
            figures={"steps": len(steps), "metrics": len(metrics)},
            severity="wrong",
        )
    ]


def _learning_rate(run: RecordedRun) -> list[Finding]:
    peak = finite(mapping(run.recipe, "optimizer").get("learning_rate"))
    logged = [finite(line.get("learning_rate")) for line in training_lines(run)]
    if peak != 0 and (not logged or any(rate != 0 for rate in logged)):
        return []
    return [
        Finding(
            code="zero-learning-rate",
            message="the learning rate is 0 in every step: no weight has changed",
            advice="set optimizer.learning_rate",
            figures={"learning_rate": 0.0},
            severity="wrong",
        )
    ]


def _warm_up(run: RecordedRun) -> list[Finding]:
    schedule, steps = mapping(run.recipe, "schedule"), last_step(run)
    planned, ratio = finite(schedule.get("steps")), finite(schedule.get("warmup_ratio"))
    rising = finite(schedule.get("warmup_steps"))
    if rising is None and ratio is not None:
        length = planned if planned is not None else steps
        rising = None if length is None else math.ceil(min(ratio, 1.0) * length)
    if rising is None or not steps or rising < steps:
        return []
    return [
        Finding(
            code="endless-warm-up",
            message=f"the warm-up takes {rising:,.0f} steps and the run has {steps:,.0f}: the "
            f"learning rate never reached its peak",
            advice="set schedule.warmup_ratio, such as 0.06, or train longer",
            figures={"warmup_steps": rising, "steps": steps},
        )
    ]


def _without_gradient(run: RecordedRun) -> list[Finding]:
    names = _names(mapping(run.results, "learned"), "without_gradient")
    if not names:
        return []
    return [
        Finding(
            code="no-gradient",
            message=f"trainable parameters never got a gradient: {listed(names, 4)}",
            advice="freeze them, or check that the loss depends on them; the A of LoRA has its "
            "first gradient in the second step",
            figures={"names": len(names)},
        )
    ]


def _zero_adapters(run: RecordedRun) -> list[Finding]:
    names = _names(mapping(run.results, "learned"), "zero_adapters")
    if not names:
        return []
    return [
        Finding(
            code="zero-adapters",
            message=f"adapters add nothing, because their B is still 0: {listed(names, 4)}",
            advice="raise optimizer.learning_rate, train longer, or adapt only layers that the "
            "model calls",
            figures={"names": len(names)},
        )
    ]


def _names(learned: Mapping[str, Any], key: str) -> list[str]:
    names = learned.get(key)
    return [str(name) for name in cast(list[Any], names)] if isinstance(names, list) else []


def _skipped(run: RecordedRun) -> list[Finding]:
    skipped, steps = finite(run.results.get("skipped_steps")), last_step(run)
    if not skipped or skipped < 0:
        return []
    of = f" of {steps:,.0f}" if steps else ""
    many = not steps or skipped > MANY_SKIPPED * steps
    return [
        Finding(
            code="skipped-steps",
            message=f"{skipped:,.0f}{of} steps were skipped, because their gradient overflowed",
            advice="use precision: bf16 or fp32, or lower optimizer.learning_rate",
            figures={"skipped": skipped, **({"steps": steps} if steps else {})},
            severity="doubtful" if many else "note",
        )
    ]
