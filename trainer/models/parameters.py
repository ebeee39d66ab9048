"""Parameter counts, which see through the packing of 4-bit weights."""

import math
from dataclasses import dataclass

from torch import nn


@dataclass(frozen=True)
class ParameterCounts:
    total: int
    """Number of weights in the model, however they are stored."""
    trainable: int
    """Number of weights that are trained."""
    stored: int
    """Number of elements in memory, of which each holds two packed 4-bit weights."""


def count_parameters(model: nn.Module) -> ParameterCounts:
    """Returns the parameter counts of a model; a tied weight counts once."""
    parameters = list(model.parameters())
    return ParameterCounts(
        total=sum(num_weights(parameter) for parameter in parameters),
        trainable=sum(p.numel() for p in parameters if p.requires_grad),
        stored=sum(parameter.numel() for parameter in parameters),
    )


def num_weights(parameter: nn.Parameter) -> int:
    """Returns the number of weights in a parameter, which is more than its elements if it is packed
    in 4 bits."""
    return math.prod(weight_shape(parameter))


def weight_shape(parameter: nn.Parameter) -> tuple[int, ...]:
    """Returns the shape of a parameter, before packing if it is packed in 4 bits."""
    state = getattr(parameter, "quant_state", None)
    return tuple(parameter.shape if state is None else state.shape)


def trainable_parameters(model: nn.Module) -> dict[str, nn.Parameter]:
    """Returns the trainable parameters by name."""
    return {name: p for name, p in model.named_parameters() if p.requires_grad}
