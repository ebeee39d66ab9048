"""The micro-batch of a run on a GPU: the largest that divides and fits."""

from trainer.engines.micro_batch import resolve_micro_batch_size
from trainer.models.architecture import shape_config
from trainer.planning.fit import divisors, last_fitting
from trainer.planning.gpus import Gpu
from trainer.planning.launches import PlannedLaunch
from trainer.planning.lengths import prepared_lengths
from trainer.planning.memories import Memories
from trainer.planning.target import precision_on
from trainer.recipe.schema import Recipe


def micro_batch_on(recipe: Recipe, gpu: Gpu, launch: PlannedLaunch) -> tuple[int, str]:
    """Returns the micro-batch size of a recipe on a GPU, and a sentence on how it was chosen, empty
    if the recipe gives it.

    `auto` is the largest that divides and fits. Raises ConfigError as `plan` does.
    """
    if recipe.batch.micro_batch_size != "auto":
        return _resolved(recipe, launch), ""
    memories = Memories(
        recipe,
        shape_config(recipe.model),
        launch,
        precision_on(gpu, recipe.precision),
        prepared_lengths(recipe),
    )
    return chosen(memories, gpu)


def chosen(memories: Memories, gpu: Gpu | None) -> tuple[int, str]:
    """Returns the micro-batch size, and a sentence on how it was chosen, empty if the recipe gives
    it or no GPU is.

    Raises ConfigError if the global batch does not divide by it.
    """
    recipe, launch = memories.recipe, memories.launch
    known = _resolved(recipe, launch)
    if recipe.batch.micro_batch_size != "auto" or gpu is None:
        return known, ""
    share, length = share_of(recipe, launch), memories.lengths.longest

    def needed(size: int) -> int:
        return memories.process(size, length, gpu)[1]

    size = last_fitting(divisors(share), needed, gpu.memory, [known])
    if size is None:
        return 1, f"not even one example of {length} tokens fits into a {gpu.name}"
    return size, (
        f"micro_batch_size: auto is {size}, the largest that divides {share} and fits with "
        f"{length} tokens into a {gpu.name}"
    )


def share_of(recipe: Recipe, launch: PlannedLaunch) -> int:
    """Returns the examples of a process in a step."""
    return recipe.batch.global_batch_size // launch.processes


def _resolved(recipe: Recipe, launch: PlannedLaunch) -> int:
    """Returns the size as a run without a plan resolves it."""
    batch = recipe.batch
    return resolve_micro_batch_size(
        batch.global_batch_size, batch.micro_batch_size, launch.processes
    )
