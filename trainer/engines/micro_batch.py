"""How the global batch is cut into micro-batches, on any number of processes."""

from trainer.errors import ConfigError
from trainer.recipe.schema import Recipe

AUTO_MICRO_BATCH = 16


def resolve_micro_batch_size(global_size: int, asked: int | str, world_size: int) -> int:
    """Returns the micro-batch size; `auto` is the largest up to 16 that divides.

    Raises ConfigError, with the nearest sizes, where world size or micro-batch do not divide.
    """
    if global_size % world_size:
        below = global_size // world_size * world_size
        near = [size for size in (below, below + world_size) if size > 0]
        raise ConfigError(
            f"batch.global_batch_size: {global_size} is not divided by {world_size} processes; use "
            f"{' or '.join(map(str, near))}"
        )
    share = global_size // world_size
    divisors = [size for size in range(1, share + 1) if share % size == 0]
    if asked == "auto":
        return max(size for size in divisors if size <= AUTO_MICRO_BATCH)
    if asked not in divisors:
        below = [size for size in divisors if size < int(asked)][-1:]
        above = [size for size in divisors if size > int(asked)][:1]
        raise ConfigError(
            f"batch.micro_batch_size: {asked} does not divide global_batch_size={global_size} over "
            f"{world_size} processes; use {' or '.join(map(str, below + above))}"
        )
    return int(asked)


def accumulation(recipe: Recipe, micro_batch_size: int, world_size: int) -> int:
    """Returns how many micro-batches of one process make an optimizer step."""
    return recipe.batch.global_batch_size // (micro_batch_size * world_size)
