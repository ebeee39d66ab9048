"""The Accelerator of a run: the processes that were promised, and a precision they can compute."""

import importlib.util
import os
from datetime import timedelta
from pathlib import Path
from typing import Literal

import torch
from accelerate import Accelerator
from accelerate.utils import (
    DistributedDataParallelKwargs,
    DistributedType,
    InitProcessGroupKwargs,
    ProjectConfiguration,
)

from trainer.config import Recipe
from trainer.errors import ConfigError, LaunchError

Precision = Literal["fp32", "bf16", "fp16"]

AUTO_MICRO_BATCH = 16

ENGINES = (DistributedType.NO, DistributedType.MULTI_CPU, DistributedType.MULTI_GPU)


def build_accelerator(recipe: Recipe, directory: Path) -> Accelerator:
    """Returns the Accelerator, after asserting that it is what the launch promised.

    Raises LaunchError for processes that did not come up or an engine that is not supported, and
    ConfigError for a precision that the device does not have.
    """
    check_promise()
    check_trackers(recipe.tracking.trackers)
    precision = resolve_precision(recipe.precision)
    on_cpu = not torch.cuda.is_available()
    if on_cpu:
        os.environ.setdefault("DS_ACCELERATOR", "cpu")  # else DeepSpeed warns that it looked
    accelerator = Accelerator(
        cpu=on_cpu,
        mixed_precision="no" if precision == "fp32" else precision,
        log_with=list(recipe.tracking.trackers) or None,
        project_config=ProjectConfiguration(
            str(directory), logging_dir=str(directory / "tensorboard")
        ),
        kwargs_handlers=[
            DistributedDataParallelKwargs(broadcast_buffers=False),
            InitProcessGroupKwargs(timeout=timedelta(minutes=30)),
        ],
    )
    promised = int(os.environ.get("WORLD_SIZE", "1"))
    if accelerator.num_processes != promised:
        raise LaunchError(
            f"the launch promised {promised} processes and {accelerator.num_processes} came up; "
            f"use `accelerate launch --config_file accelerate_configs/cpu-2.yaml` on CPUs"
        )
    if accelerator.distributed_type not in ENGINES:
        raise LaunchError(
            f"{accelerator.distributed_type.value} is not supported yet; launch with "
            f"accelerate_configs/ddp.yaml"
        )
    if recipe.deterministic:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
        torch.use_deterministic_algorithms(True)
    return accelerator


def check_trackers(trackers: tuple[str, ...]) -> None:
    """Raises ConfigError for a tracker that is not installed: Accelerate would leave it out."""
    for name in trackers:
        if importlib.util.find_spec(name) is None:
            raise ConfigError(f"tracking.trackers: {name} is not installed; pip install {name}")


def check_promise() -> None:
    """Raises LaunchError where a launcher was asked for several processes and started one.

    On CPUs `accelerate launch --num_processes 2` does so without a word: it sets an address for
    them to meet at, and no rank.
    """
    launched = "ACCELERATE_MIXED_PRECISION" in os.environ
    if launched and "MASTER_ADDR" in os.environ and "WORLD_SIZE" not in os.environ:
        raise LaunchError(
            "accelerate launch was asked for several processes and started one; for CPU ranks use "
            "--config_file accelerate_configs/cpu-2.yaml, for one process unset MASTER_ADDR"
        )


def resolve_precision(asked: Precision | Literal["auto"]) -> Precision:
    """Returns what the device computes in: by compute capability, for emulated bf16 is slow.

    Raises ConfigError for bf16 before capability 8.0 and for fp16 without a GPU.
    """
    capability = torch.cuda.get_device_capability() if torch.cuda.is_available() else None
    if asked == "auto":
        if capability is None:
            return "fp32"
        return "bf16" if capability >= (8, 0) else "fp16"
    if asked == "bf16" and capability is not None and capability < (8, 0):
        raise ConfigError(
            f"precision: bf16 is emulated on {torch.cuda.get_device_name()}; use fp16 or auto"
        )
    if asked == "fp16" and capability is None:
        raise ConfigError("precision: fp16 needs a GPU; use fp32, bf16 or auto")
    return asked


COMPUTE_DTYPES: dict[Precision, torch.dtype] = {
    "fp32": torch.float32,
    "bf16": torch.bfloat16,
    "fp16": torch.float16,
}


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
