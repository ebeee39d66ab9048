"""The Accelerator of a run: the processes that were promised, and a precision they can compute."""

import importlib.util
import json
import os
from datetime import timedelta
from pathlib import Path
from typing import Any, Literal

import torch
from accelerate import Accelerator
from accelerate.utils import (
    DistributedDataParallelKwargs,
    DistributedType,
    InitProcessGroupKwargs,
    ProjectConfiguration,
)
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from trainer.config import Recipe
from trainer.engine import base_optimizer
from trainer.errors import ConfigError, LaunchError

Precision = Literal["fp32", "bf16", "fp16"]

AUTO_MICRO_BATCH = 16

ENGINES = (
    DistributedType.NO,
    DistributedType.MULTI_CPU,
    DistributedType.MULTI_GPU,
    DistributedType.DEEPSPEED,
)
UNDERSTOOD = (
    *("train_batch_size", "train_micro_batch_size_per_gpu", "gradient_accumulation_steps"),
    *("gradient_clipping", "bf16", "fp16", "zero_optimization", "zero_allow_untested_optimizer"),
    *("zero_force_ds_cpu_optimizer", "steps_per_print", "wall_clock_breakdown", "comms_logger"),
)
"""Keys of a DeepSpeed configuration that are filled in here, or change nothing that is learned."""
SCALING = (
    *("enabled", "auto_cast", "loss_scale", "initial_scale_power", "loss_scale_window"),
    *("hysteresis", "min_loss_scale", "consecutive_hysteresis"),
)


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
    if _asked_for("FSDP"):  # which Accelerate ignores without a word where there is no GPU
        raise LaunchError("FSDP is not supported yet; accelerate_configs/zero3.yaml shards as much")
    with_deepspeed = _asked_for("DEEPSPEED")
    if with_deepspeed:
        _check_deepspeed_file()
    # Without a backend, DeepSpeed on CPUs makes as many worlds of one as there are processes.
    backend: dict[str, Any] = {"backend": "gloo"} if on_cpu and with_deepspeed else {}
    accelerator = Accelerator(
        cpu=on_cpu and not with_deepspeed,
        mixed_precision="no" if precision == "fp32" else precision,
        log_with=list(recipe.tracking.trackers) or None,
        project_config=ProjectConfiguration(
            str(directory), logging_dir=str(directory / "tensorboard")
        ),
        kwargs_handlers=[
            DistributedDataParallelKwargs(broadcast_buffers=False),
            InitProcessGroupKwargs(timeout=timedelta(minutes=30), **backend),
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
    if accelerator.distributed_type == DistributedType.DEEPSPEED:
        _fill_in_deepspeed(accelerator, recipe)
    if recipe.deterministic:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
        torch.use_deterministic_algorithms(True)
    return accelerator


def check_engine(
    accelerator: Accelerator,
    objective: nn.Module,
    optimizer: Any,
    *,
    micro_batch_size: int,
    recipe: Recipe,
    precision: Precision,
    made: torch.optim.Optimizer,
) -> None:
    """Raises LaunchError unless the engine does what the recipe says, and over all the processes.

    `made` is the optimizer before it was wrapped.
    """
    engine: Any = objective
    steps = accumulation(recipe, micro_batch_size, accelerator.num_processes)
    if accelerator.distributed_type == DistributedType.DEEPSPEED:
        found = {
            "processes": engine.dp_world_size,
            "micro-batch size": engine.train_micro_batch_size_per_gpu(),
            "accumulation": engine.gradient_accumulation_steps(),
            "clipping": engine.gradient_clipping(),
            "bf16": bool(engine.bfloat16_enabled()),
            "fp16": bool(engine.fp16_enabled()),
            "optimizer": type(base_optimizer(optimizer)).__name__,
        }
        promised = {
            "processes": accelerator.num_processes,
            "micro-batch size": micro_batch_size,
            "accumulation": steps,
            "clipping": recipe.optimizer.max_grad_norm or 0.0,
            "bf16": precision == "bf16",
            "fp16": precision == "fp16",
            "optimizer": type(made).__name__,
        }
    else:
        found = {"wrapped": isinstance(objective, DistributedDataParallel)}
        promised = {"wrapped": accelerator.num_processes > 1}
    wrong = [
        f"{name} is {found[name]} and should be {promised[name]}"
        for name in promised
        if found[name] != promised[name]
    ]
    if wrong:
        raise LaunchError(f"the engine would train something else: {'; '.join(wrong)}")


def accumulation(recipe: Recipe, micro_batch_size: int, world_size: int) -> int:
    """Returns how many micro-batches of one process make an optimizer step."""
    return recipe.batch.global_batch_size // (micro_batch_size * world_size)


def _asked_for(engine: str) -> bool:
    return os.environ.get(f"ACCELERATE_USE_{engine}", "false").lower() == "true"


def _check_deepspeed_file() -> None:
    """Raises LaunchError where the configuration that the launch names is not there or no JSON."""
    file = os.environ.get("ACCELERATE_DEEPSPEED_CONFIG_FILE")
    if file is None:
        return
    try:
        json.loads(Path(file).read_text("utf-8"))
    except OSError as error:
        raise LaunchError(
            f"the DeepSpeed configuration {file} cannot be read from {Path.cwd()}; start where it "
            f"is, or name it by --deepspeed_config_file"
        ) from error
    except ValueError as error:
        raise LaunchError(f"the DeepSpeed configuration {file} is no JSON: {error}") from error


def _fill_in_deepspeed(accelerator: Accelerator, recipe: Recipe) -> None:
    """Writes into DeepSpeed's configuration what the recipe owns.

    Raises LaunchError where it says something else, and ConfigError for a recipe that this engine
    cannot train.
    """
    from transformers.integrations.deepspeed import unset_hf_deepspeed_config

    plugin: Any = accelerator.deepspeed_plugin
    given: dict[str, Any] = plugin.deepspeed_config
    sharding = given.get("zero_optimization", {})
    unknown = [key for key in given if key not in UNDERSTOOD]
    unknown += [key for key in sharding if key.startswith("zero_quantized")]
    scaling = [key for name in ("bf16", "fp16") for key in given.get(name, {})]
    unknown += [key for key in scaling if key not in SCALING]
    if unknown:
        raise LaunchError(
            f"{unknown[0]} in the DeepSpeed configuration may change what is learned; remove it"
        )
    if sharding.get("stage", 0) not in (1, 2, 3):
        raise LaunchError("DeepSpeed without ZeRO shards nothing; use accelerate_configs/ddp.yaml")
    for key in ("offload_optimizer", "offload_param"):
        if sharding.get(key, {}).get("device") == "nvme":
            raise LaunchError(f"{key} to nvme is not supported yet; offload to cpu")
    if "8bit" in recipe.optimizer.name:
        raise ConfigError(
            f"optimizer.name: {recipe.optimizer.name} cannot be saved by name from ZeRO's shards; "
            f"use adamw, whose moments ZeRO shards"
        )
    batch, processes = recipe.batch, accelerator.num_processes
    size = resolve_micro_batch_size(batch.global_batch_size, batch.micro_batch_size, processes)
    owned = {
        "train_batch_size": batch.global_batch_size,
        "train_micro_batch_size_per_gpu": size,
        "gradient_accumulation_steps": accumulation(recipe, size, processes),
        "gradient_clipping": recipe.optimizer.max_grad_norm or 0.0,
    }
    for key, value in owned.items():
        said = given.get(key, "auto")
        if said not in ("auto", value):
            raise LaunchError(
                f"{key} is {said} in the DeepSpeed configuration and {value} by the recipe; write "
                f'"auto" there'
            )
        given[key] = value
    if sharding["stage"] > 1:  # ZeRO-1 adds up in the type in which it computes
        given["data_types"] = {"grad_accum_dtype": "fp32"}
    given["zero_force_ds_cpu_optimizer"] = False  # the recipe's optimizer, also where it is slower
    accelerator.gradient_accumulation_steps = owned["gradient_accumulation_steps"]
    # Models are made whole and sharded afterwards: sharded at once, random weights and those of
    # 4-bit models would be others than on one process.
    unset_hf_deepspeed_config()


def check_trackers(trackers: tuple[str, ...]) -> None:
    """Raises ConfigError for a tracker that is not installed: Accelerate would leave it out."""
    for name in trackers:
        if importlib.util.find_spec(name) is None:
            raise ConfigError(f"tracking.trackers: {name} is not installed; pip install {name}")


def check_promise() -> None:
    """Raises LaunchError where a launcher was asked for several processes and started one, or for
    more than there are GPUs.

    On CPUs `accelerate launch --num_processes 2` does so without a word: it sets an address for
    them to meet at, and no rank.
    """
    here, gpus = int(os.environ.get("LOCAL_WORLD_SIZE", "1")), torch.cuda.device_count()
    if gpus and here > gpus:  # Accelerate would give several ranks the same one
        raise LaunchError(
            f"the launch asks for {here} processes on {gpus} GPUs; set --num_processes"
        )
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
