"""Gives a model on the meta device memory without contents, in the order in which it is loaded."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from trainer.planning.trace.storages import Section, Storages

WEIGHTS, CONSTANTS = "weights", "quantisation constants"
CONSTANT = "quantisation_"
"""Prefix of the names of buffers that hold such constants."""


def allocate(
    model: nn.Module,
    storages: Storages,
    *,
    unpacked: torch.dtype,
    layers: Sequence[nn.Module] = (),
) -> None:
    """Replaces the weights of a model on the meta device by tensors without contents on the CPU.

    Tied weights stay tied. A packed weight is preceded for a moment by the weight in the type
    `unpacked`, out of which bitsandbytes makes it. What the `layers` get is logged as theirs.
    """
    known: dict[int, nn.Parameter] = {}
    owner = {id(part): index for index, layer in enumerate(layers) for part in layer.modules()}
    for module in model.modules():
        index = owner.get(id(module))
        with storages.within(None if index is None else Section("loading", index)):
            _allocate(module, storages, unpacked, known)


def _allocate(
    module: nn.Module, storages: Storages, unpacked: torch.dtype, known: dict[int, nn.Parameter]
) -> None:
    layer: Any = module
    packed = hasattr(module, "refer")
    whole = [torch.empty(layer.out_features, layer.in_features, dtype=unpacked)] if packed else []
    for name, parameter in list(module.named_parameters(recurse=False)):
        with storages.making(WEIGHTS):
            if id(parameter) not in known:
                empty = nn.Parameter(_empty(parameter), parameter.requires_grad)
                known[id(parameter)] = empty
            setattr(module, name, known[id(parameter)])
    for name, buffer in list(module.named_buffers(recurse=False)):
        with storages.making(CONSTANTS if name.startswith(CONSTANT) else WEIGHTS):
            setattr(module, name, _empty(buffer))
    whole.clear()
    if packed:
        layer.refer()


def _empty(tensor: Tensor) -> Tensor:
    return torch.empty(tensor.shape, dtype=tensor.dtype, device="cpu")
