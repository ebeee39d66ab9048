"""Checks the processes and the engine that started against the launch and the recipe.

Without these checks, a mismatch would train silently: without exchanging gradients, or with other
settings than the recipe's.
"""

import os
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import DistributedType
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from trainer.distributed.environment_variables import launched_by_accelerate, whole_number
from trainer.engines.deepspeed_state import uses_hpz
from trainer.engines.fsdp2 import promised_mesh
from trainer.engines.fsdp2_state import mesh_shape
from trainer.engines.micro_batch import accumulation
from trainer.engines.portable_state import base_optimizer
from trainer.engines.precision import Precision
from trainer.engines.topology import topology_of
from trainer.errors import LaunchError
from trainer.recipe.schema import Recipe

SUPPORTED = (
    DistributedType.NO,
    DistributedType.MULTI_CPU,
    DistributedType.MULTI_GPU,
    DistributedType.DEEPSPEED,
    DistributedType.FSDP,
)


def check_launch() -> None:
    """Raises LaunchError if the launch asks for more processes than it starts, or than GPUs exist.

    On CPUs `accelerate launch --num_processes 2` silently starts a single process: it sets
    MASTER_ADDR, but no rank.
    """
    num_local, num_gpus = whole_number("LOCAL_WORLD_SIZE", 1), torch.cuda.device_count()
    if num_gpus and num_local > num_gpus:  # Accelerate would give one GPU to several ranks
        raise LaunchError(
            f"the launch asks for {num_local} processes on {num_gpus} GPUs",
            key="--num_processes",
            value=num_local,
            hint="set --num_processes",
        )
    if launched_by_accelerate() and "MASTER_ADDR" in os.environ and "WORLD_SIZE" not in os.environ:
        raise LaunchError(
            "accelerate launch was asked for several processes and started one",
            key="MASTER_ADDR",
            value=os.environ["MASTER_ADDR"],
            hint="for CPU ranks use --config_file accelerate_configs/cpu-2.yaml, for one process "
            "unset MASTER_ADDR",
        )


def check_processes(accelerator: Accelerator) -> None:
    """Raises LaunchError unless all processes of the launch started, under a supported engine."""
    promised = whole_number("WORLD_SIZE", 1)
    if accelerator.num_processes != promised:
        raise LaunchError(
            f"the launch promised {promised} processes, but {accelerator.num_processes} started",
            key="WORLD_SIZE",
            value=promised,
            hint="on CPUs use `accelerate launch --config_file accelerate_configs/cpu-2.yaml`",
        )
    if accelerator.distributed_type not in SUPPORTED:
        raise LaunchError(
            f"{accelerator.distributed_type.value} is not supported",
            key="distributed_type",
            value=accelerator.distributed_type.value,
            hint="launch with accelerate_configs/ddp.yaml",
        )


def check_engine(
    accelerator: Accelerator,
    objective: nn.Module,
    optimizer: Any,
    *,
    micro_batch_size: int,
    recipe: Recipe,
    precision: Precision,
    unwrapped: torch.optim.Optimizer,
) -> None:
    """Raises LaunchError unless the engine does what the recipe says, over all processes.

    `unwrapped` is the optimizer before the engine wrapped it.
    """
    engine: Any = objective
    ranks = topology_of(accelerator).dp_size
    steps = accumulation(recipe, micro_batch_size, ranks)
    if accelerator.distributed_type == DistributedType.DEEPSPEED:
        actual = {
            "processes": engine.dp_world_size,
            "micro-batch size": engine.train_micro_batch_size_per_gpu(),
            "accumulation": engine.gradient_accumulation_steps(),
            "clipping": engine.gradient_clipping(),
            "bf16": bool(engine.bfloat16_enabled()),
            "fp16": bool(engine.fp16_enabled()),
            "optimizer": type(base_optimizer(optimizer)).__name__,
            "second copy": uses_hpz(objective),
        }
        promised = {
            "processes": ranks,
            "micro-batch size": micro_batch_size,
            "accumulation": steps,
            "clipping": recipe.optimizer.max_grad_norm or 0.0,
            "bf16": precision == "bf16",
            "fp16": precision == "fp16",
            "optimizer": type(unwrapped).__name__,
            "second copy": engine.zero_hpz_partition_size() > 1,
        }
    elif accelerator.distributed_type == DistributedType.FSDP:
        actual = {"mesh": {mesh_shape(parameter) for parameter in objective.parameters()}}
        promised = {"mesh": {promised_mesh(accelerator.num_processes)}}
    else:
        actual = {"wrapped": isinstance(objective, DistributedDataParallel)}
        promised = {"wrapped": accelerator.num_processes > 1}
    wrong = [name for name in promised if actual[name] != promised[name]]
    if wrong:
        problems = [f"{name} is {actual[name]} and should be {promised[name]}" for name in wrong]
        raise LaunchError(
            f"the engine would not train this recipe: {', '.join(problems)}",
            key=wrong[0],
            value=actual[wrong[0]],
        )
