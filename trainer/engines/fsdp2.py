"""FSDP2's settings: precision and layers are filled in, what the recipe does not say refused."""

import os
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import DistributedType
from torch import nn
from torch.distributed.fsdp import CPUOffloadPolicy, MixedPrecisionPolicy

from trainer.distributed.environment_variables import whole_number
from trainer.engines.precision import Precision
from trainer.errors import ConfigError, LaunchError
from trainer.models.load import QUANTISED
from trainer.recipe.schema import Recipe


def check_mesh() -> None:
    """Raises LaunchError for a mesh of ranks that is not the launch's, or splits what it may not.

    Copies of a model, each sharded over some ranks, learn from the whole batch; layers or sequences
    that are split over ranks would make several ranks see the same examples.
    """
    sizes = {
        name: whole_number(f"PARALLELISM_CONFIG_{name.upper()}_SIZE", 1)
        for name in ("dp_replicate", "dp_shard", "tp", "cp", "sp")
    }
    processes = whole_number("WORLD_SIZE", 1)
    for name in ("tp", "cp", "sp"):
        if sizes[name] > 1:
            raise LaunchError(f"parallelism_config_{name}_size: only data is parallel here; use 1")
    copies, shards = sizes["dp_replicate"], sizes["dp_shard"]
    if copies > 1 and shards == 1:
        raise LaunchError("parallelism_config: copies without shards are DDP; use ddp.yaml")
    if copies * shards not in (1, processes):
        raise LaunchError(
            f"parallelism_config: {copies} copies of {shards} shards are not the {processes} "
            f"processes of the launch; set --parallelism_config_dp_replicate_size and "
            f"--parallelism_config_dp_shard_size"
        )


def promised_mesh(processes: int) -> tuple[int, ...]:
    """Returns the mesh that the launch asked for: shards, or copies and their shards."""
    copies = whole_number("PARALLELISM_CONFIG_DP_REPLICATE_SIZE", 1)
    return (processes,) if copies == 1 else (copies, processes // copies)


def fill_in_fsdp(accelerator: Accelerator, recipe: Recipe, precision: Precision) -> None:
    """Has FSDP2 compute in the recipe's precision and add up gradients in fp32.

    Raises LaunchError where it was ignored or would do what the recipe does not say, and
    ConfigError for a recipe that it cannot train.
    """
    if accelerator.distributed_type != DistributedType.FSDP:
        raise LaunchError(
            "FSDP2 shards over GPUs, and Accelerate ignores it elsewhere; use "
            "accelerate_configs/gpu-1.yaml, or cpu-2-zero3.yaml on CPUs"
        )
    plugin: Any = accelerator.state.fsdp_plugin
    if plugin.fsdp_version != 2:
        raise LaunchError("FSDP in its first version is not supported; set fsdp_version: 2")
    if isinstance(plugin.cpu_offload, CPUOffloadPolicy):
        raise LaunchError("FSDP2 with offload is not supported; use zero3-offload.yaml")
    if plugin.activation_checkpointing:
        raise LaunchError(
            "fsdp_activation_checkpointing is the recipe's: set model.gradient_checkpointing"
        )
    if recipe.tuning.mode in QUANTISED or "8bit" in recipe.optimizer.name:
        what, key = recipe.tuning.mode, "tuning.mode"
        if what not in QUANTISED:
            what, key = recipe.optimizer.name, "optimizer.name"
        raise ConfigError(f"{key}: FSDP2 cannot shard {what}; launch with zero2.yaml or ddp.yaml")
    if precision == "fp16":
        raise ConfigError("precision: fp16 needs a loss scale over shards; launch with zero3.yaml")
    # With it transformers leaves a new head on the meta device, on all ranks but one.
    plugin.cpu_ram_efficient_loading = False
    os.environ["FSDP_CPU_RAM_EFFICIENT_LOADING"] = "false"
    if precision == "bf16":
        plugin.mixed_precision_policy = MixedPrecisionPolicy(
            param_dtype=torch.bfloat16, reduce_dtype=torch.float32
        )


def layer_classes(objective: Any) -> list[str]:
    """Returns the classes of layers that FSDP2 gathers one at a time.

    Those with a tied weight are gathered with the rest of the model: two groups cannot share it.
    """
    once: set[int] = set()
    tied: set[int] = set()
    for _, parameter in objective.named_parameters(remove_duplicate=False):
        (tied if id(parameter) in once else once).add(id(parameter))
    stacks = [module for module in objective.modules() if isinstance(module, nn.ModuleList)]
    longest = {type(layer).__name__ for layer in max(stacks, key=len, default=())}
    offered = objective.model._no_split_modules or longest
    layers = [module for module in objective.modules() if type(module).__name__ in offered]
    sharing = [layer for layer in layers if any(id(p) in tied for p in layer.parameters())]
    return sorted({type(one).__name__ for one in layers} - {type(one).__name__ for one in sharing})
