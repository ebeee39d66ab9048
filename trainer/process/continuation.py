"""Continuation: whether a run can train longer than planned, with the same steps as a run that was
planned that long."""

from pathlib import Path

from trainer.errors import RunDirectoryError
from trainer.recipe.schema import Recipe
from trainer.schedule import total_steps, warmup_steps
from trainer.state import TrainState

LENGTH = ("schedule.epochs", "schedule.steps")
PATIENCE = "evaluation.patience"


def may_continue(key: str, earlier: Recipe, recipe: Recipe) -> bool:
    """Returns whether a run may continue with another value of `key`, which decides its length."""
    if key == PATIENCE:
        old, new = earlier.evaluation.patience, recipe.evaluation.patience
        return old is not None and (new is None or new > old)
    return key in LENGTH and recipe.schedule.name == "constant"


def instead(directory: Path) -> str:
    """Returns a hint on how to start a new run from the weights of this one."""
    return (
        f"to continue from its weights, with new moments, set model.name_or_path: "
        f"{directory / 'model'} (which exists once the run has ended) and another --run-dir"
    )


def check_length(
    directory: Path,
    earlier: Recipe,
    recipe: Recipe,
    state: TrainState,
    *,
    num_steps: int,
    steps_per_epoch: int,
) -> None:
    """Raises RunDirectoryError unless a run of `num_steps` would have taken the same steps so far.

    `earlier` is the recipe with which they were taken.
    """
    patience = recipe.evaluation.patience
    before = total_steps(earlier.schedule, steps_per_epoch)
    if num_steps < state.step:
        length = recipe.schedule.model_dump(include={"epochs", "steps"}, exclude_none=True)
        settings = ", ".join(f"schedule.{key}={value}" for key, value in length.items())
        raise RunDirectoryError(
            f"{directory} has taken {state.step} steps, and {settings} asks for {num_steps}",
            key=f"schedule.{next(iter(length))}",
            value=next(iter(length.values())),
            hint="give as many or more, or choose another --run-dir",
        )
    if num_steps == before:
        return
    old, new = (warmup_steps(recipe.schedule, number) for number in (before, num_steps))
    if state.step and old != new:
        raise RunDirectoryError(
            f"{directory} has warmed up over {old} of {before} steps, and {num_steps} steps would "
            f"warm up over {new}, with other learning rates (schedule.warmup_ratio)",
            key="schedule.warmup_ratio",
            value=recipe.schedule.warmup_ratio,
            hint=instead(directory),
        )
    if patience is not None and state.num_evaluations_since_best >= patience:
        raise RunDirectoryError(
            f"{directory} stopped after {patience} evaluations without a better one, whatever its "
            f"length",
            key="evaluation.patience",
            value=patience,
            hint="also raise evaluation.patience, or set it to null, to continue",
        )
