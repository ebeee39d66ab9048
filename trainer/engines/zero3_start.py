"""How ZeRO-3 starts: one rank holds the model, the others its shape, and each gets its share.

No GPU then ever holds more than its share and one parameter, and a host holds one copy of a model
however many ranks it has. The weights are those of one process, whatever their number.
"""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from accelerate import Accelerator
from torch import nn

from trainer.distributed.collectives import any_rank, on_main
from trainer.models.load import QUANTISED, LoadedModel
from trainer.recipe.schema import Recipe


def starts_sharded(accelerator: Accelerator, recipe: Recipe) -> bool:
    """Returns whether the main process alone loads the model; packed weights load everywhere."""
    plugin: Any = accelerator.deepspeed_plugin
    sharded = plugin is not None and plugin.zero_stage == 3
    return sharded and recipe.tuning.mode not in QUANTISED


def load_on_main(accelerator: Accelerator, load: Callable[..., LoadedModel]) -> LoadedModel:
    """Returns the model, with weights on the main process and as a shape on the others.

    What `load` raises there is raised on every rank. Where the weights tell more than the shape,
    such as output embeddings that are stored untied, every rank loads them.
    """
    own: list[LoadedModel] = []

    def on_rank_0() -> tuple[Any, ...]:
        own.append(load())
        model = own[0].model
        told = {"fresh": own[0].fresh, "notes": own[0].notes}
        return told, getattr(model, "generation_config", None), _layout(model)

    told, generation_config, layout = on_main(accelerator, on_rank_0)
    loaded = own[0] if own else replace(load(shape_only=True), **told)
    if any_rank(accelerator, _layout(loaded.model) != layout):
        return own[0] if own else load()
    if generation_config is not None:  # which is stored beside the weights
        loaded.model.generation_config = generation_config
    return loaded


def _layout(model: nn.Module) -> list[tuple[str, tuple[int, ...]]]:
    """Returns name and shape of what ranks send each other."""
    tensors = [*model.named_parameters(), *model.named_buffers()]
    return [(name, tuple(tensor.shape)) for name, tensor in tensors]


def make_room(accelerator: Accelerator, objective: nn.Module, dtype: torch.dtype) -> None:
    """Makes parameters `dtype`, those on the meta device anew, and sends buffers to all ranks.

    New memory is not touched, and takes no room, until `shard_from_main` fills it.
    """
    filled = {
        parameter: nn.Parameter(
            torch.empty(parameter.shape, dtype=dtype)
            if parameter.is_meta
            else parameter.data.to(dtype),
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


def shard_from_main(accelerator: Accelerator, objective: nn.Module) -> None:
    """Shards the main process's weights over all ranks, one at a time.

    A sharded parameter has lost its shape: optimizers are made before.
    """
    from deepspeed.runtime.zero import Init

    dtype = next(objective.parameters()).dtype
    plugin: Any = accelerator.deepspeed_plugin
    given = plugin.deepspeed_config
    zero = {k: value for k, value in given["zero_optimization"].items() if value != "auto"}
    sizes = {k: given[k] for k in ("train_batch_size", "gradient_accumulation_steps")}
    Init(module=objective, config_dict_or_path={**sizes, "zero_optimization": zero}, dtype=dtype)
