"""The disk space of a run, estimated before its first step; a run that cannot fit is refused."""

import math
import os
import shutil
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from trainer.errors import CheckpointError
from trainer.optim import OPTIMIZERS
from trainer.recipe.training import Checkpoint, Optimizer
from trainer.wording import format_bytes

if TYPE_CHECKING:
    from torch import nn


@dataclass(frozen=True)
class CheckpointSize:
    """Bytes of one checkpoint."""

    weights: int
    moments: int

    @property
    def total(self) -> int:
        """Bytes of a checkpoint that a run can resume from."""
        return self.weights + self.moments


def checkpoint_size(parameters: Iterable["nn.Parameter"], optimizer: Optimizer) -> CheckpointSize:
    """Returns the size of a checkpoint of these trainable parameters, which must not be sharded.

    Weights are saved in fp32, moments in the types that the optimizer keeps.
    """
    kind = OPTIMIZERS[optimizer.name]
    shapes = [tuple(parameter.shape) for parameter in parameters]
    return CheckpointSize(
        weights=4 * sum(math.prod(shape) for shape in shapes),
        moments=sum(kind.moment_bytes(shape, optimizer) for shape in shapes),
    )


def check_disk_space(
    directory: Path,
    size: CheckpointSize,
    settings: Checkpoint,
    *,
    num_epochs: int,
    model_bytes: int,
) -> str:
    """Returns a clause on the space that a run needs in its directory, and the space that is free.

    The run replaces the checkpoints that exist, so their space counts as available. Raises
    CheckpointError if the space does not suffice.
    """
    num_light = settings.keep_best + settings.every_epoch * num_epochs
    resumable = (settings.keep_last + 1) * size.total  # one more while the next is written
    needed = resumable + num_light * size.weights + model_bytes
    existing = sum(map(bytes_in, (directory / "checkpoints").glob("step-*")))
    free = shutil.disk_usage(directory).free
    if needed - existing > free:
        raise CheckpointError(
            f"this run needs about {format_bytes(needed - existing)} more in {directory}, for "
            f"{settings.keep_last + 1} checkpoints of {format_bytes(size.total)} at a time and the "
            f"model of {format_bytes(model_bytes)}, and {format_bytes(free)} are free",
            key="checkpoint.keep_last",
            value=settings.keep_last,
            hint="free space, lower checkpoint.keep_last, or choose another --run-dir",
        )
    return (
        f"checkpoints of {format_bytes(size.total)}, {format_bytes(needed)} in all, "
        f"{format_bytes(free)} free"
    )


def bytes_in(folder: Path) -> int:
    """Returns the bytes of all files below a folder, some of which may disappear meanwhile."""
    total = 0
    for place, _, names in os.walk(folder):
        for name in names:
            with suppress(OSError):
                total += (Path(place) / name).stat().st_size
    return total
