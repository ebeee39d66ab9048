"""Optimizers and their parameter groups.

To add an optimizer, add an entry to OPTIMIZERS and its name to `recipe.training.Optimizer`. The
entry tells engines, checkpoints and plans what they need to know about it.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from trainer.errors import ConfigError
from trainer.recipe.training import Optimizer

Group = dict[str, Any]
Entry = tuple[tuple[int, ...], torch.dtype]
"""Shape and type of a tensor in the state that an optimizer keeps for a parameter."""

COUNT: dict[str, Entry] = {"step": ((), torch.float32)}
"""The number of steps that a parameter has been updated."""
BLOCK_8BIT = 256
"""Number of weights that share a scale in bitsandbytes' 8-bit optimizers; size of their tables."""
SMALLEST_8BIT = 4096
"""Number of weights from which bitsandbytes keeps the moments of a tensor in 8 bits."""


@dataclass(frozen=True, kw_only=True)
class Kind:
    """An optimizer: how to build it, and the facts that engines, checkpoints and plans use."""

    build: Callable[[list[Group], Optimizer], torch.optim.Optimizer]
    """Returns the optimizer of parameter groups."""
    state: Callable[[tuple[int, ...], Optimizer], Mapping[str, Entry]]
    """Returns the state for a parameter of a shape, by entry; numbers have the shape ()."""
    elementwise: bool
    """Whether the update of a weight depends only on its own gradient and moments, so that an
    engine may cut parameters anywhere and shard them."""

    def moment_bytes(self, shape: tuple[int, ...], settings: Optimizer) -> int:
        """Returns the size of the state for a parameter in bytes, without numbers."""
        entries = self.state(shape, settings).values()
        return sum(math.prod(size) * dtype.itemsize for size, dtype in entries if size)


def build_optimizer(
    parameters: dict[str, nn.Parameter], settings: Optimizer
) -> torch.optim.Optimizer:
    """Returns the optimizer over `parameters`; biases and normalisation weights do not decay.

    Raises ConfigError if it needs a library that is not installed.
    """
    groups = parameter_groups(parameters, settings.weight_decay)
    return OPTIMIZERS[settings.name].build(groups, settings)


def parameter_groups(parameters: dict[str, nn.Parameter], weight_decay: float) -> list[Group]:
    """Returns the groups with and without decay, in the model's order; empty ones are left out.

    Tensors with fewer than two dimensions, biases and normalisation weights, do not decay. The loop
    multiplies the learning rate of a step by the `lr_scale` of each group.
    """
    decayed = [p for p in parameters.values() if p.ndim >= 2]
    not_decayed = [p for p in parameters.values() if p.ndim < 2]
    groups = [(decayed, weight_decay), (not_decayed, 0.0)]
    return [
        {"params": group, "weight_decay": decay, "lr_scale": 1.0}
        for group, decay in groups
        if group
    ]


def _sgd(groups: list[Group], settings: Optimizer) -> torch.optim.Optimizer:
    return torch.optim.SGD(groups, lr=settings.learning_rate, momentum=settings.momentum)


def _adamw(groups: list[Group], settings: Optimizer) -> torch.optim.Optimizer:
    return torch.optim.AdamW(groups, fused=True, **_adam_settings(settings))


def _adamw_8bit(groups: list[Group], settings: Optimizer) -> torch.optim.Optimizer:
    """Returns AdamW with 8-bit moments, except those of small tensors."""
    return _bitsandbytes("AdamW8bit", settings)(groups, **_adam_settings(settings))


def _paged_adamw_8bit(groups: list[Group], settings: Optimizer) -> torch.optim.Optimizer:
    """Returns `_adamw_8bit` that, on CUDA, can page its moments to the host."""
    return _bitsandbytes("PagedAdamW8bit", settings)(groups, **_adam_settings(settings))


def _adam_settings(settings: Optimizer) -> dict[str, Any]:
    return {"lr": settings.learning_rate, "betas": settings.betas, "eps": settings.eps}


def _bitsandbytes(name: str, settings: Optimizer) -> Any:
    try:
        from bitsandbytes.optim import adamw
    except ImportError as error:
        raise ConfigError(
            f"optimizer.name: {settings.name} needs bitsandbytes",
            key="optimizer.name",
            value=settings.name,
            hint="install it or use adamw",
        ) from error
    return getattr(adamw, name)


def _sgd_state(shape: tuple[int, ...], settings: Optimizer) -> Mapping[str, Entry]:
    return {"momentum_buffer": (shape, torch.float32)} if settings.momentum else {}


def _adam_state(shape: tuple[int, ...], _settings: Optimizer) -> Mapping[str, Entry]:
    return {**COUNT, "exp_avg": (shape, torch.float32), "exp_avg_sq": (shape, torch.float32)}


def _adam_8bit_state(shape: tuple[int, ...], _settings: Optimizer) -> Mapping[str, Entry]:
    num_weights = math.prod(shape)
    if num_weights < SMALLEST_8BIT:
        return {**COUNT, "state1": (shape, torch.float32), "state2": (shape, torch.float32)}
    state = dict(COUNT)
    for moment in (1, 2):
        state[f"state{moment}"] = (shape, torch.uint8)
        state[f"qmap{moment}"] = ((BLOCK_8BIT,), torch.float32)
        state[f"absmax{moment}"] = ((-(-num_weights // BLOCK_8BIT),), torch.float32)
    return state


OPTIMIZERS: dict[str, Kind] = {
    "adamw": Kind(build=_adamw, state=_adam_state, elementwise=True),
    "sgd": Kind(build=_sgd, state=_sgd_state, elementwise=True),
    # Blocks of weights share a scale: these are not elementwise.
    "adamw_8bit": Kind(build=_adamw_8bit, state=_adam_8bit_state, elementwise=False),
    "paged_adamw_8bit": Kind(build=_paged_adamw_8bit, state=_adam_8bit_state, elementwise=False),
}
"""The optimizers, by their names in recipes."""
