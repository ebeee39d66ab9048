"""What a run reports before its first step: its size, its data, its steps and its disk space."""

from accelerate import Accelerator

from trainer.checkpoints.disk_space import check_disk_space
from trainer.distributed.collectives import on_main
from trainer.engines.micro_batch import accumulation
from trainer.engines.precision import COMPUTE_DTYPES
from trainer.run import Run


def summary(run: Run, accelerator: Accelerator) -> str:
    """Returns a line each on directory, parameters, examples and steps."""
    ranks, counts = run.topology.dp_size, run.parameter_counts
    steps = accumulation(run.recipe, run.micro_batch_size, ranks)
    rows = ", ".join(f"{len(split):,} {name}" for name, split in run.splits.items())
    lines = [
        f"{run.directory}",
        f"  {counts.total:,} parameters, {counts.trainable:,} trainable, "
        f"tuning {run.recipe.tuning.mode}",
        f"  {rows} examples",
        f"  {run.num_steps} steps of {run.recipe.batch.global_batch_size} = "
        f"{ranks} process(es) x {run.micro_batch_size} x {steps}, "
        f"{run.precision} on {accelerator.device.type}",
    ]
    return "\n".join(lines)


def disk_space(run: Run, accelerator: Accelerator) -> str:
    """Returns a clause on the disk space that the run needs and what is free, on every rank.

    Raises CheckpointError if it does not fit.
    """
    full = run.recipe.tuning.mode == "full"
    itemsize = 4 if full else COMPUTE_DTYPES[run.precision].itemsize
    return on_main(
        accelerator,
        lambda: check_disk_space(
            run.directory,
            run.checkpoint_size,
            run.recipe.checkpoint,
            num_epochs=-(-run.num_steps // run.order.steps_per_epoch),
            model_bytes=itemsize * run.parameter_counts.total,
        ),
    )
