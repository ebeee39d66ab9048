"""What shards a model, DeepSpeed's ZeRO, FSDP2 or nothing, and how to hold it whole for a while.

Knows private names of both, which the tests under each engine hold fast.
"""

from collections.abc import Generator, Iterable
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import torch
from torch import nn
from torch.distributed.fsdp import FSDPModule
from torch.distributed.tensor import DTensor


def zero_stage(objective: nn.Module) -> int:
    """Returns the stage of DeepSpeed's ZeRO around an objective, 0 without DeepSpeed."""
    stage: Any = getattr(objective, "zero_optimization_stage", None)
    return stage() if stage is not None else 0


def sharding(objective: nn.Module) -> str:
    """Returns what shards an objective: ZeRO-1, ZeRO-2, ZeRO-3, FSDP2 or nothing."""
    if isinstance(objective, FSDPModule):
        return "FSDP2"
    stage = zero_stage(objective)
    return f"ZeRO-{stage}" if stage else "nothing"


def mesh_of(parameter: nn.Parameter) -> tuple[int, ...]:
    """Returns the mesh of ranks over which FSDP2 shards a parameter, empty where it does not."""
    tensor: Any = parameter.data
    return tuple(tensor.device_mesh.shape) if isinstance(tensor, DTensor) else ()


def has_second_copy(objective: nn.Module) -> bool:
    """Returns whether ZeRO-3 keeps a second copy of the weights on each machine (hpZ)."""
    parameter: Any = next(objective.parameters())
    return getattr(parameter, "ds_zero_param_process_group", None) is not None


@contextmanager
def whole_model(objective: nn.Module) -> Generator[None]:
    """Holds all weights of a sharded model on every rank, as a plain model that any code can use.

    Costs the memory of the whole model, under ZeRO-3 in the type in which it computes, under FSDP2
    in that of its weights. Every rank takes part.
    """
    if isinstance(objective, FSDPModule):
        with _without_fsdp(objective):
            yield
        return
    if zero_stage(objective) < 3:
        yield
        return
    wrapped: Any = objective
    offload = wrapped.optimizer.parameter_offload
    with _whole(objective.parameters()):
        # Else a forward would give its weights back to their shards.
        for parameter in objective.parameters():
            parameter.ds_active_sub_modules.clear()  # type: ignore[attr-defined]
        offload._remove_module_hooks()
        offload.forward_hooks.clear()
        offload.backward_hooks.clear()
        try:
            yield
        finally:
            offload.setup_zero_stage3_hooks()


def whole_weight(objective: nn.Module, weight: nn.Parameter) -> AbstractContextManager[Any]:
    """Returns a context in which one weight is whole on every rank; every rank takes part."""
    return _whole([weight]) if zero_stage(objective) == 3 else nullcontext()


@contextmanager
def _without_fsdp(objective: nn.Module) -> Generator[None]:
    """Puts whole weights in the place of FSDP2's shards, and takes its hooks away."""
    whole: dict[nn.Parameter, nn.Parameter] = {}
    with torch.no_grad():
        for parameter in objective.parameters():
            tensor: Any = parameter.data
            full = tensor.full_tensor() if isinstance(tensor, DTensor) else tensor
            whole[parameter] = nn.Parameter(full, requires_grad=parameter.requires_grad)
    kept: list[tuple[dict[Any, Any], dict[Any, Any]]] = []
    gathered = [isinstance(module, FSDPModule) for module in objective.modules()]
    module: Any
    for module, has_hooks in zip(objective.modules(), gathered, strict=True):
        hooks: list[dict[Any, Any]] = [module._state_dict_pre_hooks]
        if has_hooks:
            hooks += [module._forward_pre_hooks, module._forward_hooks]
        kept += [(entries, dict(entries)) for entries in (module._parameters, *hooks)]
        for name, parameter in module._parameters.items():
            if parameter is not None:
                module._parameters[name] = whole[parameter]
        for entries in hooks:
            entries.clear()
    try:
        yield
    finally:
        for entries, before in kept:
            entries.update(before)


def _whole(parameters: Iterable[nn.Parameter]) -> AbstractContextManager[Any]:
    """Returns a context in which sharded parameters are whole; what rank 0 changes stays."""
    from deepspeed.runtime.zero import GatheredParameters

    return GatheredParameters(list(parameters), modifier_rank=0)
