"""Optimizers and their parameter groups."""

from typing import Any

import torch
from torch import nn

from trainer.errors import ConfigError
from trainer.recipe import schema


def build_optimizer(
    parameters: dict[str, nn.Parameter], settings: schema.Optimizer
) -> torch.optim.Optimizer:
    """Returns the optimizer over `parameters`; weight decay spares biases and normalisation.

    8-bit optimizers keep the moments of small tensors in fp32; paged ones page on CUDA only.
    """
    groups = parameter_groups(parameters, settings.weight_decay)
    if settings.name == "sgd":
        return torch.optim.SGD(groups, lr=settings.learning_rate, momentum=settings.momentum)
    adam: dict[str, Any] = {
        "lr": settings.learning_rate,
        "betas": settings.betas,
        "eps": settings.eps,
    }
    if settings.name == "adamw":
        return torch.optim.AdamW(groups, fused=True, **adam)
    try:
        from bitsandbytes.optim.adamw import AdamW8bit, PagedAdamW8bit
    except ImportError as error:
        raise ConfigError(
            f"optimizer.name: {settings.name} needs bitsandbytes; install it or use adamw"
        ) from error
    if settings.name == "paged_adamw_8bit":
        return PagedAdamW8bit(groups, **adam)
    return AdamW8bit(groups, **adam)


def parameter_groups(
    parameters: dict[str, nn.Parameter], weight_decay: float
) -> list[dict[str, object]]:
    """Returns the groups with and without decay, in the model's order; empty ones are left out."""
    decayed = [p for p in parameters.values() if p.ndim >= 2]
    spared = [p for p in parameters.values() if p.ndim < 2]
    groups = [(decayed, weight_decay), (spared, 0.0)]
    return [{"params": group, "weight_decay": decay} for group, decay in groups if group]
