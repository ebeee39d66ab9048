"""Counts of parameters, true also for packed 4-bit weights."""

from dataclasses import dataclass

import torch
from torch import nn


@dataclass(frozen=True)
class ParameterCounts:
    total: int
    """Weights of the model, whatever their storage."""
    trainable: int
    stored: int
    """Elements as they lie in memory: two 4-bit weights are one."""


def count_parameters(model: nn.Module) -> ParameterCounts:
    """Returns the counts of a model; a tied weight counts once."""
    parameters = list(model.parameters())
    return ParameterCounts(
        total=sum(num_weights(parameter) for parameter in parameters),
        trainable=sum(p.numel() for p in parameters if p.requires_grad),
        stored=sum(parameter.numel() for parameter in parameters),
    )


def num_weights(parameter: nn.Parameter) -> int:
    """Returns how many weights a parameter stands for: of packed 4-bit, those of its shape."""
    state = getattr(parameter, "quant_state", None)
    return int(torch.Size(state.shape).numel()) if state is not None else parameter.numel()


def trainable_parameters(model: nn.Module) -> dict[str, nn.Parameter]:
    """Returns the parameters that learn, by name."""
    return {name: p for name, p in model.named_parameters() if p.requires_grad}
