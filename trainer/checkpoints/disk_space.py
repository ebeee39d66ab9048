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


@dataclass(frozen=True, kw_only=True)
class KeptCheckpoints:
    """How many checkpoints a run has at the same time, at most."""

    resumable: int
    """Those that a run can resume from, with the one that is being written."""
    light: int
    """Those that hold weights alone."""

    def bytes(self, size: CheckpointSize) -> int:
        """Returns the bytes of all of them."""
        return self.resumable * size.total + self.light * size.weights


def kept_checkpoints(settings: Checkpoint, num_epochs: int) -> KeptCheckpoints:
    """Returns how many checkpoints a run of some epochs keeps."""
    light = settings.keep_best + settings.every_epoch * num_epochs
    return KeptCheckpoints(resumable=settings.keep_last + 1, light=light)


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
    kept = kept_checkpoints(settings, num_epochs)
    needed = kept.bytes(size) + model_bytes
    existing = sum(map(bytes_in, (directory / "checkpoints").glob("step-*")))
    there = next(place for place in (directory, *directory.parents) if place.exists())
    free = shutil.disk_usage(there).free
    if needed - existing > free:
        raise CheckpointError(
            f"this run needs about {format_bytes(needed - existing)} more in {directory}, for "
            f"{kept.resumable} checkpoints of {format_bytes(size.total)} at a time and the "
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
