"""How ZeRO-3 starts: one rank holds the model, the others its shape, and each gets its share.

No GPU then ever holds more than its share and one parameter, and a host holds one copy of a model
however many ranks it has. The weights are those of one process, whatever their number.
"""

from typing import Any

import torch
from accelerate import Accelerator
from torch import nn

from trainer.config import Recipe
from trainer.models.load import QUANTISED
from trainer.ranks import on_main


def starts_sharded(accelerator: Accelerator, recipe: Recipe) -> bool:
    """Returns whether the main process alone loads the model; packed weights load everywhere."""
    plugin: Any = accelerator.deepspeed_plugin
    sharded = plugin is not None and plugin.zero_stage == 3
    return sharded and recipe.tuning.mode not in QUANTISED


def make_room(accelerator: Accelerator, objective: nn.Module) -> None:
    """Replaces parameters that are only shapes, on the meta device, and sends buffers to all ranks.

    The memory is not touched, and takes no room, until `shard_from_main` fills it.
    """
    filled = {
        parameter: nn.Parameter(
            torch.empty(parameter.shape, dtype=parameter.dtype)
            if parameter.is_meta
            else parameter.data,
            parameter.requires_grad,
        )
        for parameter in objective.parameters()
    }
    buffers = on_main(accelerator, lambda: [buffer.cpu() for buffer in objective.buffers()])
    received = dict(zip(objective.buffers(), buffers, strict=True))
    module: Any
    for module in objective.modules():
        for name, parameter in module._parameters.items():
            if parameter is not None:
                module._parameters[name] = filled[parameter]
        for name, buffer in module._buffers.items():
            if buffer is not None:
                module._buffers[name] = received[buffer].to(accelerator.device)


def shard_from_main(accelerator: Accelerator, objective: nn.Module, dtype: torch.dtype) -> None:
    """Shards the main process's weights over all ranks, one at a time, as `dtype`.

    A sharded parameter has lost its shape: optimizers are made before.
    """
    from deepspeed.runtime.zero import Init

    for parameter in objective.parameters():
        parameter.data = parameter.data.to(dtype)
    plugin: Any = accelerator.deepspeed_plugin
    given = plugin.deepspeed_config
    zero = {k: value for k, value in given["zero_optimization"].items() if value != "auto"}
    sizes = {k: given[k] for k in ("train_batch_size", "gradient_accumulation_steps")}
    Init(module=objective, config_dict_or_path={**sizes, "zero_optimization": zero}, dtype=dtype)
