"""Cuts the global batch into micro-batches, on any number of processes."""

from trainer.errors import ConfigError
from trainer.recipe.schema import Recipe

AUTO_MICRO_BATCH = 16


def resolve_micro_batch_size(global_size: int, requested: int | str, world_size: int) -> int:
    """Returns the micro-batch size; `auto` is the largest up to 16 that divides a process's share.

    Raises ConfigError, which names the nearest sizes, if `world_size` does not divide
    `global_size`, or `requested` does not divide the share.
    """
    if global_size % world_size:
        below = global_size // world_size * world_size
        near = [size for size in (below, below + world_size) if size > 0]
        raise ConfigError(
            f"batch.global_batch_size: {global_size} is not divisible by {world_size} processes",
            key="batch.global_batch_size",
            value=global_size,
            hint=f"use {' or '.join(map(str, near))}",
        )
    share = global_size // world_size
    divisors = [size for size in range(1, share + 1) if share % size == 0]
    if requested == "auto":
        return max(size for size in divisors if size <= AUTO_MICRO_BATCH)
    if requested not in divisors:
        below = [size for size in divisors if size < int(requested)][-1:]
        above = [size for size in divisors if size > int(requested)][:1]
        raise ConfigError(
            f"batch.micro_batch_size: {requested} does not divide global_batch_size={global_size} "
            f"over {world_size} processes",
            key="batch.micro_batch_size",
            value=requested,
            hint=f"use {' or '.join(map(str, below + above))}",
        )
    return int(requested)


def accumulation(recipe: Recipe, micro_batch_size: int, world_size: int) -> int:
    """Returns the number of micro-batches that a process accumulates in an optimizer step."""
    return recipe.batch.global_batch_size // (micro_batch_size * world_size)
