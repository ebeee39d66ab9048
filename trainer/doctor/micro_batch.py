"""The micro-batch that a run on this machine will take."""

from typing import TYPE_CHECKING

from trainer.recipe.schema import Recipe

if TYPE_CHECKING:
    from trainer.planning.micro_batch import MicroBatch


def expected_micro_batch(recipe: Recipe) -> "MicroBatch":
    """Returns the micro-batch of a run on this machine's GPU, or on its CPU, without a network.

    Raises ConfigError if the global batch does not divide by it.
    """
    from trainer.distributed.environment_variables import whole_number
    from trainer.doctor.offline import without_network
    from trainer.planning.launches import planned_launch
    from trainer.planning.micro_batch import micro_batch_on
    from trainer.planning.target import local_gpu

    launch = planned_launch(None, whole_number("WORLD_SIZE", 1))
    with without_network():
        return micro_batch_on(recipe, local_gpu(), launch)
