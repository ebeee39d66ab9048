"""FSDP2's settings: filled in from the recipe, and rejected if they contradict it."""

import os
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import DistributedType
from torch import nn
from torch.distributed.fsdp import CPUOffloadPolicy, MixedPrecisionPolicy

from trainer.distributed.environment_variables import whole_number
from trainer.engines.launch import DATA_MESHES, MODEL_MESHES, mesh_size, mesh_variable
from trainer.engines.precision import Precision
from trainer.errors import ConfigError, LaunchError
from trainer.models.load import QUANTISED
from trainer.optim import OPTIMIZERS
from trainer.recipe.schema import Recipe


def check_mesh() -> None:
    """Raises LaunchError if the mesh does not fit the ranks, or splits layers or sequences.

    Replicas, each sharded over some ranks, split the examples of a batch. Ranks that split layers
    or sequences instead would count the same examples several times.
    """
    for mesh in MODEL_MESHES:
        if mesh_size(mesh) > 1:
            raise LaunchError(
                f"parallelism_config_{mesh}_size: only data parallelism is supported",
                key=mesh_variable(mesh),
                value=mesh_size(mesh),
                hint="use 1",
            )
    num_ranks = whole_number("WORLD_SIZE", 1)
    replicas, shards = (mesh_size(mesh) for mesh in DATA_MESHES)
    if replicas > 1 and shards == 1:
        raise LaunchError(
            "parallelism_config: replicas without shards are plain DDP",
            key=mesh_variable("dp_replicate"),
            value=replicas,
            hint="use ddp.yaml",
        )
    if replicas * shards not in (1, num_ranks):
        raise LaunchError(
            f"parallelism_config: {replicas} replicas of {shards} shards do not give the "
            f"{num_ranks} processes of the launch",
            key=mesh_variable("dp_replicate"),
            value=replicas,
            hint="set --parallelism_config_dp_replicate_size and "
            "--parallelism_config_dp_shard_size",
        )


def promised_mesh(num_ranks: int) -> tuple[int, ...]:
    """Returns the mesh that the launch asks for: (shards,), or (replicas, shards of each)."""
    replicas = mesh_size("dp_replicate")
    return (num_ranks,) if replicas == 1 else (replicas, num_ranks // replicas)


def fill_in_fsdp(accelerator: Accelerator, recipe: Recipe, precision: Precision) -> None:
    """Makes FSDP2 compute in the recipe's precision and accumulate gradients in fp32.

    Raises LaunchError if Accelerate would ignore FSDP or its settings contradict the recipe, and
    ConfigError for a recipe that FSDP2 cannot train.
    """
    if accelerator.distributed_type != DistributedType.FSDP:
        raise LaunchError(
            "FSDP2 shards over GPUs, and Accelerate ignores it elsewhere",
            key="ACCELERATE_USE_FSDP",
            value="true",
            hint="use accelerate_configs/gpu-1.yaml, or cpu-2-zero3.yaml on CPUs",
        )
    plugin: Any = accelerator.state.fsdp_plugin
    if plugin.fsdp_version != 2:
        raise LaunchError(
            "the first version of FSDP is not supported",
            key="FSDP_VERSION",
            value=plugin.fsdp_version,
            hint="set fsdp_version: 2",
        )
    if isinstance(plugin.cpu_offload, CPUOffloadPolicy):
        raise LaunchError(
            "FSDP2 with offload is not supported",
            key="FSDP_OFFLOAD_PARAMS",
            value="true",
            hint="use zero3-offload.yaml",
        )
    if plugin.activation_checkpointing:
        raise LaunchError(
            "fsdp_activation_checkpointing is decided by the recipe",
            key="FSDP_ACTIVATION_CHECKPOINTING",
            value="true",
            hint="set model.gradient_checkpointing",
        )
    check_fsdp2_trains(recipe, precision)
    # Otherwise transformers leaves a new head on the meta device on all ranks but one.
    plugin.cpu_ram_efficient_loading = False
    os.environ["FSDP_CPU_RAM_EFFICIENT_LOADING"] = "false"
    if precision == "bf16":
        plugin.mixed_precision_policy = MixedPrecisionPolicy(
            param_dtype=torch.bfloat16, reduce_dtype=torch.float32
        )


def check_fsdp2_trains(recipe: Recipe, precision: Precision) -> None:
    """Raises ConfigError for a recipe that FSDP2 cannot train in a precision."""
    optimizer = recipe.optimizer.name
    if recipe.tuning.mode in QUANTISED:
        raise _unshardable("tuning.mode", recipe.tuning.mode)
    if not OPTIMIZERS[optimizer].elementwise:
        raise _unshardable("optimizer.name", optimizer)
    if precision == "fp16":
        raise ConfigError(
            "precision: fp16 needs a loss scale over shards",
            key="precision",
            value=precision,
            hint="launch with zero3.yaml",
        )


def _unshardable(key: str, value: str) -> ConfigError:
    return ConfigError(
        f"{key}: FSDP2 cannot shard {value}",
        key=key,
        value=value,
        hint="launch with zero2.yaml or ddp.yaml",
    )


def layer_classes(objective: Any) -> list[str]:
    """Returns the names of the classes whose modules FSDP2 gathers one at a time.

    Modules with a tied weight are left out, and gathered with the rest of the model: two groups
    cannot share a weight.
    """
    seen: set[int] = set()
    tied: set[int] = set()
    for _, parameter in objective.named_parameters(remove_duplicate=False):
        (tied if id(parameter) in seen else seen).add(id(parameter))
    stacks = [module for module in objective.modules() if isinstance(module, nn.ModuleList)]
    longest = {type(layer).__name__ for layer in max(stacks, key=len, default=())}
    names = objective.model._no_split_modules or longest
    layers = [module for module in objective.modules() if type(module).__name__ in names]
    sharing = [layer for layer in layers if any(id(p) in tied for p in layer.parameters())]
    return sorted(
        {type(layer).__name__ for layer in layers} - {type(layer).__name__ for layer in sharing}
    )
