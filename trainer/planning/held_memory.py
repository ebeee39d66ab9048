"""Records of the memory that an engine holds for the parameters of a model."""

from dataclasses import dataclass

import torch
from torch import nn

from trainer.engines.fsdp2 import layer_classes

FP32 = 4
"""Bytes of an element."""


@dataclass(frozen=True, kw_only=True)
class PlannedParameter:
    """A parameter as the model holds it before an engine does; packed weights are uint8."""

    shape: tuple[int, ...]
    dtype: torch.dtype
    trainable: bool
    layer: int | None = None
    """The layer with which FSDP2 gathers it; None for what is outside of layers."""

    @property
    def num_weights(self) -> int:
        return torch.Size(self.shape).numel()

    def bytes_each(self, computed: torch.dtype) -> int:
        """Returns the bytes of an element in an engine that casts floating weights to `computed`;
        packed ones stay."""
        return (computed if self.dtype.is_floating_point else self.dtype).itemsize


@dataclass(frozen=True, kw_only=True)
class Held:
    """Bytes by what they hold."""

    weights: int = 0
    gradients: int = 0
    masters: int = 0
    """fp32 copies of weights in 16 bits."""
    moments: int = 0
    buckets: int = 0
    """What is there besides activations at the peak of a backward: gathered weights, gradients on
    their way."""
    update: int = 0
    """What the update needs in addition to weights, gradients, masters and moments; activations
    and `buckets` are gone by then."""

    @property
    def states(self) -> int:
        return self.weights + self.gradients + self.masters + self.moments

    @property
    def total(self) -> int:
        """Returns the bytes at the peak of a step, without activations."""
        return self.states + max(self.buckets, self.update)


@dataclass(frozen=True, kw_only=True)
class EngineMemory:
    rank: Held
    """On the GPU of each process; the process with most."""
    host: Held = Held()
    """In the host's memory, for each process."""
    nvme: Held = Held()
    """On the disk, for each process."""


def planned_parameters(objective: nn.Module) -> list[PlannedParameter]:
    """Returns the parameters of an objective, each tied one once."""
    names = layer_classes(objective)
    layers = [
        (f"{name}.", index)
        for index, (name, module) in enumerate(objective.named_modules())
        if type(module).__name__ in names
    ]
    found: list[PlannedParameter] = []
    for name, weight in objective.named_parameters():
        inside = [index for prefix, index in layers if name.startswith(prefix)]
        found.append(
            PlannedParameter(
                shape=tuple(weight.shape),
                dtype=weight.dtype,
                trainable=weight.requires_grad,
                layer=inside[-1] if inside else None,
            )
        )
    return found
