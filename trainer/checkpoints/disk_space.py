"""The disk that a run needs: estimated, and refused before the first step where it cannot fit."""

import os
import shutil
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from trainer.errors import CheckpointError
from trainer.recipe import schema
from trainer.wording import format_bytes

if TYPE_CHECKING:
    from torch import nn

MOMENTS_8BIT_FROM = 4096
"""Weights of the smallest tensor whose moments bitsandbytes keeps in 8 bits."""


@dataclass(frozen=True)
class CheckpointSize:
    """Bytes of one checkpoint."""

    weights: int
    moments: int

    @property
    def total(self) -> int:
        return self.weights + self.moments


def checkpoint_size(
    parameters: Iterable["nn.Parameter"], optimizer: schema.Optimizer
) -> CheckpointSize:
    """Returns what a checkpoint of the parameters that learn takes, before an engine shards them.

    Weights are saved in fp32, and moments as the optimizer keeps them.
    """
    sizes = [parameter.numel() for parameter in parameters]
    return CheckpointSize(4 * sum(sizes), sum(_moment_bytes(size, optimizer) for size in sizes))


def check_disk_space(
    directory: Path,
    size: CheckpointSize,
    settings: schema.Checkpoint,
    *,
    num_epochs: int,
    model_bytes: int,
) -> str:
    """Returns, as a sentence, what a run is about to need on the disk, and what is free.

    The checkpoints that it has already count as there. Raises CheckpointError where it cannot fit.
    """
    num_light = settings.keep_best + settings.every_epoch * num_epochs
    whole = (settings.keep_last + 1) * size.total  # one more while it is written
    needed = whole + num_light * size.weights + model_bytes
    there = sum(map(bytes_in, (directory / "checkpoints").glob("step-*")))
    free = shutil.disk_usage(directory).free
    if needed - there > free:
        raise CheckpointError(
            f"this run needs about {format_bytes(needed - there)} more in {directory}, for "
            f"{settings.keep_last + 1} checkpoints of {format_bytes(size.total)} at a time and the "
            f"model of {format_bytes(model_bytes)}, and {format_bytes(free)} are free; free space, "
            f"lower checkpoint.keep_last, or choose another --run-dir"
        )
    sizes = [format_bytes(number) for number in (size.total, needed, free)]
    return f"checkpoints of {sizes[0]}, {sizes[1]} in all, {sizes[2]} free"


def bytes_in(folder: Path) -> int:
    """Returns the bytes of all files in a folder, of which some may be going meanwhile."""
    total = 0
    for place, _, names in os.walk(folder):
        for name in names:
            with suppress(OSError):
                total += (Path(place) / name).stat().st_size
    return total


def _moment_bytes(num_weights: int, optimizer: schema.Optimizer) -> int:
    if optimizer.name == "sgd":
        return 4 * num_weights if optimizer.momentum else 0
    if optimizer.name == "adamw" or num_weights < MOMENTS_8BIT_FROM:
        return 8 * num_weights
    # Two moments of a byte, their scales for each 256 weights, and two tables of 256 values.
    return 2 * (num_weights + 4 * -(-num_weights // 256) + 4 * 256)
