"""Whether the engine of a launch can train a recipe."""

from trainer.engines.deepspeed import check_zero_trains
from trainer.engines.fsdp2 import check_fsdp2_trains
from trainer.engines.precision import Precision
from trainer.errors import ConfigError
from trainer.planning.launches import PlannedLaunch
from trainer.planning.process_memory import ZERO
from trainer.recipe.schema import Recipe


def check_trainable(recipe: Recipe, launch: PlannedLaunch, precision: Precision) -> None:
    """Raises ConfigError, as a run would, if an engine cannot train a recipe."""
    if launch.engine in ZERO:
        check_zero_trains(recipe)
    elif launch.engine == "fsdp2":
        check_fsdp2_trains(recipe, precision)


def is_trainable(recipe: Recipe, launch: PlannedLaunch, precision: Precision) -> bool:
    """Returns whether an engine can train a recipe."""
    try:
        check_trainable(recipe, launch, precision)
    except ConfigError:
        return False
    return True
