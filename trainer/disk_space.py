"""The disk that a run needs: estimated, and refused before the first step where it cannot fit."""

import shutil
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from torch import nn

from trainer import config
from trainer.errors import CheckpointError

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
    parameters: Iterable[nn.Parameter], optimizer: config.Optimizer
) -> CheckpointSize:
    """Returns what a checkpoint of the parameters that learn takes, before an engine shards them.

    Weights are saved in fp32, and moments as the optimizer keeps them.
    """
    sizes = [parameter.numel() for parameter in parameters]
    return CheckpointSize(4 * sum(sizes), sum(_moment_bytes(size, optimizer) for size in sizes))


def check_disk_space(
    directory: Path,
    size: CheckpointSize,
    settings: config.Checkpoint,
    *,
    num_epochs: int,
    model_bytes: int,
) -> str:
    """Returns, as a sentence, what a run is about to need on the disk, and what is free.

    What its directory holds already counts as there. Raises CheckpointError where it cannot fit.
    """
    num_light = settings.keep_best + settings.every_epoch * num_epochs
    whole = (settings.keep_last + 1) * size.total  # one more while it is written
    needed = whole + num_light * size.weights + model_bytes
    there = bytes_in(directory / "checkpoints") + bytes_in(directory / "model")
    free = shutil.disk_usage(directory).free
    if needed - there > free:
        raise CheckpointError(
            f"this run needs about {spoken(needed - there)} in {directory} "
            f"({settings.keep_last + 1} checkpoints of {spoken(size.total)} at a time, the model "
            f"of {spoken(model_bytes)}), where {spoken(free)} are free; free space, lower "
            f"checkpoint.keep_last, or choose another --run-dir"
        )
    return f"checkpoints of {spoken(size.total)}, {spoken(needed)} in all, {spoken(free)} free"


def spoken(num_bytes: float) -> str:
    """Returns bytes as a sentence has them, such as 1.2 GB."""
    for unit in ("bytes", "kB", "MB", "GB"):
        if num_bytes < 1000:
            return f"{num_bytes:.3g} {unit}"
        num_bytes /= 1000
    return f"{num_bytes:.3g} TB"


def bytes_in(folder: Path) -> int:
    """Returns the bytes of all files in a folder; a symbolic link to a folder is none of them."""
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())


def _moment_bytes(num_weights: int, optimizer: config.Optimizer) -> int:
    if optimizer.name == "sgd":
        return 4 * num_weights if optimizer.momentum else 0
    if optimizer.name == "adamw" or num_weights < MOMENTS_8BIT_FROM:
        return 8 * num_weights
    # Two moments of a byte, their scales for each 256 weights, and two tables of 256 values.
    return 2 * (num_weights + 4 * -(-num_weights // 256) + 4 * 256)
