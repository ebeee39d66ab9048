"""Optimizers: a table of what each one is, and their parameter groups.

A new optimizer is one entry of OPTIMIZERS and one name in `recipe.training.Optimizer`. Its entry
holds what engines, checkpoints and plans need to know about it.
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
"""Shape and type of a tensor that an optimizer keeps for a parameter."""

COUNT: dict[str, Entry] = {"step": ((), torch.float32)}
BLOCK_8BIT = 256
"""Weights that share one scale in an 8-bit optimizer of bitsandbytes, and size of its tables."""
SMALLEST_8BIT = 4096
"""Weights of the smallest tensor whose moments bitsandbytes keeps in 8 bits."""


@dataclass(frozen=True, kw_only=True)
class Kind:
    """What an optimizer is."""

    build: Callable[[list[Group], Optimizer], torch.optim.Optimizer]
    state: Callable[[tuple[int, ...], Optimizer], Mapping[str, Entry]]
    """What it keeps for a parameter of a shape, by entry; a number has the shape ()."""
    elementwise: bool
    """Whether each weight is updated from its own gradient and moments alone, so that an engine may
    cut parameters anywhere and shard them."""

    def moment_bytes(self, shape: tuple[int, ...], settings: Optimizer) -> int:
        """Returns the bytes that it keeps for a parameter, numbers excepted."""
        kept = self.state(shape, settings).values()
        return sum(math.prod(size) * dtype.itemsize for size, dtype in kept if size)


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

    The loop multiplies the learning rate of a step with `lr_scale` of each group.
    """
    decayed = [p for p in parameters.values() if p.ndim >= 2]
    spared = [p for p in parameters.values() if p.ndim < 2]
    groups = [(decayed, weight_decay), (spared, 0.0)]
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
    """Keeps the moments of small tensors in fp32."""
    return _bitsandbytes("AdamW8bit", settings)(groups, **_adam_settings(settings))


def _paged_adamw_8bit(groups: list[Group], settings: Optimizer) -> torch.optim.Optimizer:
    """Pages moments to the host on CUDA; elsewhere it is `_adamw_8bit`."""
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
    kept = dict(COUNT)
    for moment in (1, 2):
        kept[f"state{moment}"] = (shape, torch.uint8)
        kept[f"qmap{moment}"] = ((BLOCK_8BIT,), torch.float32)
        kept[f"absmax{moment}"] = ((-(-num_weights // BLOCK_8BIT),), torch.float32)
    return kept


OPTIMIZERS: dict[str, Kind] = {
    "adamw": Kind(build=_adamw, state=_adam_state, elementwise=True),
    "sgd": Kind(build=_sgd, state=_sgd_state, elementwise=True),
    # Blocks of weights share a scale.
    "adamw_8bit": Kind(build=_adamw_8bit, state=_adam_8bit_state, elementwise=False),
    "paged_adamw_8bit": Kind(build=_paged_adamw_8bit, state=_adam_8bit_state, elementwise=False),
}
"""By the name that a recipe gives."""
