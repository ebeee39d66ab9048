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
    from trainer.doctor.micro_batch import expected_micro_batch
    from trainer.engines.micro_batch import accumulation
    from trainer.engines.precision import resolve_precision
    from trainer.tracking.trackers import check_installed

    check_mode(recipe)
    check_installed(recipe.tracking.trackers)
    batch, num_ranks = recipe.batch, whole_number("WORLD_SIZE", 1)
    precision, expected = resolve_precision(recipe.precision), expected_micro_batch(recipe)
    size, reason = expected.size, f" ({expected.reason})" if expected.reason else ""
    steps = accumulation(recipe, size, num_ranks)
    processes = f"{num_ranks} process{'es' * (num_ranks > 1)}"
    yield Finding(
        "launch",
        "fine",
        f"{precision}, {batch.global_batch_size} examples a step = {processes} x "
        f"micro-batch {size} x accumulation {steps}{reason}",
        None,
        {"precision": precision, "micro_batch_size": size, "accumulation": steps},
    )
