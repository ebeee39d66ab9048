"""The state inside FSDP2: the only file that uses torch's private names for it.

They are `_parameters`, `_forward_pre_hooks`, `_forward_hooks` and `_state_dict_pre_hooks` of
nn.Module, through which `fully_shard` acts on a model. The tests under FSDP2 guard them.
"""

from collections.abc import Generator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.fsdp import FSDPModule
from torch.distributed.tensor import DTensor, distribute_tensor


def is_fsdp2(objective: nn.Module) -> bool:
    """Returns whether FSDP2 shards an objective."""
    return isinstance(objective, FSDPModule)


def mesh_of(parameter: nn.Parameter) -> tuple[int, ...]:
    """Returns the shape of the mesh over which FSDP2 shards a parameter, () if it does not."""
    tensor: Any = parameter.data
    return tuple(tensor.device_mesh.shape) if isinstance(tensor, DTensor) else ()


def gather(tensor: Tensor) -> Tensor:
    """Returns the whole of a tensor that FSDP2 may have sharded. Collective if it is sharded."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def shard_like(parameter: Tensor, full: Tensor) -> Tensor:
    """Returns this rank's share of a full tensor, sharded like a parameter, without communication.

    Every rank passes the same `full`; it is returned as it is if the parameter is not sharded.
    """
    if not isinstance(parameter, DTensor):
        return full
    mesh, placements = parameter.device_mesh, parameter.placements
    return distribute_tensor(full.to(parameter.device), mesh, placements, src_data_rank=None)


def reshard(objective: nn.Module) -> None:
    """Frees gathered weights that a forward left behind, which the next forward would reuse."""
    for module in objective.modules():
        if isinstance(module, FSDPModule):
            module.reshard()


@contextmanager
def without_fsdp(objective: nn.Module) -> Generator[None]:
    """Context manager: full weights replace FSDP2's shards, and its hooks are removed.

    `FSDPModule.unshard()` and `set_reshard_after_forward(False)` are not enough: they gather the
    weights in the type of the mixed-precision policy, so that bf16 would be exported for fp32, and
    leave hooks that cast inputs and re-shard at `state_dict()`.
    """
    full: dict[nn.Parameter, nn.Parameter] = {}
    with torch.no_grad():
        for parameter in objective.parameters():
            weight = gather(parameter.data)
            full[parameter] = nn.Parameter(weight, requires_grad=parameter.requires_grad)
    replaced: list[tuple[dict[Any, Any], dict[Any, Any]]] = []
    # Determined before the loop, which changes the modules.
    sharded = [isinstance(module, FSDPModule) for module in objective.modules()]
    module: Any
    for module, has_hooks in zip(objective.modules(), sharded, strict=True):
        hooks: list[dict[Any, Any]] = [module._state_dict_pre_hooks]
        if has_hooks:
            hooks += [module._forward_pre_hooks, module._forward_hooks]
        replaced += [(entries, dict(entries)) for entries in (module._parameters, *hooks)]
        for name, parameter in module._parameters.items():
            if parameter is not None:
                module._parameters[name] = full[parameter]
        for entries in hooks:
            entries.clear()
    try:
        yield
    finally:
        for entries, before in replaced:
            entries.update(before)
