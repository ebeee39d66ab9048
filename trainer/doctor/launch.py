"""What the launch and the recipe decide together."""

from collections.abc import Iterator

from trainer.doctor.finding import Finding
from trainer.recipe.schema import Recipe


def about_launch(recipe: Recipe) -> Iterator[Finding]:
    """Yields precision and micro-batch of a recipe on this machine.

    Raises ConfigError if the recipe cannot be trained so.
    """
    from trainer.assembly.deciding_metric import check_mode
    from trainer.distributed.environment_variables import whole_number
    from trainer.engines.micro_batch import accumulation, resolve_micro_batch_size
    from trainer.engines.precision import resolve_precision
    from trainer.tracking.trackers import check_installed

    check_mode(recipe)
    check_installed(recipe.tracking.trackers)
    batch, num_ranks = recipe.batch, whole_number("WORLD_SIZE", 1)
    size = resolve_micro_batch_size(batch.global_batch_size, batch.micro_batch_size, num_ranks)
    precision, steps = resolve_precision(recipe.precision), accumulation(recipe, size, num_ranks)
    yield Finding(
        "launch",
        "fine",
        f"{precision}, {batch.global_batch_size} examples a step = {num_ranks} "
        f"process{'es' * (num_ranks > 1)} x micro-batch {size} x accumulation {steps}",
        None,
        {"precision": precision, "micro_batch_size": size, "accumulation": steps},
    )
