"""The learning rate schedule: a pure function of the step, without state to checkpoint."""

import math

from trainer.recipe.training import Schedule


def total_steps(schedule: Schedule, steps_per_epoch: int) -> int:
    """Returns the number of optimizer steps of the whole run."""
    return schedule.steps or (schedule.epochs or 0) * steps_per_epoch


def warmup_steps(schedule: Schedule, num_steps: int) -> int:
    """Returns the number of optimizer steps of the warm-up, in which the learning rate rises."""
    if schedule.warmup_ratio is not None:
        return math.ceil(schedule.warmup_ratio * num_steps)
    return min(schedule.warmup_steps or 0, num_steps)


def learning_rate(step: int, *, peak: float, schedule: Schedule, num_steps: int) -> float:
    """Returns the learning rate of optimizer step `step`, from 0, out of `num_steps`.

    In the warm-up it rises linearly and reaches `peak` in the step after. From there it is
    constant, falls linearly or falls as half a cosine; the step after the last would have 0.
    """
    rising = warmup_steps(schedule, num_steps)
    if step < rising:
        return peak * (step + 1) / (rising + 1)
    done = (step - rising) / max(1, num_steps - rising)
    if schedule.name == "constant":
        return peak
    if schedule.name == "linear":
        return peak * (1 - done)
    return peak * 0.5 * (1 + math.cos(math.pi * done))
