"""Starts a model under ZeRO-3: the main process loads it, and all ranks get their shards from it.

A GPU never holds more than its shards and one whole parameter, and a machine only one copy of the
model, however many ranks it runs. The weights do not depend on the number of ranks.
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
    """Returns whether only the main process loads the weights: ZeRO-3, unless they are packed."""
    plugin: Any = accelerator.deepspeed_plugin
    sharded = plugin is not None and plugin.zero_stage == 3
    return sharded and recipe.tuning.mode not in QUANTISED


def load_on_main(accelerator: Accelerator, load: Callable[..., LoadedModel]) -> LoadedModel:
    """Returns the model: with weights on the main process, on the meta device on other ranks.

    An error of `load` on the main process is raised on every rank. If the weights decide the layout
    of the model, as output embeddings that are stored untied do, every rank loads them.
    """
    own: list[LoadedModel] = []

    def on_rank_0() -> tuple[Any, ...]:
        own.append(load())
        model = own[0].model
        from_weights = {"fresh": own[0].fresh, "notes": own[0].notes}
        return from_weights, getattr(model, "generation_config", None), _layout(model)

    from_weights, generation_config, layout = on_main(accelerator, on_rank_0)
    loaded = own[0] if own else replace(load(shape_only=True), **from_weights)
    if any_rank(accelerator, _layout(loaded.model) != layout):
        return own[0] if own else load()
    if generation_config is not None:  # it is stored next to the weights
        loaded.model.generation_config = generation_config
    return loaded


def _layout(model: nn.Module) -> list[tuple[str, tuple[int, ...]]]:
    """Returns the names and shapes of the tensors that ranks exchange."""
    tensors = [*model.named_parameters(), *model.named_buffers()]
    return [(name, tuple(tensor.shape)) for name, tensor in tensors]


def materialize(accelerator: Accelerator, objective: nn.Module, dtype: torch.dtype) -> None:
    """Converts parameters to `dtype`, allocates those on the meta device, and broadcasts buffers.

    The allocated memory takes no physical pages until `shard_from_main` fills it.
    """
    allocated = {
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
                module._parameters[name] = allocated[parameter]
        for name, buffer in module._buffers.items():
            if buffer is not None:
                module._buffers[name] = received[buffer].to(accelerator.device)


def shard_from_main(accelerator: Accelerator, objective: nn.Module) -> None:
    """Shards the main process's weights over all ranks, one parameter at a time.

    Build the optimizer first: a sharded parameter has lost its shape.
    """
    from deepspeed.runtime.zero import Init

    dtype = next(objective.parameters()).dtype
    plugin: Any = accelerator.deepspeed_plugin
    settings = plugin.deepspeed_config
    zero = {k: value for k, value in settings["zero_optimization"].items() if value != "auto"}
    sizes = {k: settings[k] for k in ("train_batch_size", "gradient_accumulation_steps")}
    Init(module=objective, config_dict_or_path={**sizes, "zero_optimization": zero}, dtype=dtype)
